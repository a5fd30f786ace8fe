#!/usr/bin/env bash
# All that `make test` does. Every step is done, also after one that failed. What was skipped and what failed is named in the
# end, and the last line is `N passed, N failed, N skipped`. The exit code is 1 when anything failed.
#
# Most tests wait for processes: so they run side by side, and lints and other builds meanwhile.
set -u -o pipefail
cd "$(dirname "$0")/../.."

cargo=${CARGO:-cargo}
logs=${CARGO_TARGET_DIR:-target}/test-logs
# So many of the tests with real processes at a time.
threads=${MAGENT_TEST_THREADS:-$(($(nproc) * 4 + 4))}
passed=0
failed=()
skipped=()
# Programs of tests, and their process ids.
started=()
jobs=()

say() { printf '%s\n' "$*"; }

# What is not done: a step, and why.
skip() {
	skipped+=("$1: $2")
	say "$1: SKIPPED, $2"
}

# A step that succeeds or fails: its name, and the command.
step() {
	local name=$1 from=$SECONDS
	shift
	say "$name ..."
	if "$@" >"$logs/$name.log" 2>&1; then
		passed=$((passed + 1))
		say "$name: ok, $((SECONDS - from)) s"
	else
		failed+=("$name")
		cat "$logs/$name.log"
		say "$name: FAILED, $((SECONDS - from)) s"
		return 1
	fi
}

# Starts a program of tests in the background: its name, and the command.
begin() {
	local name=$1
	shift
	say "tests of $name ..."
	"$@" >"$logs/$name.log" 2>"$logs/$name.err" &
	started+=("$name")
	jobs+=($!)
}

# Waits for the end of the program, and adds up what it has said.
count() {
	local name=$1 code bad line good ignored here=0
	wait "$2"
	code=$?
	bad=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$logs/$name.log")
	for line in $bad; do failed+=("$name: $line"); done
	# One that says more than once that something is missing is one test.
	while IFS= read -r line; do
		grep -qxF "${line%%: *}" <<<"$bad" && continue
		skipped+=("$name: $line")
		here=$((here + 1))
	done < <(sed -n 's/^SKIPPED //p' "$logs/$name.err" | awk -F ': ' '!seen[$1]++')
	while read -r good ignored; do
		passed=$((passed + good - here))
		[ "$ignored" -eq 0 ] || skipped+=("$name: $ignored tests that are marked so")
	done < <(sed -n 's/^test result: .* \([0-9]*\) passed; [0-9]* failed; \([0-9]*\) ignored;.*/\1 \2/p' "$logs/$name.log")
	if [ "$code" = 0 ]; then
		say "tests of $name: ok"
		return
	fi
	[ -n "$bad" ] || failed+=("$name: exit code $code")
	sed -n '/^failures:$/,$p' "$logs/$name.log"
	grep -v '^SKIPPED \|^$' "$logs/$name.err"
	say "tests of $name: FAILED"
}

# Builds programs of tests; `cargo test` options. Prints kind, name and path of each.
programs() {
	"$cargo" test --locked --no-run --message-format=json-render-diagnostics "$@" |
		sed -n 's/.*"kind":\["\([a-z]*\)"\],.*"name":"\([a-z]*\)",.*"test":true},"features":.*"executable":"\([^"]*\)".*/\1 \2 \3/p'
}

# The simulator plants bugs. It comes first: what is built last is the `magent` that the other tests start.
build() {
	programs --features sabotage --test sim >"$logs/programs" &&
		programs --lib --bins --test all >>"$logs/programs"
}

# Ctrl-C reaches no background process of a shell without job control.
trap 'kill "${jobs[@]}" 2>/dev/null; exit 130' INT TERM
rm -rf "$logs"
mkdir -p "$logs"

# Tables of answers, and the simulator's server, are of this version, which Debian 12 has. Where another one is installed
# it is fetched, and found first by all tests.
recorded=1.6.18
if [ "$(memcached -V 2>/dev/null)" != "memcached $recorded" ]; then
	if found=$(tests/scripts/memcached-of.sh bookworm 2>"$logs/memcached.log"); then
		export PATH=${found%/*}:$PATH
		say "memcached here is another one than $recorded: that of Debian 12 is used"
	else
		say "no memcached $recorded: $(tail -n 1 "$logs/memcached.log")"
	fi
fi

step build build
while read -r kind name program; do
	case $kind in
	test) ;;
	*) name=$kind ;;
	esac
	if [ "$name" = all ]; then
		begin all "$program" --test-threads "$threads"
	else
		begin "$name" "$program"
	fi
done <"$logs/programs"

if "$cargo" fmt --version >/dev/null 2>&1; then
	step format "$cargo" fmt --check
else
	skip format "there is no cargo fmt here"
fi
oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if rustc --version | grep -q "^rustc $oldest\."; then
	skip lints "those of Rust $oldest are not heeded, newer ones are"
elif "$cargo" clippy --version >/dev/null 2>&1; then
	step lints nice "$cargo" clippy --locked --all-targets -- -D warnings
	step lints-sabotage nice "$cargo" clippy --locked --features sabotage --test sim -- -D warnings
else
	skip lints "there is no cargo clippy here"
fi
step core-bench nice "$cargo" bench --profile tools --locked --bench core -- --check
if grep -q 'NOT compared' "$logs/core-bench.log"; then
	skip core-bench "instructions are not compared: see $logs/core-bench.log"
fi
if ! oldest=$(tests/scripts/oldest-rust.sh 2>"$logs/oldest-rust.log"); then
	skip oldest-rust "$(tail -n 1 "$logs/oldest-rust.log")"
elif [ "$oldest" != "$(command -v rustc)" ]; then
	step oldest-rust nice make -s test-oldest-rust
fi

for n in "${!started[@]}"; do count "${started[n]}" "${jobs[n]}"; done

say "logs: $logs; took $SECONDS s"
for line in "${skipped[@]}"; do say "SKIPPED $line"; done
for line in "${failed[@]}"; do say "FAILED $line"; done
say "$passed passed, ${#failed[@]} failed, ${#skipped[@]} skipped"
[ ${#failed[@]} -eq 0 ]
