# Each target installs what it needs and is missing (scripts/install-deps.sh); nothing here needs configuring.

SHELL := bash
TUNABLES := glibc.cpu.x86_rep_movsb_threshold=10000000
TARGET := $(or $(CARGO_TARGET_DIR),target)/debug
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release

.PHONY: help demo demo-chat test test-all sim lint docs bench bench-wire bench-log faults soak bench-failover audit deps

help:
	@echo 'make demo      build, then show one onion address on three nodes and a chat that goes on when one dies'
	@echo 'make demo-chat build, then show two people who talk and send a file without a server'
	@echo 'make test      all checks and tests that fit into a coffee break, with a private Tor network'
	@echo 'make test-all  make test, then what takes longer: Swift, many seeds, demonstrations, the failover measurement'
	@echo 'make sim SEEDS=n  the simulation of the replicated log, with so many seeds'
	@echo 'make lint      formatting and clippy'
	@echo 'make docs      the API documentation, in target/doc'
	@echo 'make bench     the failover measurement alone'
	@echo 'make bench-wire  the session beside its peers: ratios, over loopback and a private Tor network'
	@echo 'make bench-log  the replicated log beside openraft and PostgreSQL: what it takes in, how fast, and when nodes die'
	@echo 'make faults    what clients see while things go wrong with nodes, case by case; an hour'
	@echo 'make soak      the same for half an hour, with something going wrong every 20 s'
	@echo 'make bench-failover  how soon clients are served after a node fails, here and by what others do'
	@echo 'make audit     known vulnerabilities in dependencies; needs the internet'
	@echo 'make deps      install what the others need'

# DEMO_EXIT=1 ends the demo by itself.
demo:
	@scripts/install-deps.sh run
	@echo 'Building; the first time takes about five minutes on two cores.'
	cargo build --workspace
	$(TARGET)/hcp-demo run

demo-chat:
	@scripts/install-deps.sh run
	@echo 'Building; the first time takes about five minutes on two cores.'
	cargo build --workspace
	$(TARGET)/hcp-demo chat

test:
	@scripts/install-deps.sh all
	@scripts/test.sh

# Optimised it is thirty times faster, which is worth a build of its own, without Arti.
sim:
	@scripts/install-deps.sh build
	HCP_SEEDS=$(or $(SEEDS),300) CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true \
	  cargo test --release -p hcp-core --no-default-features --features testing,replica --lib -- \
	  --nocapture replica::log::simulation::tests::nodes

test-all: test
	@scripts/install-deps.sh more
	HCP_SEEDS=5000 cargo test --workspace --lib -- messenger::machine::simulation
	cargo test -p hcp-core --no-default-features --features testing,postgres --lib -- replica::log::store::postgres replica::driver
	cargo test -p hcp-core --no-default-features --features testing,postgres --test log -- postgres
	HCP_KILLS=200 cargo test --release -p hcp-core --no-default-features --features testing,replica --test log -- --nocapture kills
	cargo test --release -p hcp-core --no-default-features --features testing,replica --test log -- --ignored --nocapture million
	$(TARGET)/hcp-testnet -- env HCP_KILLS=200 cargo test --release -p hcp-core -p hcp-demo -p hcp-irc --test log -- --ignored --nocapture private_tor
	$(TARGET)/hcp-demo chat
	hcp-py/install-check.sh
	hcp-ffi/swift/check.sh
	$(TARGET)/hcp-demo failover --kills 20
	@$(MAKE) --no-print-directory faults soak

# Links are cut in network namespaces: needs root, or a kernel that lets others make them. What takes time is the Tor network
# here, not a debug build of a dozen Tor clients on one machine: five nodes and their clients keep two cores busy with that.
faults: released
	$(RELEASE)/hcp-demo faults --out $(RELEASE)/faults

soak: released
	$(RELEASE)/hcp-demo soak --out $(RELEASE)/faults

# Needs PyPI.
bench-failover: released
	scripts/bench-failover.sh hcp-core/docs

.PHONY: released
released:
	@scripts/install-deps.sh faults
	cargo build --release -p hcp-demo -p hcp-irc

lint:
	@scripts/install-deps.sh build
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings

docs:
	@scripts/install-deps.sh build
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

bench:
	@scripts/install-deps.sh run
	cargo build --workspace
	$(TARGET)/hcp-demo failover

# A workspace of its own, with peers that nothing else here needs; takes half an hour to build and one more to run on two
# cores. PARTS="frames streams" measures only those. On some processors `rep movsb`, which glibc takes for large copies, is ten
# times slower between some addresses than between others, which drowns everything else; so all protocols copy without it.
bench-wire:
	@scripts/install-deps.sh run
	GLIBC_TUNABLES=$(TUNABLES) \
	  cargo run --locked --release --manifest-path benches/Cargo.toml --features tor --bin bench-wire -- $(PARTS)

# In the same workspace, built in some minutes after bench-wire was. PARTS="ingest failures" measures only those,
# PARTS=memory-long logs of ten million entries, which take 9 GB of disk. ARGS="--folder /mnt/disk" measures that disk instead of
# the one that the program is on; ARGS=--trial does a tenth of it once, to see that all works.
bench-log:
	@scripts/install-deps.sh bench
	GLIBC_TUNABLES=$(TUNABLES) \
	  cargo run --locked --release --manifest-path benches/Cargo.toml --features tor --bin bench-log -- $(ARGS) $(PARTS)

# Fetches the advisory database from GitHub, which no package registry carries; hence not part of make test.
audit:
	@scripts/install-deps.sh all
	cargo deny check advisories

deps:
	@scripts/install-deps.sh all
