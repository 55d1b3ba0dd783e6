# Two commands do everything on a fresh machine, their own set-up included:
#   make demo   a real text, counted; killed twice with kill -9; the result proved right
#   make test   all tests, among them the kills of real processes; formatting and lints
# One target directory for all, so that each thing is compiled once.

CARGO_TARGET_DIR ?= $(HOME)/.cache/tidegate-target
export CARGO_TARGET_DIR
# A toolchain that rustup has installed is found even where the shell's profile was not read.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: demo test lint unit kills setup setup-all

demo: setup
	cargo build --locked -p tidegate --example word_count -p tidegate-savepoint-cli --bin tidegate \
	    -p tidegate-chaos-tests --bin watch_parts --no-default-features
	scripts/demo.sh $(CARGO_TARGET_DIR)/debug

test: lint unit kills
	@echo "all tests passed"

lint: setup-all
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings

# Everything but the kills of real processes, which take their time from the clock and so run alone.
unit: setup-all
	cargo test --locked --workspace --all-features --lib --bins --examples --test it --test hostile
	cargo test --locked --workspace --all-features --doc

# ONLY=name runs one of them; TIDEGATE_SEED=number replays it; TIDEGATE_BACKPRESSURE_SECONDS=180 watches a job behind a
# slow sink for three minutes.
kills: setup-all
	cargo build --locked --workspace --all-features --bins
	cargo test --locked --workspace --all-features --test kills --no-run
	@# What was built is written out first: pauses of jobs are measured, and not those of the disk.
	sync
	cargo test --locked --workspace --all-features --test kills -- --test-threads=1 --nocapture $(ONLY)

setup:
	@scripts/setup.sh

# What all features and their tests need as well. RocksDB is C++ and takes a quarter of an hour to compile, once.
setup-all:
	@scripts/setup.sh rocksdb s3 rustfmt clippy
