# Everything a developer does here. `make help` lists the targets; CI calls the same ones.
#
# Two cargo builds never run at once: they would wait for each other's locks, and for memory.
.NOTPARALLEL:
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/clawker
target := $(or $(CARGO_TARGET_DIR),target)
# cargo-nextest and cargo-deny in the versions that scripts/toolchain.sh pins.
export PATH := $(cache)/bin:$(PATH)

# What needs root gets it here; building never does.
ifneq ($(shell id -u),0)
sudo := sudo -E
# cargo runs test binaries through this.
as_root := CARGO_TARGET_$(shell uname -m | tr a-z A-Z)_UNKNOWN_LINUX_GNU_RUNNER='$(sudo)'
endif

# Crates whose tests need nothing but the machine they are built on.
unit := -p abi -p bpf -p lease -p policy -p proxy -p wire -p ebpf-manager -p provision -p dashboards

# A first build takes minutes and shows its progress; later ones have nothing to say.
cargo_quietly := cargo $(if $(wildcard $(target)/release/ebpf-manager),--quiet)

# Taken as typed: a `$` in the command is the shell's, not make's.
override CMD := $(value CMD)
override POLICY := $(value POLICY)
export CMD POLICY

##@ Use
.PHONY: run
run: ## run CMD="..." under the firewall with POLICY=file; without CMD, a short tour
	@scripts/toolchain.sh --quiet
	@$(cargo_quietly) build --release --locked -p ebpf-manager --bins $(if $(CMD),,--example tour)
ifneq ($(CMD),)
	@$(sudo) $(target)/release/ebpf-manager run $(if $(POLICY),--policy "$$POLICY") $(ARGS) -- sh -c "$$CMD"
else
	@$(sudo) scripts/tour.sh
endif

.PHONY: stack-secrets
stack-secrets: ## passwords, keys and certificates for `docker compose up`; prints none of them
	@scripts/stack-secrets.sh

##@ Build
.PHONY: build
build: ## build target/release/ebpf-manager, kernel object included
	scripts/toolchain.sh
	cargo build --release --locked -p ebpf-manager

.PHONY: toolchain
toolchain: ## install what building and testing need, and print the versions
	scripts/toolchain.sh --test
	scripts/collector.sh
	scripts/engine.sh
	scripts/compose.sh
	scripts/opensearch.sh
	scripts/envoy.sh
	scripts/coredns.sh
	scripts/prometheus.sh

##@ Test
.PHONY: test
test: toolchain ## every tier of tests (the kernel, docker and stack tiers need root)
	$(MAKE) --no-print-directory test-unit
	$(MAKE) --no-print-directory test-fuzz
	$(MAKE) --no-print-directory test-kernel
	$(MAKE) --no-print-directory test-packaging
	$(MAKE) --no-print-directory test-docker
	$(MAKE) --no-print-directory test-stack

.PHONY: test-unit
test-unit: ## pure code, golden files, examples in the documentation; needs nothing
	@scripts/toolchain.sh --test --quiet
	cargo nextest run --locked $(unit)
	cargo test --locked --quiet --doc $(unit)

.PHONY: test-kernel
test-kernel: ## real programs on real cgroups, the bridge on real disks; needs root, BTF, cgroup v2 and bpffs
	@scripts/kernel-ready.sh
	@scripts/toolchain.sh --test --quiet
	@scripts/collector.sh --quiet
	@scripts/engine.sh --quiet
	cargo build --locked -p ebpf-manager --bins --examples -p otlp-bridge
	$(as_root) cargo nextest run --locked -p kernel-tests -p otlp-bridge

.PHONY: test-docker
test-docker: ## real containers beside an engine of the tests' own; needs what test-kernel needs
	@scripts/kernel-ready.sh
	@scripts/toolchain.sh --test --quiet
	@scripts/collector.sh --quiet
	@scripts/engine.sh --quiet
	cargo build --locked -p ebpf-manager -p otlp-bridge --bins
	$(as_root) cargo nextest run --locked -p docker-tests

.PHONY: test-stack
test-stack: ## compose.yaml, collector, OpenSearch and Prometheus as they are shipped; needs what test-docker needs
	@scripts/kernel-ready.sh
	@scripts/toolchain.sh --test --quiet
	@scripts/engine.sh --quiet
	@scripts/compose.sh --quiet
	@scripts/collector.sh --quiet
	@scripts/opensearch.sh --quiet
	@scripts/envoy.sh --quiet
	@scripts/coredns.sh --quiet
	@scripts/prometheus.sh --quiet
	cargo build --locked -p ebpf-manager -p otlp-bridge -p provision --bins
	$(as_root) cargo nextest run --locked -p stack-tests

.PHONY: test-packaging
test-packaging: ## every command line in units, images and papers is one that the programs know; needs nothing
	@scripts/toolchain.sh --test --quiet
	cargo build --locked -p ebpf-manager -p otlp-bridge --bins
	scripts/packaging.sh $(target)/debug/ebpf-manager $(target)/debug/otlp-bridge

.PHONY: test-fuzz
test-fuzz: ## hostile bytes to every parser, FUZZ_SECONDS=10 for each; needs nothing
	@scripts/toolchain.sh --test --quiet
	scripts/fuzz.sh $(or $(FUZZ_SECONDS),10)

.PHONY: fuzz
fuzz: ## look for crashes that test-fuzz has not met, FUZZ_SECONDS=600 for each parser; needs nothing
	@scripts/toolchain.sh --test --quiet
	scripts/fuzz.sh --explore $(or $(FUZZ_SECONDS),600)

.PHONY: bench
bench: ## measure the rows of docs/benchmarks.md; needs root
	@scripts/kernel-ready.sh
	@scripts/toolchain.sh --quiet
	@scripts/collector.sh --quiet
	@scripts/opensearch.sh --quiet
	@scripts/envoy.sh --quiet
	cargo build --release --locked -p ebpf-manager -p otlp-bridge
	$(as_root) cargo bench --locked -p kernel-tests
	$(as_root) cargo bench --locked -p stack-tests --bench store --bench proxy

##@ Check
.PHONY: lint
lint: ## format, clippy for host and kernel side, licences and sources of dependencies
	@scripts/toolchain.sh --test --quiet
	cargo fmt --all --check
	CLAWKER_BPF_SKIP=1 cargo clippy --locked --workspace --all-targets --target-dir $(target)/lint -- -D warnings
	$(MAKE) --no-print-directory lint-bpf deny

# The programs are linted for the host: clippy does not link, and for the BPF target it would need a
# build of `core` made by its own compiler. They use unstable features, hence the permission.
.PHONY: lint-bpf
lint-bpf:
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Cpanic=abort cargo clippy --locked -p bpf --bin clawker --features object \
		--target-dir $(target)/lint-bpf -- -D warnings

.PHONY: fmt
fmt: ## format all Rust code
	cargo fmt --all

.PHONY: deny
deny: ## check licences, versions and sources of dependencies (deny.toml)
	@scripts/toolchain.sh --test --quiet
	cargo deny --locked check bans licenses sources
	cargo deny --locked --manifest-path tests/fuzz/Cargo.toml check bans licenses sources

.PHONY: advisories
advisories: ## check dependencies against the RustSec database, which is fetched
	@scripts/toolchain.sh --test --quiet
	cargo deny --locked check advisories

##@ Rest
.PHONY: clean
clean: ## remove what was built here (the tools in ~/.cache/clawker stay)
	cargo clean

.PHONY: help
help: ## print this
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
