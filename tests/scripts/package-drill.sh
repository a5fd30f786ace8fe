#!/usr/bin/env bash
# What a package has to do on a host with systemd: install, start, upgrade, stop, remove, purge. Run by booted.sh in a
# system that is gone afterwards. usage: package-drill.sh OLD.deb NEW.deb
set -uo pipefail
here=$(dirname "$0")
old=$1 new=$2
failed=0

say() { printf '%s\n' "$*"; }
fail() {
	say "FAILED: $*"
	failed=1
}
# what it is, a command that must succeed
must() {
	local what=$1
	shift
	if "$@" >$here/said 2>&1; then say "ok: $what"; else
		fail "$what ($*)"
		sed 's/^/    /' $here/said
	fi
}
is() { [ "$1" = "$2" ] || { echo "$1 instead of $2"; return 1; }; }
main_pid() { systemctl show -P MainPID "$1"; }
# Waits for a command to succeed: the machine may be busy with other tests.
soon() {
	local until=$((SECONDS + 60))
	while ! "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $until ] || return 1
		sleep 0.1
	done
}
file_says() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }
files() { find /usr /etc /var /run -xdev -path /var/lib/dpkg -prune -o -path /var/log -prune -o -path /var/cache -prune -o -path /var/tmp -prune \
	-o -path /run/systemd -prune -o -path /run/log -prune -o -path /run/udev -prune -o -iname '*magent*' -print | sort; }
# Asks for the version, from bash itself.
answers() { # address
	timeout 10 bash -c 'exec 3<>"/dev/tcp/$0/12000" && printf "version\r\n" >&3 && read -r -t 5 word rest <&3 &&
		[ "$word" = VERSION ]' "${1:-127.0.0.1}"
}

export DEBIAN_FRONTEND=noninteractive
say "--- install"
files >$here/before
must "it installs" dpkg -i "$old"
must "the service is enabled" systemctl is-enabled magent
must "and has been started" systemctl is-active magent
must "as a service that says when it is ready" is "$(systemctl show -P Type magent)" notify
must "it answers" answers
pid=$(main_pid magent)
must "it is not root" is "$(ps -o user= -p "$pid")" magent
must "it has no rights but for low ports" is "$(grep CapBnd "/proc/$pid/status" | cut -f 2)" 0000000000000400
# More than the service manager itself may have cannot be given.
most=$(awk '/Max open files/ { print $5 < 524288 ? $5 : 524288 }' /proc/1/limits)
must "its limit of open files" is "$(awk '/Max open files/ { print $4 }' "/proc/$pid/limits")" "$most"
must "the watcher is not enabled by itself" is "$(systemctl is-enabled magent-watch)" disabled
memcached -u nobody -l 127.0.0.1 -p 11211 -d
must "it is well once its server is there" soon /usr/libexec/magent/check_magent.sh --strict
must "the man page" man -w magent

say "--- a crash"
kill -KILL "$pid"
must "it is started again" soon answers
must "without a drain" soon file_says /run/magent/magent.drain 0
sleep 0.5
pid=$(main_pid magent)
kill -STOP "$pid"
must "one that hangs is started again" soon answers
must "as a new process" test "$(main_pid magent)" != "$pid"

say "--- a wrong command line"
cp /etc/magent/magent.conf $here/magent.conf
sed -i 's/^MAGENT_ARGS=.*/MAGENT_ARGS="--no-such-option"/' /etc/magent/magent.conf
systemctl restart magent 2>/dev/null
must "is not tried again" is "$(systemctl is-failed magent)" failed
cp $here/magent.conf /etc/magent/magent.conf
must "is mended" systemctl restart magent

say "--- an instance"
sed 's/-p 12000/-p 81/; s/:12001/:12081/' $here/magent.conf >/etc/magent/two.conf
must "starts beside, at a low port" systemctl start magent@two
must "is well" soon /usr/libexec/magent/check_magent.sh --strict /run/magent/two.sock
must "has its watcher" systemctl start magent-watch@two
must "that writes its file" soon file_says /run/magent/two.track 0
systemctl stop magent@two
must "and sees it stop" soon file_says /run/magent/two.track 2
systemctl stop magent-watch@two
must "and leaves no verdict behind" file_says /run/magent/two.track 0

