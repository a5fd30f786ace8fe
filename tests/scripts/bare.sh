#!/usr/bin/env bash
# What somebody sees who has a bare Debian with make and git, and clones this repository: `make run` and `make test`, unattended.
# Needs root and mmdebstrap (`apt-get install mmdebstrap`). Not part of the tests: it downloads and builds for an hour.
#
#   bare.sh [-k] [RELEASE...] [-- WHAT...]
#
# RELEASE: bookworm and trixie when none is named. WHAT: run, test or both; both when none is named. Each is done as root and as
# a user with sudo. -k keeps the roots. BARE_FOLDER says where they are made (/var/tmp).
#
# The roots get this host's ways to the packages: /etc/apt/apt.conf.d's lines on proxies, certificates and times, the host's
# certificates and cargo's config.toml. Nothing else of this host is in them.
set -euo pipefail
cd "$(dirname "$0")/../.."

keep=no
releases=()
what=()
while [ $# -gt 0 ]; do
	case $1 in
	-k) keep=yes ;;
	--) shift; what=("$@"); break ;;
	*) releases+=("$1") ;;
	esac
	shift
done
[ ${#releases[@]} -gt 0 ] || releases=(bookworm trixie)
[ ${#what[@]} -gt 0 ] || what=(run test)
[ "$(id -u)" -eq 0 ] || { echo "bare-test: needs root" >&2; exit 1; }
command -v mmdebstrap >/dev/null || { echo "bare-test: needs mmdebstrap: apt-get install mmdebstrap" >&2; exit 1; }

folder=${BARE_FOLDER:-/var/tmp}/magent-bare
mkdir -p "$folder"
failed=0
passed=0
say() { printf 'bare-test: %s\n' "$*"; }

# A bare root, made once for each release.
base() {
	local release=$1 security="deb http://deb.debian.org/debian-security $1-security main"
	[ ! -e "$folder/$release.tar" ] || return 0
	say "making a bare $release"
	mmdebstrap --quiet --variant=minbase --include=make,git,ca-certificates "$release" "$folder/$release.new" - <<-END
		deb http://deb.debian.org/debian $release main
		deb http://deb.debian.org/debian $release-updates main
		$security
	END
	tar -C "$folder/$release.new" --numeric-owner -cf "$folder/$release.part" .
	rm -rf --one-file-system "$folder/$release.new"
	mv "$folder/$release.part" "$folder/$release.tar"
}

# This host's ways to the packages.
borrow() {
	local root=$1 home=$2
	grep -hsE '^ *Acquire::(http|https|Check|ForceIPv4|Retries)' /etc/apt/apt.conf /etc/apt/apt.conf.d/* \
		>"$root/etc/apt/apt.conf.d/90host" || true
	cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
	cp /etc/resolv.conf /etc/hosts "$root/etc/"
	local config=${CARGO_HOME:-$HOME/.cargo}/config.toml
	[ ! -e "$config" ] || install -D -m 644 "$config" "$root$home/.cargo/config.toml"
}

# Runs a line of shell in the root as its user, with processes of its own: what is left ends with it.
inside() {
	local root=$1 user=$2 line=$3 home=/root become=()
	[ "$user" = root ] || { home=/home/$user; become=(setpriv --reuid "$user" --regid "$user" --init-groups); }
	local borrowed=() name
	for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
		[ -z "${!name:-}" ] || borrowed+=("$name=${!name}")
	done
	# shellcheck disable=SC2016 # for the shell inside
	unshare --mount --pid --fork --kill-child --mount-proc="$root/proc" -- sh -c '
		root=$1
		shift
		mount --rbind /dev "$root/dev" && mount --make-rslave "$root/dev" && mount -t sysfs -o ro sysfs "$root/sys"
		exec chroot "$root" "$@"' sh "$root" env -i HOME="$home" USER="$user" LANG=C.UTF-8 "${borrowed[@]}" \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		"${become[@]}" sh -c "cd $home/magent && $line" </dev/null
}

# `make run` does not end by itself: waits for the ports, asks through it, and interrupts it.
# shellcheck disable=SC2016,SC2034 # for the shell inside; used by name
run_line='
	: >run.log; env --default-signal=INT setsid make run >run.log 2>&1 & group=$!
	tries=0
	until grep -q "Ctrl-C here" run.log; do
		tries=$((tries + 1))
		kill -0 $group 2>/dev/null && [ $tries -lt 3600 ] || { cat run.log; exit 1; }
		sleep 1
	done
	cat run.log
	port=$(sed -n "s/^ *magent  *127.0.0.1:\([0-9]*\) .*/\1/p" run.log)
	bash -c "exec 3<>/dev/tcp/127.0.0.1/$port && printf \"set key1 0 0 5\r\nvalue\r\nget key1\r\nquit\r\n\" >&3 && cat <&3" |
		tr -d "\r" | grep -x value || exit 1
	kill -INT -$group
	wait $group
	sleep 1
	! cat /proc/[0-9]*/comm | grep -x "memcached\|magent"'
# shellcheck disable=SC2034
test_line='make test'

one() {
	local release=$1 user=$2 part root=$folder/$1-$2
	rm -rf --one-file-system "$root"
	mkdir -p "$root"
	tar -C "$root" --numeric-owner -xpf "$folder/$release.tar"
	local home=/root
	if [ "$user" != root ]; then
		home=/home/$user
		chroot "$root" sh -c "apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq -y install sudo >/dev/null &&
			useradd -m -s /bin/bash $user && echo '$user ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/$user"
	fi
	borrow "$root" "$home"
	git clone -q --no-hardlinks . "$root$home/magent"
	[ "$user" = root ] || chroot "$root" chown -R "$user:$user" "$home"
	for part in "${what[@]}"; do
		local line=${part}_line from=$SECONDS log=$folder/$release-$user-$part.log
		say "$release, $user, make $part ..."
		if inside "$root" "$user" "${!line}" >"$log" 2>&1; then
			passed=$((passed + 1))
			say "$release, $user, make $part: ok, $((SECONDS - from)) s, $(tail -n 1 "$log")"
		else
			failed=$((failed + 1))
			tail -n 20 "$log"
			say "$release, $user, make $part: FAILED, $((SECONDS - from)) s, see $log"
		fi
	done
	[ $keep = yes ] || rm -rf --one-file-system "$root"
}

for release in "${releases[@]}"; do
	base "$release"
	for user in ${BARE_USERS:-root somebody}; do one "$release" "$user"; done
done
say "$passed passed, $failed failed"
[ $failed -eq 0 ]
