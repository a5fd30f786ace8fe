#!/bin/sh
# Unpacks packages of another Debian release into a folder. Nothing of the system changes: apt downloads and checks them.
#
#   unpack-of.sh RELEASE FOLDER PACKAGE...
#
# Fails, saying why, where they cannot be had (no apt, no network).
set -eu

[ $# -ge 3 ] || { echo "usage: unpack-of.sh RELEASE FOLDER PACKAGE..." >&2; exit 2; }
release=$1 folder=$2
shift 2
command -v apt-get >/dev/null || { echo "unpack-of.sh: needs apt-get" >&2; exit 1; }
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r $keyring ] || { echo "unpack-of.sh: needs $keyring" >&2; exit 1; }

mkdir -p "$folder"
work=$(mktemp -d "$folder/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/debs"
echo "deb [signed-by=$keyring] http://deb.debian.org/debian $release main" >"$work/sources.list"
apt() {
	apt-get -qq -o Dir::State="$work/state" -o Dir::Cache="$work/cache" \
		-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}
apt update >&2
# shellcheck disable=SC2046 # a list of packages
(cd "$work/debs" && apt download $(for package in "$@"; do echo "$package/$release"; done)) >&2
for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$folder"; done
