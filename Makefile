# One command for each need, the same on a laptop and in CI. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# Many tests wait for processes, and the simulation takes what is left: one process more than there are cores.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
# Tests start hundreds of Python processes: each finds its modules compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test quick sim sim-storm sim-retries test-cluster lint bench bench-ledger cluster cluster-down generate lock clean

help:  ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(VENV)/.stamp  ## Make .venv with the `spendmesh` command and everything the other targets import

$(VENV)/.stamp: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Spendmesh needs Python 3.11 or newer; say which with PYTHON=python3.x") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup  ## The whole story on this machine: no cluster, no keys, under two minutes
	@$(BIN)/spendmesh demo $(ARGS)

test: setup  ## All tests that need no node (real API server, SDKs, collector and Helm; built once and cached)
	@$(BIN)/python tests/parts/parts.py ensure control-plane helm collector litellm
	$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

quick: setup  ## The 30-second check while developing: decisions and tables
	$(PYTEST) tests/core tests/control -m "not cluster and not real" -x -q $(ARGS)

sim: setup  ## Histories of the whole ledger under faults, on all cores (ARGS='--minutes 30', '--seed 7', '--mutants')
	@PYTHONPATH=tests/simulation PYTHONHASHSEED=0 $(BIN)/python -m ledgersim $(ARGS)

sim-storm: setup  ## What retry policies make of a provider that fails for 30 s (ARGS=--write for docs/, '--first 4')
	@PYTHONPATH=tests/simulation:tests/core:bench PYTHONHASHSEED=0 $(BIN)/python -m stormsim $(ARGS)

sim-retries: setup  ## A day's failed calls with a double retry and with one RetryBudget, scaled down and simulated
	@PYTHONPATH=tests/simulation:tests/core:tests/sidecar:tests/parts:bench PYTHONHASHSEED=0 $(BIN)/python -m retryday $(ARGS)

test-cluster: setup  ## Install and use everything on a real one-node Kubernetes (root on Debian, or any KUBECONFIG)
	@[ -n "$$KUBECONFIG" ] || $(BIN)/python tests/parts/parts.py ensure control-plane helm collector node
	$(PYTEST) tests/cluster -m cluster -v $(ARGS)

lint: setup  ## Style, types, layers, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m spendmesh_operator.manifests.crd --check crds
	$(BIN)/python -m spendmesh_operator.prices --check operator/spendmesh_operator/data/prices.json
	$(BIN)/python docs/tree.py --check

generate: setup  ## Write what is generated and committed: crds/ and its copy in the chart, the price table
	$(BIN)/python -m spendmesh_operator.manifests.crd crds
	cp crds/*.yaml helm/spendmesh/files/crds/
	$(BIN)/python -m spendmesh_operator.prices operator/spendmesh_operator/data/prices.json
	$(BIN)/python docs/tree.py

bench: setup  ## CPU, latency, memory and start of the sidecar beside Envoy, a plain proxy and direct
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	$(BIN)/python bench/run.py $(ARGS)

bench-ledger: setup  ## What the ledger costs and leaves unspent (ARGS=--quick, --write for docs/, sections by name)
	@$(BIN)/python tests/parts/parts.py ensure control-plane
	$(BIN)/python bench/ledger.py $(ARGS)

cluster: setup  ## A real one-node Kubernetes with Spendmesh on it, left running; prints its KUBECONFIG
	$(BIN)/python tests/cluster/up.py $(ARGS)

cluster-down: setup  ## Take that node away again
	$(BIN)/python tests/cluster/up.py --down

lock:  ## Pin every dependency with hashes again (versions and hashes only, no registry host)
	@for extra in sidecar "operator --extra postgres" cli dev bench; do \
	  uv pip compile pyproject.toml --extra $$extra --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-annotate --no-header -q -o requirements/$${extra%% *}.txt || exit 1; done
	@printf 'openai\nanthropic\naiohttp\n' | uv pip compile - -c requirements/dev.txt --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-annotate --no-header -q -o tests/cluster/app/requirements.txt
	@printf 'litellm>=1.106\ntenacity\n' | uv pip compile - --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-annotate --no-header -q -o tests/parts/litellm.txt

clean:  ## Remove what the other targets made in this folder (the cache of built parts stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
