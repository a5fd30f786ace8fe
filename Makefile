# The commands of magent. `make help` lists them; each is one line of shell or one script.

PORT    ?= 12000
PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo
TARGET  := $(or $(CARGO_TARGET_DIR),target)
BIN     := $(TARGET)/release/magent

# rustup's cargo and Debian's nutcracker are often outside the PATH of a plain shell.
export PATH := $(HOME)/.cargo/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin

.DEFAULT_GOAL := build
.PHONY: build deps run test simulate chaos bench bench-quick install uninstall clean help

build:            ## build the release binary (the default)
	$(CARGO) build --release --locked

deps:             ## install what run, test and bench need, where it is missing
	@tests/scripts/deps.sh

run: deps build   ## two primaries, a backup and magent in front, on loopback; PORT=12000
	@tests/scripts/run.sh $(BIN) $(PORT)

test: deps        ## formatting, lints, and all tests: unit, integration, simulator
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --features sabotage --test sim -- -D warnings
	$(CARGO) test --locked
	$(CARGO) test --locked --features sabotage --test sim planted_ -- --nocapture

simulate:         ## the simulator alone, as long as you like: TIME=60 (seconds) or SEEDS=1000, STEPS=5000 [PROFILE=cold SEED=42]
	$(if $(TIME),MAGENT_SIM_TIME=$(TIME)) $(if $(SEEDS),MAGENT_SIM_SEEDS=$(SEEDS)) \
	$(if $(STEPS),MAGENT_SIM_STEPS=$(STEPS)) $(if $(PROFILE),MAGENT_SIM_PROFILE=$(PROFILE)) \
	$(if $(SEED),MAGENT_SIM_SEED=$(SEED)) \
	$(CARGO) test --profile tools --locked --test sim sweep -- --nocapture

chaos:            ## random commands while real servers die and stop: SECONDS=60
	MAGENT_CHAOS_SECONDS=$(or $(SECONDS),60) $(CARGO) test --locked --test chaos -- --nocapture

# `build`: the binary that is measured is the one that is installed, not the one cargo bench makes.
bench: deps build ## all rows against nutcracker, up to 10 minutes; ARGS="--rows w1,w2 --rounds 7"
	$(CARGO) bench --profile tools --locked --bench load -- --magent $(abspath $(BIN)) $(ARGS)

bench-quick: deps build ## depth 1, depth 32 and memory, about a minute
	$(CARGO) bench --profile tools --locked --bench load -- --magent $(abspath $(BIN)) --quick $(ARGS)

# Builds only when there is no binary: `make && sudo make install` needs no cargo for root.
$(BIN):
	$(CARGO) build --release --locked

install: $(BIN)   ## PREFIX=/usr/local DESTDIR=
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/share/doc/magent'
	install -m 755 $(BIN) '$(DESTDIR)$(PREFIX)/bin/magent'
	tests/scripts/install-extras.sh '$(DESTDIR)$(PREFIX)' '$(PREFIX)'

uninstall:        ## takes away what install put there
	rm -f '$(DESTDIR)$(PREFIX)/bin/magent' '$(DESTDIR)$(PREFIX)/lib/systemd/system/magent.service'
	rm -rf '$(DESTDIR)$(PREFIX)/share/doc/magent' '$(DESTDIR)$(PREFIX)/share/magent'

clean:            ## removes everything that was built
	$(CARGO) clean

help:             ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null || grep '## ' Makefile
