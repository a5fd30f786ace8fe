#!/bin/sh
# Installs, or removes, what systemd/packaging/files lists.
# usage: install.sh install|uninstall BIN, with PREFIX, SYSCONFDIR and DESTDIR in the environment.
set -eu

action=${1:?usage: install.sh install|uninstall BIN}
bin=${2:?usage: install.sh install|uninstall BIN}
: "${PREFIX:=/usr/local}" "${SYSCONFDIR:=/etc}" "${DESTDIR:=}"
cd "$(dirname "$0")/../.."

for path in "$PREFIX" "$SYSCONFDIR"; do
	case $path in
	/*) ;;
	*)
		echo "install: PREFIX and SYSCONFDIR must be absolute: $path" >&2
		exit 64
		;;
	esac
done

# Where the words of the list lead.
place() {
	printf '%s\n' "$1" | sed "
		s|@BINDIR@|$PREFIX/bin|
		s|@LIBEXECDIR@|$PREFIX/libexec/magent|
		s|@DATADIR@|$PREFIX/share/magent|
		s|@UNITDIR@|$PREFIX/lib/systemd/system|
		s|@LIBDIR@|$PREFIX/lib|
		s|@COMPLETIONDIR@|$PREFIX/share/bash-completion/completions|
		s|@MANDIR@|$PREFIX/share/man|
		s|@DOCDIR@|$PREFIX/share/doc/magent|
		s|@SYSCONFDIR@|$SYSCONFDIR|"
}

# Files name the places of a package (/usr, /etc); elsewhere they name where things are.
adapt() {
	case $1 in
	*.service | *.conf | *.8 | keepalived/guide/*) ;;
	*.md)
		# keepalived's examples lie one folder higher than in the source.
		sed 's,\(](\(\.\./\)*\)keepalived/examples,\1examples,g
			s,\(](\(\.\./\)*\)keepalived/guide,\1examples/guide,g' "$1"
		return
		;;
	*)
		cat "$1"
		return
		;;
	esac
	sed "s|/usr/bin/magent|$PREFIX/bin/magent|g
		s|/usr/libexec/magent|$PREFIX/libexec/magent|g
		s|/usr/share/magent|$PREFIX/share/magent|g
		s|/usr/share/doc/magent|$PREFIX/share/doc/magent|g
		s|/etc/magent|$SYSCONFDIR/magent|g" "$1"
}

put() { # mode, source, target
	mkdir -p "$(dirname "$DESTDIR$3")"
	case $1 in
	'->') ln -sf "$2" "$DESTDIR$3" ;;
	*)
		# A new file in the old one's place: a running program or script keeps what it has open.
		new=$DESTDIR$3.new.$$
		if [ "$2" = "$bin" ]; then cp "$2" "$new"; else adapt "$2" >"$new"; fi
		chmod "$1" "$new"
		mv -f "$new" "$DESTDIR$3"
		;;
	esac
}

install_one() {
	case $3 in
	"$SYSCONFDIR"/*)
		if [ -e "$DESTDIR$3" ]; then
			adapt "$2" | cmp -s - "$DESTDIR$3" || echo "install: $3 is kept as it is (new: $2)"
			return
		fi
		;;
	esac
	put "$@"
}

remove_one() {
	there=$DESTDIR$3
	[ -e "$there" ] || [ -L "$there" ] || return 0
	case $3 in
	"$SYSCONFDIR"/*)
		if ! adapt "$2" | cmp -s - "$there"; then
			echo "uninstall: $3 was changed and is kept"
			return
		fi
		;;
	esac
	rm -f "$there"
	# The directories that were made for it, when they are empty; never PREFIX/lib and the like.
	dir=$(dirname "$3")
	while :; do
		case $dir in
		*/magent | */magent/* | */keepalived.service.d) rmdir "$DESTDIR$dir" 2>/dev/null || break ;;
		*) break ;;
		esac
		dir=$(dirname "$dir")
	done
}

one() {
	if [ "$action" = install ]; then install_one "$@"; else remove_one "$@"; fi
}

case $action in
install | uninstall) ;;
*)
	echo "install: $action: neither install nor uninstall" >&2
	exit 64
	;;
esac

while read -r mode source target; do
	case $mode in '' | '#'*) continue ;; esac
	target=$(place "$target")
	case $source in
	BIN) one "$mode" "$bin" "$target" ;;
	@*) one "$mode" "$(place "$source")" "$target" ;;
	*'*'*)
		for file in $source; do
			one "$mode" "$file" "$target$(basename "$file")"
		done
		;;
	*) one "$mode" "$source" "$target" ;;
	esac
done <systemd/packaging/files

if [ "$action" = install ] && [ -z "$DESTDIR" ]; then
	cat <<-END
		installed in $PREFIX. As a service, once:
		  systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload
		  $SYSCONFDIR/magent/magent.conf: where to listen, which servers
		  systemctl enable --now magent
		Two nodes with one address: $PREFIX/share/doc/magent/docs/high-availability.md
	END
fi
