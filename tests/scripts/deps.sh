#!/bin/sh
# Installs what a command of the Makefile needs and does not find here. Silent when nothing is missing.
# Debian and Ubuntu (apt-get), RHEL and its relatives (dnf, yum). usage: deps.sh run|test|bench|deb|all
set -eu

command=${1:?usage: deps.sh run|test|bench|deb|all}
here=$(cd "$(dirname "$0")" && pwd)

# The oldest compiler that builds magent.
oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$here/../../Cargo.toml")
# The newest cargo-deb that it builds.
cargo_deb=3.8.0

have() { command -v "$1" >/dev/null 2>&1; }
say() { printf 'deps: %s\n' "$*"; }

if have apt-get; then system=debian
elif have dnf; then system=redhat; installer=dnf
elif have yum; then system=redhat; installer=yum
else system=other
fi

# A program | who needs it | who can do without it, and says so | its packages on Debian | on RHEL. `-`: nobody, or none there.
table() {
	cat <<-'END'
		cc              run,test,bench,deb -     gcc,libc6-dev     gcc,glibc-devel
		memcached       run,test,bench -         memcached         memcached
		ss              run,test,bench -         iproute2          iproute
		setpriv         run,test,bench -         util-linux        util-linux
		dpkg-deb        deb     test             dpkg              dpkg
		strip           deb     test             binutils          binutils
		nutcracker      -       test,bench       nutcracker        -
		memccat         -       test             libmemcached-tools libmemcached-awesome-tools
		valgrind        -       test,bench       valgrind          valgrind
		keepalived      -       test             keepalived        keepalived
		systemd-analyze -       test             systemd           systemd
		man             -       test             man-db            man-db
		ps              -       test             procps            procps-ng
		chromedriver    -       test             chromium-driver   chromedriver
		docker-compose  -       test             docker-compose    -
	END
}

# Whether a list with commas names the command.
for_it() {
	[ "$command" = all ] && [ "$1" != - ] && return
	case ,$1, in *",$command,"*) ;; *) return 1 ;; esac
}

# Whether version $1 is that of the oldest compiler, or newer.
is_enough() {
	major=${1%%.*} rest=${1#*.}
	minor=${rest%%[!0-9]*}
	case $major$minor in '' | *[!0-9]*) return 1 ;; esac
	[ "$major" -gt "${oldest%%.*}" ] || { [ "$major" -eq "${oldest%%.*}" ] && [ "$minor" -ge "${oldest#*.}" ]; }
}

has_rust() { have cargo && have rustc && is_enough "$(rustc --version 2>/dev/null | cut -d ' ' -f 2)"; }

# How root is reached: nothing to put before a command, sudo, or not at all.
if [ "$(id -u)" -eq 0 ]; then root=
elif have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then root=sudo
else root=none
fi

offered() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: \([0-9].*\)/\1/p'; }

# The packages of Rust here, or nothing where they are too old. Debian 12 has a newer one beside its own.
rust_packages() {
	if [ $system = redhat ]; then
		echo cargo rustfmt clippy
	elif is_enough "$(offered rustc)"; then
		echo rustc cargo rustfmt rust-clippy
	elif is_enough "$(offered rustc-web)"; then
		echo rustc-web cargo-web rustfmt-web
	elif [ -z "$(offered rustc)" ] && [ "$root" = none ]; then
		# Nobody has asked yet what there is, and it cannot be asked.
		if grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release; then
			echo rustc-web cargo-web rustfmt-web
		else
			echo rustc cargo rustfmt rust-clippy
		fi
	fi
}

update() {
	[ $system = debian ] && [ "$root" != none ] || return 0
	[ -z "${updated:-}" ] || return 0
	updated=yes
	$root apt-get -qq update || say "apt-get update failed; going on with what it knew"
}

no_rust() {
	say "magent needs Rust $oldest or newer, here is: $(rustc --version 2>/dev/null || echo none)"
	say "no package here is new enough; install it from https://rustup.rs, then try again:"
	say "  curl -sSf https://sh.rustup.rs | sh -s -- -y"
	exit 1
}

# Rust first: without it the rest would be downloaded for nothing.
needed=
wished=
programs=
if ! has_rust; then
	[ $system != other ] || no_rust
	update
	needed=$(rust_packages)
	[ -n "$needed" ] || no_rust
	programs="Rust $oldest"
