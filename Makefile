# Everything a contributor does; `make` lists it. The scripts in hack/ do the work and can be called alone.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:

BINARY  := bin/groupinfo-operator
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
IMAGE   ?= groupinfo-operator:$(VERSION)

# How long each fuzz target runs.
FUZZTIME ?= 10s
# What `make test` runs in addition, such as TEST_FLAGS=-run=TestMerge.
TEST_FLAGS ?=
# Which of Go's benchmarks `make bench` runs; if given, it runs nothing else.
BENCH ?= .
# Flags of the benchmark of whole processes, such as BENCH_FLAGS=-short; see go run ./test/bench -help.
BENCH_FLAGS ?=
# Arguments of the operator for `make run`.
ARGS ?= all

.PHONY: help
help: ## Show this help
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Try it

.PHONY: demo
demo: build ## Run a real Kubernetes and the operator on this machine, and play a callback to it (or in your cluster: make demo KUBECONFIG=file)
	@DEMO_KUBECONFIG="$(if $(filter command line,$(origin KUBECONFIG)),$(KUBECONFIG))" hack/demo.sh start

.PHONY: demo-stop
demo-stop: ## Stop the demo and remove everything it started
	@hack/demo.sh stop

.PHONY: install
install: ## Install the CRDs into the current cluster (KUBECONFIG)
	@"$$(hack/cluster.sh build kubectl)/kubectl" apply --server-side --kustomize config/crd

.PHONY: run
run: build ## Run the operator against the current cluster: make run ARGS="all --help"
	@$(BINARY) $(ARGS)

##@ Build

.PHONY: build
build: ## Build bin/groupinfo-operator
	@echo "==> $(BINARY) $(VERSION)" >&2
	@mkdir -p bin
	@CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $(BINARY) .

.PHONY: docker-build
docker-build: ## Build the image: make docker-build IMAGE=registry.example.com/groupinfo-operator:v1
	docker build --build-arg VERSION=$(VERSION) --tag $(IMAGE) .

.PHONY: clean
clean: ## Remove built binaries (the demo and clusters: make demo-stop, hack/cluster.sh down)
	@rm -rf bin

##@ Change it

.PHONY: generate
generate: ## Regenerate deepcopy, CRDs, roles, apply configurations and docs/api.md
	@hack/generate.sh

.PHONY: fmt
fmt: ## Format the code, imports included
	@"$$(hack/tool.sh golangci-lint-kube-api-linter)" fmt

.PHONY: tidy
tidy: ## Tidy every module
	@hack/tidy.sh

##@ Check it

.PHONY: test
test: ## Run every test, with the race detector
	@hack/test.sh $(TEST_FLAGS)

.PHONY: test-long
test-long: ## Run the long variants of the tests, then every fuzz target for a minute
	@TEST_LONG=1 TEST_TIMEOUT=90m hack/test.sh $(TEST_FLAGS)
	@FUZZTIME=$(if $(filter file,$(origin FUZZTIME)),1m,$(FUZZTIME)) hack/fuzz.sh

.PHONY: fuzz
fuzz: ## Run every fuzz target: make fuzz FUZZTIME=5m
	@FUZZTIME=$(FUZZTIME) hack/fuzz.sh

.PHONY: planted
planted: ## Prove that the tests catch planted bugs
	@hack/planted.sh

.PHONY: bench
bench: ## Measure receivers, print docs/performance.md, and run Go's benchmarks (10 minutes; BENCH_FLAGS=-short: 3; BENCH=Journal: only those of Go)
	@export KUBEBUILDER_ASSETS="$$(hack/cluster.sh build)"; \
	$(if $(filter file,$(origin BENCH)),exec 3>&1 >&2; go run ./test/bench $(BENCH_FLAGS) >&3;) \
	go test -run='^$$' -bench='$(BENCH)' -benchmem -timeout 30m ./...

.PHONY: lint
lint: ## Lint every module
	@hack/lint.sh

.PHONY: verify
verify: ## Check that generated files, modules and formatting are current
	@hack/verify.sh
