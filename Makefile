# One build serves the demo, the tests, the benches and CI: the release profile with failpoints.
# What is shipped is built by `make dist` alone, without them.
# The example is the benches' load; naming it also makes cargo choose the features that the tests' dependencies ask for.
# Without it the demo and the tests would each compile hyper, tokio and all that stands on them for themselves.

CARGO    ?= cargo
BUILD     = --release --features failpoints
WHAT      = --bin wharf --example blob_load --example push_load
ARCH     := $(shell uname -m)
TARGET   ?= $(ARCH)-unknown-linux-musl
RELEASE   = $(or $(CARGO_TARGET_DIR),target)/release
PORTABLE  = $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/dist/wharf
ARGS     ?=
# Most tests wait for something most of the time: two for each core.
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
# Modules of the black-box tests that run a second time with TLS on every connection.
OVER_TLS  = access answers beside budget chain discovery faults flights freshness identities integrity naming outside permission push \
            promises pull range refusals resume uploads

.DEFAULT_GOAL := help
.PHONY: help setup build demo test quick torture check fmt clippy doc deny sabotage bench dist clean

help: ## This list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## Install all that building, the demo, the tests and the benches need
	@scripts/setup test
	@scripts/setup bench

build: ## Compile wharf
	@scripts/setup build
	$(CARGO) build $(BUILD) $(WHAT)

demo: ## A plant of three layers under a cloud, on loopback; ARGS=--once ends instead of staying up
	@scripts/setup demo
	$(CARGO) build $(BUILD) $(WHAT)
	$(RELEASE)/wharf demo $(ARGS)

test: ## All tests, real clients included; ARGS=name runs those so named
	@scripts/setup test
	$(CARGO) test $(BUILD) $(ARGS)
	$(if $(ARGS),,WHARF_TEST_TLS=1 $(CARGO) test $(BUILD) --test tests -- $(OVER_TLS:%=%::))

quick: ## The tests so named (ARGS), wharf itself compiled unoptimised, which takes a fifth of the time
	$(CARGO) test $(BUILD) --config profile.release.package.wharf.opt-level=0 $(ARGS)

torture: ## Cuts, kills, power cuts, churn, corruption and crowds at full size, most of an hour; ARGS=soak: those so named
	@scripts/setup test
	WHARF_TORTURE=full $(CARGO) test $(BUILD) --test tests torture::$(ARGS) -- --test-threads=1

check: fmt clippy test doc deny ## What a change must pass: fmt, clippy, test, doc, deny

fmt: ## The formatting, looked at
	$(CARGO) fmt --check

clippy: ## The lints, warnings denied
	@scripts/setup build
	$(CARGO) clippy $(BUILD) --all-targets -- -D warnings

doc: ## The documentation, warnings denied
	@scripts/setup build
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc $(BUILD) --lib --example blob_load --example push_load --no-deps --document-private-items

deny: ## Licences, bans and sources of the dependencies, where cargo-deny is installed
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		$(CARGO) deny check bans licenses sources; \
	else \
		echo 'deny: left out, cargo-deny is not installed (cargo install cargo-deny)'; \
	fi

sabotage: ## Break wharf in many ways, one after the other: each must be caught by a test
	@scripts/setup test
	scripts/sabotage $(ARGS)

bench: ## Pulls and pushes beside nginx and other registries, a cold pull through three layers; ARGS=--quick for a glance
	@scripts/setup bench
	$(CARGO) build $(BUILD) $(WHAT)
	@missed=0; \
	benches/warm_pulls_beside_nginx --build $(RELEASE) $(ARGS) || missed=1; \
	benches/cold_pulls_beside_peers --build $(RELEASE) $(ARGS) || missed=1; \
	benches/cold_through_three_layers --build $(RELEASE) $(ARGS) || missed=1; \
	benches/pushes_beside_peers --build $(RELEASE) $(ARGS) || missed=1; \
	benches/writeback_beside_skopeo --build $(RELEASE) $(ARGS) || missed=1; \
	benches/what_a_login_costs --build $(RELEASE) $(ARGS) || missed=1; \
	exit $$missed

dist: ## The binary that is shipped: static, optimised at link time, without failpoints
	@scripts/setup dist
	CC_$(subst -,_,$(TARGET))=musl-gcc $(CARGO) build --profile dist --target $(TARGET)
	@ls -l $(PORTABLE)

clean: ## Remove what was built
	$(CARGO) clean
