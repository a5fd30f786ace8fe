#!/bin/sh
# Builds the Debian package from what `make install` would install. usage: deb.sh BIN [OUTPUT [VERSION]]
# BIN must be cargo's own release binary. OUTPUT: a file or directory, target/debian by default. VERSION: the package's.
set -eu
cd "$(dirname "$0")/../.."
bin=${1:?usage: deb.sh BIN [OUTPUT [VERSION]]}
output=${2:-target/debian}

command -v cargo-deb >/dev/null 2>&1 || { echo "deb: cargo-deb is missing; make deb installs it" >&2; exit 1; }

# The package's files in their places, less the binary: cargo-deb takes that where cargo built it, and finds out which
# libraries it needs.
root=target/deb-root
rm -rf "$root"
DESTDIR=$root PREFIX=/usr SYSCONFDIR=/etc systemd/packaging/install.sh install "$bin"
rm "$root/usr/bin/magent"
cargo deb --quiet --no-build --output "$output" ${3:+--deb-version "$3"}
