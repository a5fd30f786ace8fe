# The commands of magent. `make help` lists them; each is one line of shell or one script.

PORT    ?= 12000
PREFIX  ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
CARGO   ?= cargo
TARGET  := $(or $(CARGO_TARGET_DIR),target)
BIN     := $(TARGET)/release/magent

# rustup's cargo and Debian's nutcracker are often outside the PATH of a plain shell.
export PATH := $(HOME)/.cargo/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin

export PREFIX SYSCONFDIR DESTDIR

.DEFAULT_GOAL := build
.PHONY: build deps clients run test test-oldest-rust bare-test test-clients simulate mutants chaos bench bench-quick bench-memory bench-fair bench-growth \
	core-bench core-bench-baseline drill install uninstall deb clean help

build:            ## build the release binary (the default)
	$(CARGO) build --release --locked

deps: deps-all    ## install what all commands need, where it is missing
# What one command needs: deps-run, deps-test, deps-bench, deps-deb.
deps-%:
	@tests/scripts/deps.sh $*

clients:          # the clients of other people that the tests run
	@tests/clients/fetch.sh

run: deps-run build   ## two primaries, a backup and magent in front, on loopback; PORT=12000
	@tests/scripts/run.sh $(BIN) $(PORT)

test: deps-test clients ## formatting, lints, and all tests: unit, integration, simulator; the last line says how many passed
	@CARGO="$(CARGO)" tests/scripts/test.sh

test-oldest-rust: ## builds all with the oldest Rust that is promised, and runs the tests of the core with it
	@rust=$$(tests/scripts/oldest-rust.sh) && export RUSTC="$$rust" CARGO_TARGET_DIR=$(TARGET)/oldest-rust && \
	$(CARGO) check --locked --all-targets && $(CARGO) test --locked --lib

bare-test:        ## this tree in bare Debian 12 and 13, as root and with sudo: make run and make test there (root; an hour)
	@tests/scripts/bare.sh $(ARGS)

test-clients: deps-test clients ## real clients in pinned versions, while a server dies and comes back
	$(CARGO) test --locked --test all clients:: -- --nocapture

simulate:         ## the simulator alone, as long as you like: TIME=60 (seconds) or SEEDS=1000, STEPS=5000 [PROFILE=cold SEED=42 TRACE=1]
	$(if $(TIME),MAGENT_SIM_TIME=$(TIME)) $(if $(SEEDS),MAGENT_SIM_SEEDS=$(SEEDS)) \
	$(if $(STEPS),MAGENT_SIM_STEPS=$(STEPS)) $(if $(PROFILE),MAGENT_SIM_PROFILE=$(PROFILE)) \
	$(if $(SEED),MAGENT_SIM_SEED=$(SEED)) $(if $(TRACE),MAGENT_SIM_TRACE=$(TRACE)) \
	$(CARGO) test --profile tools --locked --test sim sweep -- --nocapture

mutants:          ## small bugs planted in the core, one after the other: which ones does the simulator find? SEEDS=300 ONLY=3,14
	$(CARGO) bench --profile dev --locked --bench mutants -- $(if $(SEEDS),--seeds $(SEEDS)) $(if $(ONLY),--only $(ONLY))

chaos:            ## random commands while real servers die and stop: SECONDS=60
	MAGENT_CHAOS_SECONDS=$(or $(SECONDS),60) $(CARGO) test --locked --test all chaos:: -- --nocapture

# `build`: the binary that is measured is the one that is installed, not the one cargo bench makes.
bench: deps-bench build ## all rows against nutcracker, up to 10 minutes; ARGS="--rows w1,w2 --rounds 7"
	$(CARGO) bench --profile tools --locked --bench load -- --magent $(abspath $(BIN)) $(ARGS)

bench-quick: deps-bench build ## depth 1, depth 32 and memory, about a minute
	$(CARGO) bench --profile tools --locked --bench load -- --magent $(abspath $(BIN)) --quick $(ARGS)

drill: deps-test build ## two nodes, one address, real failures, measured (root): RUNS=5 PROFILE=fast DRILLS=power-off,split
	$(CARGO) bench --profile tools --locked --bench drill -- --magent $(abspath $(BIN)) \
	$(if $(RUNS),--runs $(RUNS)) $(if $(PROFILE),--profile $(PROFILE)) $(if $(DRILLS),--drills $(DRILLS)) $(ARGS)

bench-memory: deps-bench build ## idle clients, clients that do not read, half requests, and what is left after a burst
	$(CARGO) bench --profile tools --locked --bench load -- memory --magent $(abspath $(BIN)) $(ARGS)

bench-fair: deps-bench build ## what 50 clients notice of three greedy ones
	$(CARGO) bench --profile tools --locked --bench load -- fair --magent $(abspath $(BIN)) $(ARGS)

bench-growth: deps-bench build ## tables and pictures in docs/performance: how cost grows; about five minutes
	$(CARGO) bench --profile tools --locked --bench load -- growth --magent $(abspath $(BIN)) $(ARGS)

core-bench:       ## what a request costs the core alone: instructions, allocations, ns, beside the baseline
	$(CARGO) bench --profile tools --locked --bench core -- --check

core-bench-baseline: ## takes today's instructions and allocations for the baseline that `make test` checks
	$(CARGO) bench --profile tools --locked --bench core -- --write

# Builds only when there is no binary: `make && sudo make install` needs no cargo for root.
$(BIN):
	$(CARGO) build --release --locked

install: $(BIN)   ## binary, units, scripts, man page, documents: PREFIX=/usr/local SYSCONFDIR=/etc DESTDIR=
	@systemd/packaging/install.sh install $(BIN)

uninstall:        ## takes away what install put there
	@systemd/packaging/install.sh uninstall $(BIN)

deb: deps-deb build ## a Debian package in target/debian; installs cargo-deb with cargo where it is missing
	@systemd/packaging/deb.sh $(BIN)

clean:            ## removes everything that was built
	$(CARGO) clean

help:             ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null || grep '## ' Makefile
