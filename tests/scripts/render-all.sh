#!/bin/sh
# Renders one profile in all combinations of role, family, transport, preempt and active/active, each through
# keepalived -t.
# The other switches take turns, so that each value of each is met with each family and transport.
# To be run by root in a network namespace of its own. usage: render-all.sh RENDER SCRIPTS PROFILE
# Prints each command line that fails, and last how many passed.
set -u
render=$1 scripts=$2 profile=$3

ip link set lo up
ip link add eth0 type veth peer name peer0 && ip link set eth0 up && ip link set peer0 up || exit 71

passed=0 failed=0 turn=0
turns() { # sets $more: one value of each switch, different ones each time
	turn=$((turn + 1))
	more=''
	[ $((turn % 2)) -eq 0 ] || more="$more --track-process off"
	[ $((turn % 3)) -ne 1 ] || more="$more --track-file off"
	[ $((turn % 3)) -ne 2 ] || more="$more --track-file /run/magent/other.track"
	[ $((turn % 5)) -ne 2 ] || more="$more --drain-file off"
	[ $((turn % 5)) -ne 3 ] || more="$more --drain-file /run/other.drain"
	[ $((turn % 7)) -ne 1 ] || more="$more --notify off"
	[ $((turn % 7)) -ne 3 ] || more="$more --degraded leave"
	[ $((turn % 7)) -ne 5 ] || more="$more --script-user nobody"
	[ $((turn % 4)) -ne 2 ] || more="$more --check 127.0.0.1:12000"
	[ $((turn % 4)) -ne 0 ] || more="$more --check off"
	[ $((turn % 11)) -ne 4 ] || more="$more --name pair_2"
	[ $((turn % 11)) -ne 6 ] || more="$more --process magent-other"
	[ $((turn % 11)) -ne 8 ] || more="$more --advert-int 2"
	[ $((turn % 3)) -ne 0 ] ||
		more="$more --real-server 192.0.2.21 --real-server [2001:db8::21]:12000 --port 12000"
	[ $((turn % 9)) -ne 1 ] ||
		more="$more --real-server 192.0.2.21:112 --real-server [2001:db8::21]:112 --port 12000 --lvs-method NAT"
	[ $((turn % 13)) -ne 6 ] || more="$more --preempt-delay 0"
	[ $((turn % 13)) -ne 8 ] || more="$more --preempt-delay 12.5"
	# Something has to tell a dead proxy from a live one.
	case $more in
	*'process off'*'file off'*'check off'*) more="$more --check /run/magent/magent.sock" ;;
	esac
}

try() {
	turns
	# shellcheck disable=SC2086 # words
	if text=$("$render" --profile "$profile" --interface eth0 --scripts "$scripts" "$@" $more 2>&1 >/dev/null) &&
		[ -z "$text" ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "render --profile $profile $* $more: $text"
	fi
}

for role in master backup; do
	for preempt in --preempt --nopreempt; do
		for family in 4 6 46 64; do
			case $family in
			4*) own=192.0.2.11 peer=192.0.2.12 third=192.0.2.13 ;;
			*) own=2001:db8::11 peer=2001:db8::12 third=2001:db8::13 ;;
			esac
			case $family in
			4) vips='--vip 192.0.2.66' others='--other-vip 192.0.2.67' ;;
			6) vips='--vip 2001:db8::66' others='--other-vip 2001:db8::67' ;;
			46) vips='--vip 192.0.2.66 --vip 2001:db8::66' others='--other-vip 2001:db8::67 --other-vip 192.0.2.67' ;;
			64) vips='--vip 2001:db8::66 --vip 192.0.2.66 --vip 192.0.2.68' others='--other-vip 2001:db8::67' ;;
			esac
			for transport in "--own $own --peer $peer" "--own $own --multicast" --multicast; do
				for active in '' "$others --other-router-id 62"; do
					# shellcheck disable=SC2086 # words
					try --role $role $preempt $transport $vips --router-id 61 $active
				done
			done
			# shellcheck disable=SC2086 # words
			try --role $role $preempt --own $own --peer $peer --peer $third $vips --router-id 255 --priority 1
		done
	done
done
echo "passed $passed failed $failed"
[ $failed -eq 0 ]
