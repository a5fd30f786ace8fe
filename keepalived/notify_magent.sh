#!/bin/sh
# Tells people where the address is: one line in syslog, and a file with the present state. keepalived calls it with
# TYPE NAME STATE PRIORITY (INSTANCE magent MASTER 254). Nothing depends on it: magent sees addresses come and go
# by itself, and `stats` says since when this node has them.
#
# The file: /run/magent/NAME.state, one line: STATE and the time (UTC). keepalived does not wait for one call before it
# makes the next, so after several moves in one moment the log has the order, and the file may lag.
# MAGENT_RUN names another directory.
set -u

if [ $# -lt 3 ]; then
	echo "usage: notify_magent.sh TYPE NAME STATE [PRIORITY]" >&2
	exit 64
fi
name=$2 state=$3
case $name in
'' | *[!A-Za-z0-9_.-]* | .*)
	echo "notify_magent.sh: $name: not a name" >&2
	exit 64
	;;
esac

case $state in
MASTER) level=notice text="this node has the address" ;;
BACKUP) level=notice text="the other node has the address" ;;
FAULT) level=warning text="this node cannot have the address: its proxy, its interface, or a drain" ;;
STOP) level=notice text="keepalived ends here" ;;
*) level=notice text="" ;;
esac
logger -t magent-vip -p "daemon.$level" -- "$name: $state${text:+: $text}" 2>/dev/null

# Made new and moved into place: readers see the old line or the new one. noclobber: never through somebody's link.
run=${MAGENT_RUN:-/run/magent}
[ -d "$run" ] || exit 0
new=$run/.$name.state.$$
rm -f "$new"
umask 022
if (set -C && printf '%s %s\n' "$state" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$new") 2>/dev/null; then
	mv -f "$new" "$run/$name.state"
fi
exit 0
