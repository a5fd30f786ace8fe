#!/bin/sh
# Prints the path of the oldest compiler that magent promises to build with: rust-version in Cargo.toml, Debian 13's.
# Where the installed one is newer, Debian's packages are unpacked into a folder of magent's own. Nothing of the system
# changes. Fails, saying why, where it cannot be had (no apt, no network).
set -eu

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../../Cargo.toml")
suite=trixie

case $(rustc --version 2>/dev/null) in
"rustc $wanted."*) command -v rustc; exit 0 ;;
esac

home=${MAGENT_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/magent}
folder=$home/rust-$wanted
if [ -x "$folder/rustc" ]; then
	echo "$folder/rustc"
	exit 0
fi
fail() { echo "oldest-rust.sh: $*" >&2; exit 1; }
command -v apt-get >/dev/null || fail "no Rust $wanted: it is unpacked from Debian's packages, which needs apt-get"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r $keyring ] || fail "no Rust $wanted: needs $keyring"

mkdir -p "$home"
work=$(mktemp -d "$home/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/root"
echo "deb [signed-by=$keyring] http://deb.debian.org/debian $suite main" >"$work/sources.list"
apt() {
	apt-get -qq -o Dir::State="$work/state" -o Dir::Cache="$work/cache" -o Dir::State::status=/dev/null \
		-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}
apt update >&2
# The compiler and the libraries it starts with; not gcc, which is here.
libraries="libc6 libgcc-s1 libstdc++6 libllvm19 libz3-4 libgmp10 libffi8 libedit2 libxml2 libzstd1 zlib1g liblzma5
	libtinfo6 libbsd0 libmd0 libicu76"
# shellcheck disable=SC2086 # a list of packages
(cd "$work/debs" && apt download "rustc/$suite" "libstd-rust-$wanted/$suite" "libstd-rust-dev/$suite" $libraries) >&2
for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$work/root"; done

# It runs with its own release's C library, by that library's own loader. What it builds is for the system here.
loader=$(find "$work/root" -name 'ld-linux*.so.*' | head -n 1)
[ -n "$loader" ] || fail "no loader in libc6 of $suite"
paths=$(find "$work/root" -name '*.so*' -not -path '*/rustlib/*' -printf '%h\n' | sort -u | tr '\n' ':')
cat >"$work/root/rustc" <<-RUSTC
	#!/bin/sh
	exec '$loader' --library-path '$paths' '$work/root/usr/bin/rustc' --sysroot '$work/root/usr' "\$@"
RUSTC
sed -i "s|$work/root|$folder|g" "$work/root/rustc"
chmod +x "$work/root/rustc"
rm -rf "$folder"
mv "$work/root" "$folder"
case $("$folder/rustc" --version) in
"rustc $wanted."*) echo "$folder/rustc" ;;
*) rm -rf "$folder"; fail "$suite has no Rust $wanted" ;;
esac
