#!/usr/bin/env bash
# Boots systemd in namespaces, on an overlay of this machine's root: what is installed, started or broken in there is
# gone afterwards, and nothing of it is seen outside. Runs SCRIPT as a service in it, prints what that printed, and
# exits with its status; 77 where the rights are missing.
#
# usage: booted.sh DIRECTORY SCRIPT [ARG...]
# DIRECTORY is seen inside as /drill, read and write; SCRIPT is a path in it.
set -euo pipefail

directory=$(readlink -f "${1:?usage: booted.sh DIRECTORY SCRIPT [ARG...]}")
shift

skip() {
	echo "booted: $*" >&2
	exit 77
}

if [ "${1:-}" != --inside ]; then
	[ "$(id -u)" -eq 0 ] || skip "needs root"
	[ -x /lib/systemd/systemd ] || skip "systemd is not installed"
	unshare -p -f -m -u -i -n -C true 2>/dev/null || skip "namespaces are not permitted here"
	grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || skip "no overlay file system"
	rm -f "$directory/out" "$directory/status"

	# A control group of its own for each hierarchy, so that all that systemd makes lies below it. Removed at the end.
	group=booted.$$
	groups=()
	for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
		if [ -w "$hierarchy/cgroup.procs" ] && [ ! -e "$hierarchy/$group" ] &&
			[ "$(stat -f -c %T "$hierarchy")" != tmpfs ]; then
			case $(stat -f -c %T "$hierarchy") in cgroup2fs | cgroupfs) ;; *) continue ;; esac
			# Subdirectories of one mount are not hierarchies.
			[ "$hierarchy" = /sys/fs/cgroup ] || mountpoint -q "$hierarchy" || continue
			mkdir "$hierarchy/$group" 2>/dev/null && groups+=("$hierarchy/$group")
		fi
	done
	clean() {
		local group
		for group in "${groups[@]}"; do
			find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
		done
	}
	trap clean EXIT
	(
		for group in "${groups[@]}"; do
			# cpuset (cgroup v1) takes nobody before it is told which.
			if [ -e "$group/cpuset.cpus" ] && [ -e "$group/tasks" ]; then
				cat "$group/../cpuset.cpus" >"$group/cpuset.cpus"
				cat "$group/../cpuset.mems" >"$group/cpuset.mems"
			fi
			echo 0 >"$group/cgroup.procs" || true
		done
		exec timeout -k 5 "${BOOTED_SECONDS:-400}" \
			unshare -p -f -m -u -i -n -C --kill-child "$0" "$directory" --inside "$@"
	) >"$directory/console" 2>&1 || true
	[ ! -e "$directory/out" ] || cat "$directory/out"
	if [ ! -s "$directory/status" ]; then
		echo "booted: the script did not end; the console's last lines:" >&2
		tail -n 20 "$directory/console" >&2
		exit 1
	fi
	exit "$(cat "$directory/status")"
fi
shift

# In the namespaces.
base=$(mktemp -d)
mount -t tmpfs booted "$base"
root=$base/root
mkdir "$base/upper" "$base/work" "$root"
mount -t overlay booted -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sys "$root/sys"
mount -t tmpfs run "$root/run"
mount --rbind /dev "$root/dev"
if [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]; then
	mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
else
	mount -t tmpfs cgroup "$root/sys/fs/cgroup"
	mkdir "$root/sys/fs/cgroup/unified" "$root/sys/fs/cgroup/systemd"
	mount -t cgroup2 cgroup "$root/sys/fs/cgroup/unified"
	mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
fi
# Nothing of this machine starts in there but what the script starts; and nothing forbids it to.
rm -rf "$root"/etc/systemd/system/*.wants "$root/usr/sbin/policy-rc.d"
mkdir -p "$root/drill"
mount --bind "$directory" "$root/drill"
mount -t tmpfs tmp "$root/tmp"
cat >"$root/etc/systemd/system/drill.service" <<END
[Unit]
DefaultDependencies=no
Requires=systemd-journald.socket
After=systemd-journald.socket systemd-journald.service
FailureAction=exit-force
SuccessAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/bash -c '$*; echo \$? >/drill/status'
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
StandardOutput=file:/drill/out
StandardError=file:/drill/out
END
ip link set lo up
cd "$root"
pivot_root . mnt
umount -l /mnt
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd --system --unit=drill.service --log-target=console --show-status=0
