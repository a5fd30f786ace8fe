#!/bin/sh
# Moves the address to the other node before this node's proxy stops. Called by magent.service (ExecStop); by hand:
#   drain_magent.sh on     keepalived gives this node's addresses up; returns when they have left
#   drain_magent.sh off    this node may have them again
#
# usage: drain_magent.sh on|off [FILE [MS]]
#   FILE  the --drain-file of keepalived/render (default: /run/magent/magent.drain)
#   MS    the longest wait (default: 500). On the standby nothing leaves, and that is waited for in vain.
# exit 0, also where keepalived does not run: then there is nothing to move. 64: wrong arguments; 71: FILE.
# KEEPALIVED_PIDS names keepalived's pid files, where they are elsewhere.
set -u

action=${1:-}
file=${2:-/run/magent/magent.drain}
limit=${3:-500}

put() {
	printf '%s\n' "$1" >"$file" || {
		echo "drain_magent.sh: $file: cannot be written" >&2
		exit 71
	}
}

# The addresses of this host, from /proc: needs no program, and can be read in the unit's sandbox, where `ip` cannot run.
addresses() {
	awk '
		$1 == "|--" { address = $2 }
		/host LOCAL/ { print address }
		NF == 6 && $1 ~ /^[0-9a-f]+$/ { print $1 }' /proc/net/fib_trie /proc/net/if_inet6 2>/dev/null | sort -u
}

# True when one of the addresses in $1 is gone.
left() {
	addresses | BEFORE=$1 awk '
		{ here[$0] = 1 }
		END {
			n = split(ENVIRON["BEFORE"], list, "\n")
			for (i = 1; i <= n; i++) if (!(list[i] in here)) exit 0
			exit 1
		}'
}

case $action in
off)
	put 0
	exit 0
	;;
on) ;;
*)
	echo "usage: drain_magent.sh on|off [FILE [MS]]" >&2
	exit 64
	;;
esac
case $limit in
'' | *[!0-9]* | ??????*)
	echo "usage: drain_magent.sh on|off [FILE [MS]]" >&2
	exit 64
	;;
esac

before=$(addresses)
put 1
# Without keepalived nobody reads the file. Its process cannot be seen from within the unit (ProtectProc), its file can.
running=no
for pid in ${KEEPALIVED_PIDS:-/run/keepalived.pid /run/keepalived/keepalived.pid}; do
	[ ! -s "$pid" ] || running=yes
done
[ $running = yes ] || exit 0

waited=0
while [ "$waited" -lt "$limit" ]; do
	if left "$before"; then
		# The other node takes over within its skew, a few hundredths of a second. Requests that are here already
		# are answered meanwhile.
		sleep 0.05
		exit 0
	fi
	sleep 0.02
	waited=$((waited + 20))
done
exit 0
