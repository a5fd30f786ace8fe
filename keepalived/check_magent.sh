#!/bin/sh
# Does this proxy serve? For keepalived's vrrp_script and MISC_CHECK, and for anybody. Starts nothing, kills nothing.
#
# usage: check_magent.sh [--strict] [ADDR [MS]]
#   ADDR      Unix socket (a path) or HOST:PORT. Default /run/magent/magent.sock. Ask this node's own proxy, never the
#             address that moves: on the standby the other node would answer.
#   MS        how long the whole question may take (default: 300). A hung proxy still accepts connections.
#   --strict  a degraded proxy counts as failed. Not the default: when all servers of some keys are down, both nodes see
#             it, both would give the address up, and the keys that can be served could not be reached either.
#
# exit 0    it serves (degraded too, without --strict)
#      1    degraded and --strict: it answers, but all servers of some keys are down
#      2    it does not answer
#      3    the magent program is not there, or the arguments are wrong
# One line on stdout says why.
set -u

strict=no
if [ "${1:-}" = --strict ]; then
	strict=yes
	shift
fi
if [ $# -gt 2 ]; then
	echo "usage: check_magent.sh [--strict] [ADDR [MS]]"
	exit 3
fi
address=${1:-/run/magent/magent.sock}
limit=${2:-300}

# magent-check is magent under another name, so that vrrp_track_process does not take the question for the proxy.
program=${MAGENT_CHECK:-${0%/*}/magent-check}
[ -x "$program" ] || program=$(PATH=${PATH:-}:/usr/local/bin:/usr/bin command -v magent) || {
	echo "check_magent.sh: no magent program here"
	exit 3
}

"$program" --check "$address" --timeout "$limit"
status=$?
case $status in
0 | 2) exit $status ;;
1) [ $strict = yes ] && exit 1 || exit 0 ;;
64) exit 3 ;;
# Anything else, a death by a signal too: it did not say that it serves.
*) exit 2 ;;
esac
