#!/usr/bin/env bash
# The drill of the README on one machine: two primaries, one backup, magent in front of them.
# Everything is on 127.0.0.1, everything ends with this script.
set -euo pipefail

magent=${1:?usage: run.sh MAGENT PORT}
wanted=${2:?usage: run.sh MAGENT PORT}

pids=()
ports=()

# shellcheck disable=SC2317  # called by finish
# The memcacheds that the drill started again on its ports, and for this user: with -d they are nobody's children.
started_again() {
	local port pid
	for port in "${ports[@]}"; do
		for pid in $(ss -Hltnp "src 127.0.0.1:$port" | grep -o '"memcached",pid=[0-9]*' | cut -d = -f 2 | sort -u); do
			[ ! -O "/proc/$pid" ] || echo "$pid"
		done
	done
}

# shellcheck disable=SC2317  # called by the traps
# Ends what was started here, by pid. A server that the drill stopped with SIGSTOP has to go on to end.
finish() {
	trap - EXIT INT TERM HUP
	local pid tries
	for pid in $(started_again); do
		[[ " ${pids[*]} " == *" $pid "* ]] || pids+=("$pid")
	done
	for pid in "${pids[@]}"; do
		kill -TERM "$pid" 2>/dev/null || true
		kill -CONT "$pid" 2>/dev/null || true
	done
	for pid in "${pids[@]}"; do
		for ((tries = 0; tries < 30; tries++)); do
			kill -0 "$pid" 2>/dev/null || break
			sleep 0.1
		done
		kill -KILL "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
}
trap finish EXIT
trap 'finish; echo; echo "run: all ended"; exit 0' INT TERM HUP

listening() { [ -n "$(ss -Hltn "sport = :$1")" ]; }

# The next free port, in $port. Said aloud when it is not the one that was asked for.
port=0
next_port() {
	port=$1
	while listening "$port"; do
		port=$((port + 1))
		if [ "$port" -gt 65535 ]; then
			echo "run: no free port from $1 on" >&2
			exit 1
		fi
	done
	[ "$port" -eq "$1" ] || echo "run: port $1 is taken, using $port"
}

# Waits until a port accepts, or the process that should open it has ended.
wait_for() {
	local pid=$1 at=$2 what=$3 tries
	for ((tries = 0; tries < 100; tries++)); do
		if ! kill -0 "$pid" 2>/dev/null; then break; fi
		if listening "$at"; then return; fi
		sleep 0.05
	done
	echo "run: $what does not listen on 127.0.0.1:$at" >&2
	exit 1
}

as=()
if [ "$(id -u)" -eq 0 ]; then as=(-u root); fi

# Should this script be killed without a chance to clean up, the kernel ends the rest.
child=()
if setpriv --pdeathsig TERM true 2>/dev/null; then child=(setpriv --pdeathsig TERM); fi

next_port "$wanted"
front=$port
last=$front
for name in "primary 1" "primary 2" "the backup"; do
	next_port $((last + 1))
	last=$port
	"${child[@]}" memcached "${as[@]}" -l 127.0.0.1 -p "$port" -U 0 -t 1 -m 64 &
	pids+=($!)
	wait_for $! "$port" "$name"
	ports+=("$port")
done
memcacheds=("${pids[@]}")
next_port $((last + 1))
admin=$port

line=("$magent" -D "${as[@]}" -l 127.0.0.1 -p "$front"
	-s "127.0.0.1:${ports[0]}" -s "127.0.0.1:${ports[1]}" -b "127.0.0.1:${ports[2]}"
	--admin "127.0.0.1:$admin")
"${child[@]}" "${line[@]}" &
front_pid=$!
pids+=("$front_pid")
wait_for "$front_pid" "$front" magent

cat <<END

  ${line[*]}

  magent     127.0.0.1:$front  pid $front_pid
  primary 1  127.0.0.1:${ports[0]}  pid ${memcacheds[0]}   key2 lives here
  primary 2  127.0.0.1:${ports[1]}  pid ${memcacheds[1]}   key1 lives here
  backup     127.0.0.1:${ports[2]}  pid ${memcacheds[2]}   has a copy of both

  the page   http://127.0.0.1:$admin/   in a terminal: $magent --top 127.0.0.1:$admin

  Try it, in another terminal:

    telnet 127.0.0.1 $front
    set key1 0 0 5
    value
    set key2 0 0 5
    value
    get key1 key2

  Then let a primary fail; both keys stay readable:

    kill ${memcacheds[0]}                 primary 1 ends
    kill -STOP ${memcacheds[1]}           primary 2 hangs (kill -CONT ${memcacheds[1]} wakes it)
    get key1 key2

  and bring it back:

    memcached ${as[*]} -l 127.0.0.1 -p ${ports[0]} -d -P /tmp/primary1.pid

  Ctrl-C here ends magent and its three servers, also those that were started again.

END

# magent's own end (a signal from elsewhere, an error) ends the drill, with its exit code.
code=0
wait "$front_pid" || code=$?
echo "run: magent ended with exit code $code"
exit "$code"
