# The commands a person types. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CACHE := $(or $(GRAPHLET_CACHE_DIR),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/graphlet)
LISTEN ?= 127.0.0.1:8081
GRAPHLET := $(or $(CARGO_TARGET_DIR),target)/release/graphlet
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## Install what building and running models needs (safe to repeat)
	@scripts/setup

.PHONY: setup-dev
setup-dev: ## And what checks, tests and benches need
	@scripts/setup --dev

.PHONY: build
build: setup ## Build target/release/graphlet, wasm-frontend, and graphlet-node for Kubernetes
	@cargo build --release --locked -p cli -p wasm-frontend
	@cargo build --release --locked -p node-agent

# Serving needs no registry: without its client the first build is shorter. A command that was built
# whole stays whole.
.PHONY: run
run: setup ## Build, sign and serve the embedded model on 127.0.0.1:8081 (LISTEN=host:port)
	@cargo build --release --locked -p cli $$($(GRAPHLET) pull --help >/dev/null 2>&1 || echo --no-default-features)
	@scripts/run $(LISTEN)

.PHONY: check
check: setup-dev ## Format, lints, docs, licences, Python types: no tests
	@scripts/check

.PHONY: test
test: check ## Everything that check does, and all tests
	@scripts/test

.PHONY: conformance
conformance: setup-dev ## All of ONNX's node cases and light models in the sandbox (ARGUMENTS=words or --write)
	@scripts/conformance $(ARGUMENTS)

.PHONY: e2e
e2e: setup-dev ## The whole on Kubernetes: kind where it is, else a control plane of our own (root)
	@scripts/e2e

.PHONY: bench
bench: build setup-dev ## graphlet beside its peers on this machine; sets them up (docs/benchmarks.md)
	@scripts/bench

.PHONY: bench-quick
bench-quick: build setup-dev ## The same in two minutes: onnxruntime, and what is set up already
	@scripts/bench --quick

.PHONY: bench-check
bench-check: ## Kernels against their committed ratios: names what got slower
	@scripts/bench --check

.PHONY: example-mindspore
example-mindspore: build ## MindSpore's LeNet5 and ResNet50 in the sandbox; downloads 0.9 GB once
	@examples/mindspore/run

.PHONY: web
web: build ## The page of web/ with its modules; then npm --prefix web run serve
	@scripts/web

.PHONY: web-test
web-test: build setup-dev ## Tests of web/, its page in Chromium among them
	@scripts/web --test

.PHONY: clean
clean: ## Remove what was built here (caches in ~/.cache/graphlet stay)
	@rm -rf target build