say "--- keepalived"
ip link add eth0 type veth peer name other && ip link set eth0 up && ip link set other up
ip address add 192.0.2.11/24 dev eth0
sed -i 's/^MAGENT_LISTEN=.*/MAGENT_LISTEN="-l 192.0.2.66 -p 12000"/' /etc/magent/magent.conf
systemctl restart magent
mkdir -p /etc/keepalived /etc/systemd/system/keepalived.service.d
cp /usr/share/doc/magent/examples/keepalived.service.d/magent.conf /etc/systemd/system/keepalived.service.d/
systemctl daemon-reload
# The kernel tells of processes in the first network namespace only.
if /usr/libexec/magent/render --role master --interface eth0 --own 192.0.2.11 --peer 192.0.2.12 --vip 192.0.2.66 \
	--router-id 61 --track-process off >/etc/keepalived/keepalived.conf; then say "ok: render"; else fail render; fi
vip() { ip -o address show dev eth0 | grep -q ' 192\.0\.2\.66/'; }
no_vip() { ! vip; }
must "it starts" systemctl start keepalived
must "with the watcher" systemctl is-active magent-watch
must "the address comes" soon vip
must "it answers there" answers 192.0.2.66
pid=$(main_pid magent)
systemctl stop magent &
stop=$!
order="the proxy ended first"
for ((tries = 0; tries < 2000; tries++)); do
	kill -0 "$pid" 2>/dev/null || break
	if no_vip; then
		order="the address left first"
		break
	fi
done
wait $stop
must "stopping" is "$order" "the address left first"
must "it stays away" no_vip
must "the notify script told" soon grep -q FAULT /run/magent/magent.state
systemctl start magent
must "and is back after the start" soon vip
pid=$(main_pid magent)
kill -STOP "$pid"
must "a proxy that hangs loses it" soon no_vip
kill -CONT "$pid"
must "and gets it back" soon vip
kill -KILL "$(main_pid keepalived)"
must "a killed keepalived is started again" soon systemctl is-active keepalived
systemctl stop keepalived
must "a stopped one takes the address away" no_vip
systemctl stop magent-watch
cp $here/magent.conf /etc/magent/magent.conf
systemctl restart magent

say "--- a socket of systemd's"
cp /usr/share/doc/magent/examples/magent.socket /etc/systemd/system/
systemctl daemon-reload
systemctl stop magent
must "starts" systemctl start magent.socket
must "and magent with it" systemctl restart magent
must "it answers" answers
systemctl stop magent
exec 3<>/dev/tcp/127.0.0.1/12000
printf 'version\r\n' >&3
must "a start serves who waited" systemctl start magent
read -r -t 30 reply <&3
must "with an answer" is "${reply%% *}" VERSION
exec 3>&-
systemctl stop magent.socket magent
rm /etc/systemd/system/magent.socket
systemctl daemon-reload
systemctl start magent

say "--- upgrade"
echo "# mine" >>/etc/magent/magent.conf
pid=$(main_pid magent)
exec 3<>/dev/tcp/127.0.0.1/12000
must "it upgrades" dpkg -i "$new"
must "the running proxy goes on" is "$(main_pid magent)" "$pid"
printf 'version\r\n' >&3
read -r -t 30 reply <&3
must "and so do its connections" is "${reply%% *}" VERSION
exec 3>&-
must "the file of options is kept" grep -q "# mine" /etc/magent/magent.conf
must "a restart takes the new one" systemctl restart magent
must "another process" test "$(main_pid magent)" != "$pid"

say "--- a disabled service"
systemctl disable --now magent 2>/dev/null
must "it upgrades" dpkg -i "$new"
must "stays disabled" is "$(systemctl is-enabled magent)" disabled
must "and is not started" is "$(systemctl is-active magent)" inactive
systemctl enable --now magent 2>/dev/null

say "--- remove"
must "it is removed" dpkg -r magent
must "nothing runs" is "$(ps -eo comm= | grep -c ^magent)" 0
must "the options stay" test -e /etc/magent/magent.conf
must "it is installed again" dpkg -i "$new"
must "and runs" soon answers
must "removed again" dpkg -r magent

say "--- purge"
rm /etc/magent/two.conf
must "it is purged" dpkg -P magent
rm -rf /etc/systemd/system/keepalived.service.d
files >$here/after
must "nothing is left" diff $here/before $here/after
# systemd forgets them when it has time to.
no_unit() { is "$(systemctl --no-pager --plain --no-legend --all list-units --type=service '*magent*')" ""; }
must "no unit either" soon no_unit

if [ $failed -ne 0 ]; then journalctl --no-pager -o cat -n 60 -u magent -u keepalived -u magent-watch; fi
exit $failed