elif [ "$command" = test ] || [ "$command" = all ]; then
	for tool in fmt clippy; do
		have cargo-$tool || lints=missing
	done
	if [ "${lints:-}" = missing ]; then
		if have rustup; then
			say "installing rustfmt and clippy with rustup"
			rustup -q component add rustfmt clippy || say "no rustfmt or clippy; make test will say which lints it skips"
		elif ! have cargo-fmt && [ -n "$(offered rustfmt-web)" ] && dpkg -s rustc-web >/dev/null 2>&1; then
			wished="rustfmt-web"
		elif [ $system = debian ] && dpkg -s rustc >/dev/null 2>&1; then
			wished="rustfmt rust-clippy"
		fi
	fi
fi

# What is missing, all of it, to ask once.
while read -r program must wish debian redhat; do
	have "$program" && continue
	packages=$debian
	[ $system != redhat ] || packages=$redhat
	[ $system != other ] || packages=$program
	packages=$(echo "$packages" | tr , ' ')
	if for_it "$must"; then
		needed="$needed $packages"
		programs="${programs:+$programs, }$program"
	elif for_it "$wish"; then
		if [ "$packages" = - ]; then say "$program is not packaged here; going on without it"; continue; fi
		wished="$wished $packages"
	fi
done <<END
$(table)
END

apt_line="apt-get install -y --no-install-recommends"
# Installs packages in one go.
install() {
	# The words of $root and of the line are meant to be split.
	# shellcheck disable=SC2086
	case $system in
	debian) $root env DEBIAN_FRONTEND=noninteractive $apt_line -qq --no-remove -o Dpkg::Use-Pty=0 "$@" </dev/null >/dev/null ;;
	redhat) $root "$installer" -q -y install "$@" </dev/null ;;
	*) return 1 ;;
	esac
}

# Debian starts a service as soon as it is installed. Nobody asked for one here.
quiet_services() {
	[ -d /run/systemd/system ] && have systemctl || return 0
	for service in memcached nutcracker keepalived; do
		case " $1 " in *" $service "*) $root systemctl disable --now "$service" >/dev/null 2>&1 || true ;; esac
	done
}

# The line to type where this script cannot.
line() {
	case $system in
	debian) echo "$apt_line $*" ;;
	redhat) echo "$installer install $*" ;;
	*) echo "$*" ;;
	esac
}

# shellcheck disable=SC2086 # lists of packages
if [ -n "$needed$wished" ]; then
	if [ "$root" = none ] || [ $system = other ]; then
		say "${programs:-nothing that must be} missing, and nothing can be installed here (not root, no sudo). Type as root: $(line $needed $wished)"
		[ -z "$needed" ] || exit 1
	else
		update
		known=
		for package in $wished; do
			if [ $system != debian ] || [ -n "$(offered "$package")" ]; then
				known="$known $package"
			else
				say "$package is not packaged here; going on without it"
			fi
		done
		if [ -n "$needed$known" ]; then
			say "installing:" $needed $known
			if ! install $needed $known; then
				# One that cannot be had does not keep the others away.
				if [ -n "$needed" ] && ! install $needed; then
					say "cannot install $programs. Type as root: $(line $needed)"
					exit 1
				fi
				for package in $known; do install "$package" || say "cannot install $package; going on without it"; done
			fi
			quiet_services "$needed $known"
		fi
	fi
fi
has_rust || no_rust

# Older and newer servers than the installed one. Some tests run against those; the newest is a peer of the bench.
if [ $system = debian ] && for_it test,bench; then
	for release in bullseye trixie sid; do
		home=${MAGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/magent}
		[ -x "$home/memcached-$release/memcached" ] && continue
		say "fetching memcached of Debian $release into $home"
		"$here/memcached-of.sh" "$release" >/dev/null || say "no memcached of $release; what needs it will say so"
	done
fi

if for_it test,deb && have dpkg-deb && ! have cargo-deb; then
	say "cargo-deb is missing: building $cargo_deb with cargo"
	if ! cargo install -q cargo-deb --version $cargo_deb --locked; then
		say "no cargo-deb; the test of the package will say so"
		[ "$command" != deb ] || exit 1
	fi
fi
