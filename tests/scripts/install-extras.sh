#!/bin/sh
# The second half of `make install`: documentation, keepalived and systemd files, those there are.
# $1: where to put them (DESTDIR and PREFIX together), $2: the prefix they will be run from.
set -eu

root=${1:?usage: install-extras.sh ROOT PREFIX}
prefix=${2:?usage: install-extras.sh ROOT PREFIX}

copy() { # what, where to: a file or a directory with everything in it
	[ -e "$1" ] || return 0
	mkdir -p "$2"
	cp -R "$1" "$2/"
}

copy README.md "$root/share/doc/magent"
copy docs "$root/share/doc/magent"
copy keepalived "$root/share/magent"

if [ -f systemd/magent.service ]; then
	mkdir -p "$root/lib/systemd/system"
	# The unit names the binary of a default installation.
	sed "s|/usr/local/bin/magent|$prefix/bin/magent|g" systemd/magent.service \
		>"$root/lib/systemd/system/magent.service"
fi
