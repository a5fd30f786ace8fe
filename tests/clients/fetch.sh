#!/bin/sh
# Brings the clients that `make test-clients` runs, at these versions, into ~/.cache/magent/clients (MAGENT_CACHE says where
# else). Silent when all is there. Says what it fetches, and what cannot be had: the tests of that client are skipped then.
set -eu

python='pymemcache==4.0.0 pylibmc==1.6.3 python-binary-memcached==0.33.0 meta-memcache==4.3.0 memcachio==0.5.1
	Django==5.2'
node='memcached@2.2.2 memjs@1.3.2'
# Interpreters, and clients that are built into them, are installed as packages of the system.
system='php-cli php-memcached php-memcache ruby ruby-dalli libcache-memcached-fast-perl golang-go
	golang-github-bradfitz-gomemcache-dev libmemcached-tools'
# Servers that would be started where they are installed are only unpacked.
unpacked='nginx'
# Not in every release of Debian.
exporter='prometheus-memcached-exporter'
# dalli without the binary protocol: no stable release of Debian has it yet.
dalli='ruby-dalli ruby-connection-pool'

here=$(cd "$(dirname "$0")" && pwd)
home=${MAGENT_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/magent}/clients
mkdir -p "$home"

say() { printf 'clients: %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

# Whether FOLDER holds what belongs to this list.
is_fresh() { [ "$(cat "$home/$1/.list" 2>/dev/null)" = "$2" ]; }

# Runs the rest of the words to fill a new FOLDER with LIST, and puts it in its place when they succeed.
fill() {
	folder=$1 list=$2
	shift 2
	is_fresh "$folder" "$list" && return
	say "fetching into $home/$folder: $(echo "$list" | tr -s '\n\t ' ' ' | cut -c 1-120)"
	rm -rf "$home/$folder.new"
	mkdir -p "$home/$folder.new"
	if (cd "$home" && "$@" "$home/$folder.new") >"$home/$folder.log" 2>&1; then
		echo "$list" >"$home/$folder.new/.list"
		rm -rf "${home:?}/$folder"
		mv "$home/$folder.new" "$home/$folder"
	else
		say "SKIPPED: $folder, see $home/$folder.log: $(tail -n 1 "$home/$folder.log")"
		rm -rf "$home/$folder.new"
	fi
}

# shellcheck disable=SC2086 # lists of packages
fetch_python() { python3 -m pip install -q --no-input --disable-pip-version-check --target "$1" $python; }

# shellcheck disable=SC2086
fetch_node() { npm install --silent --no-audit --no-fund --prefix "$1" $node; }

fetch_rust() {
	CARGO_TARGET_DIR="$1/target" cargo build -q --locked --manifest-path "$here/rust/Cargo.toml" &&
		mv "$1/target/debug/memcache" "$1/target/debug/async_memcached" "$1/" && rm -rf "$1/target"
}

fetch_go() {
	cp "$here/go/client.go" "$1/" && cd "$1" &&
		GOPATH=/usr/share/gocode GO111MODULE=off GOCACHE="$1/cache" GOFLAGS= go build -o client client.go && rm -rf cache
}

fetch_unpacked() { unpack "$1" "$unpacked"; }

fetch_exporter() { unpack "$1" "$exporter"; }

# shellcheck disable=SC2086
fetch_dalli() {
	"$here/../scripts/unpack-of.sh" sid "$1" $dalli && mkdir "$1/lib" &&
		cp -r "$1"/usr/share/rubygems-integration/all/gems/*/lib/. "$1/lib/"
}

# shellcheck disable=SC2086
unpack() {
	cd "$1" && apt-get -q download $2 && for package in *.deb; do dpkg-deb -x "$package" . || return 1; done &&
		rm -f -- *.deb
}

install_system() {
	missing=
	for package in $system; do
		dpkg -s "$package" 2>/dev/null | grep -q '^Status: .* installed' || missing="$missing $package"
	done
	[ -n "$missing" ] || return 0
	if [ "$(id -u)" -eq 0 ]; then root=; elif have sudo; then root=sudo; else
		say "SKIPPED: needs root or sudo to install$missing"
		return 0
	fi
	say "installing$missing"
	$root apt-get -q update >"$home/apt.log" 2>&1 || true
	for package in $missing; do
		$root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$package" \
			</dev/null >>"$home/apt.log" 2>&1 || say "SKIPPED: no $package, see $home/apt.log"
	done
}

if have apt-get; then
	install_system
	fill unpacked "$unpacked" fetch_unpacked
	fill exporter "$exporter" fetch_exporter
	fill dalli "$dalli" fetch_dalli
else
	say "SKIPPED: the clients that Debian packages, there is no apt-get here"
fi
if have python3; then fill python "$python" fetch_python; else say "SKIPPED: Python's clients, there is no python3"; fi
if have npm; then fill node "$node" fetch_node; else say "SKIPPED: Node's clients, there is no npm"; fi
if have cargo; then fill rust "$(cat "$here"/rust/Cargo.* "$here"/rust/src/*.rs "$here"/rust/src/bin/*.rs | cksum)" fetch_rust; fi
if have go; then fill go "$(cksum <"$here/go/client.go")" fetch_go; else say "SKIPPED: gomemcache, there is no go"; fi
