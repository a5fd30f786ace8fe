#!/bin/sh
# Brings memcached of another Debian release into a folder of its own, to test with older and newer servers than the
# one installed here. Nothing of the system changes: packages are downloaded and checked by apt, and unpacked.
#
#   memcached-of.sh RELEASE    bullseye (1.6.9, before today's meta commands), bookworm (1.6.18, of which the tables of
#                              answers are), trixie (1.6.38, explicit CAS) or
#                              sid (1.6.45 or newer, built with its proxy: a peer of the bench)
#
# Prints the path of a command that runs it. Fails, saying why, where it cannot be had (no apt, no network).
set -eu

release=${1:?usage: memcached-of.sh RELEASE}
case $release in
bullseye) libraries="libc6 libevent-2.1-7 libsasl2-2 libssl1.1" ;;
bookworm) libraries="libc6 libevent-2.1-7 libsasl2-2 libssl3" ;;
trixie) libraries="libc6 libevent-2.1-7t64 libsasl2-2 libssl3t64 libzstd1 zlib1g" ;;
sid) libraries="libc6 libevent-2.1-7t64 liblua5.4-0 libsasl2-2 libssl3t64 libzstd1 zlib1g" ;;
*) echo "memcached-of.sh: no list of packages for $release" >&2; exit 2 ;;
esac

home=${MAGENT_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/magent}
folder=$home/memcached-$release
if [ -x "$folder/memcached" ]; then
	echo "$folder/memcached"
	exit 0
fi
mkdir -p "$home"
work=$(mktemp -d "$home/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
# shellcheck disable=SC2086 # a list of packages
"$(dirname "$0")/unpack-of.sh" "$release" "$work/root" memcached $libraries

# It runs with its own release's C library, by that library's own loader.
loader=$(find "$work/root" -name 'ld-linux*.so.*' | head -n 1)
[ -n "$loader" ] || { echo "memcached-of.sh: no loader in libc6 of $release" >&2; exit 1; }
libraries=$(find "$work/root" -name '*.so.*' -printf '%h\n' | sort -u | tr '\n' ':')
cat >"$work/root/memcached" <<END
#!/bin/sh
exec '$loader' --library-path '$libraries' '$work/root/usr/bin/memcached' "\$@"
END
sed -i "s|$work/root|$folder|g" "$work/root/memcached"
chmod +x "$work/root/memcached"
rm -rf "$folder"
mv "$work/root" "$folder"
echo "$folder/memcached"
