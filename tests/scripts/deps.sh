#!/bin/sh
# Installs what `make run`, `make test` and `make bench` need and does not find.
# Silent when nothing is missing. Debian and Ubuntu (apt-get), RHEL and its relatives (dnf, yum).
set -eu

# The oldest compiler that builds magent: rust-version in Cargo.toml.
rust_major=1
rust_minor=85

have() { command -v "$1" >/dev/null 2>&1; }
say() { printf 'deps: %s\n' "$*"; }

if have apt-get; then system=debian
elif have dnf; then system=redhat; installer=dnf
elif have yum; then system=redhat; installer=yum
else system=other
fi

# A program that has to be there | its package on Debian | on RHEL | need: must or wish.
# `-` on RHEL: not packaged there. nutcracker is only the peer of the bench.
programs() {
	cat <<-'END'
		memcached  memcached          memcached                        must
		cc         gcc                gcc                              must
		ss         iproute2           iproute                          must
		setpriv    util-linux         util-linux                       must
		nutcracker nutcracker         -                                wish
		memccat    libmemcached-tools libmemcached,libmemcached-awesome-tools wish
		valgrind   valgrind           valgrind                         wish
		keepalived keepalived         keepalived                       wish
		systemd-analyze systemd       systemd                          wish
		man        man-db             man-db                           wish
		strip      binutils           binutils                         wish
		chromedriver chromium-driver  chromedriver                     wish
	END
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then "$@"
	elif have sudo; then sudo "$@"
	else
		say "needs root or sudo to run: $*"
		return 1
	fi
}

updated=no
install_packages() {
	case $system in
	debian)
		if [ $updated = no ]; then
			as_root apt-get -q update || return 1
			updated=yes
		fi
		as_root env DEBIAN_FRONTEND=noninteractive \
			apt-get -q -y --no-install-recommends install "$@" ;;
	redhat) as_root "$installer" -q -y install "$@" ;;
	*) return 1 ;;
	esac
}

# Debian starts a service as soon as it is installed. Nobody asked for one here.
quiet_service() {
	if [ -d /run/systemd/system ] && have systemctl; then
		for service in "$@"; do
			as_root systemctl disable --now "$service" >/dev/null 2>&1 || true
		done
	fi
}

missing=no
while read -r program debian redhat need; do
	if have "$program"; then continue; fi
	case $system in
	debian) packages=$debian ;;
	redhat) packages=$redhat ;;
	*) packages=$program ;;
	esac
	if [ "$packages" = - ]; then
		say "$program is not packaged here; only make bench would compare with it"
		continue
	fi
	# Names differ between releases: the first one that installs will do.
	installed=no
	for package in $(echo "$packages" | tr , ' '); do
		say "$program is missing: installing $package"
		if install_packages "$package" </dev/null; then
			installed=yes
			break
		fi
	done
	if [ $installed = yes ]; then
		case $program in
		memcached | nutcracker | keepalived) quiet_service "$program" ;;
		esac
	elif [ "$need" = must ]; then
		say "cannot install $program; please install it (package: $packages)"
		missing=yes
	else
		say "cannot install $program (package: $packages); going on without it"
	fi
done <<END
$(programs)
END

# Older and newer servers than the installed one: some tests run against those, too.
if [ $system = debian ]; then
	for release in bullseye trixie sid; do
		home=${MAGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/magent}
		[ -x "$home/memcached-$release/memcached" ] && continue
		say "fetching memcached of Debian $release into $home, for tests and bench"
		"$(dirname "$0")/memcached-of.sh" "$release" >/dev/null ||
			say "no memcached of $release; the tests that need it will say so"
	done
fi

rust_is_new_enough() {
	have cargo && have rustc || return 1
	version=$(rustc --version 2>/dev/null | cut -d ' ' -f 2)
	major=${version%%.*}
	rest=${version#*.}
	minor=${rest%%.*}
	[ "${major:-0}" -gt $rust_major ] ||
		{ [ "${major:-0}" -eq $rust_major ] && [ "${minor:-0}" -ge $rust_minor ]; }
}

# What is missing of the toolchain, in the names of the programs.
rust_lacks() {
	for tool in cargo-fmt cargo-clippy; do
		have $tool || echo $tool
	done
}

if ! have cargo; then
	say "cargo is missing: trying the distribution's package"
	case $system in
	debian) install_packages cargo rustfmt rust-clippy || true ;;
	redhat) install_packages cargo rustfmt clippy || true ;;
	esac
fi
if ! rust_is_new_enough; then
	say "magent needs Rust $rust_major.$rust_minor or newer, here is: $(rustc --version 2>/dev/null || echo none)"
	say "where the distribution's is older, install it from https://rustup.rs:"
	say "  curl -sSf https://sh.rustup.rs | sh -s -- -y"
	missing=yes
elif [ -n "$(rust_lacks)" ]; then
	if have rustup; then
		say "installing rustfmt and clippy with rustup"
		rustup -q component add rustfmt clippy || missing=yes
	else
		case $system in
		debian) install_packages rustfmt rust-clippy || missing=yes ;;
		redhat) install_packages rustfmt clippy || missing=yes ;;
		*) missing=yes ;;
		esac
	fi
	[ $missing = no ] || say "make test needs cargo fmt and cargo clippy"
fi

if [ $system = debian ] && [ $missing = no ] && ! have cargo-deb; then
	say "cargo-deb is missing: building it with cargo; make deb and the test of the package use it"
	cargo install -q cargo-deb --locked || say "no cargo-deb; the test of the package will say so"
fi

[ $missing = no ]
