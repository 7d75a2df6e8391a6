# The whole workshop. `make` alone prints what there is; every target builds what it needs.
#
# Nothing here reads the caller's Python: all tools come from .venv, made with PYTHON (≥ 3.11) and
# filled from requirements.lock with its hashes checked.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH := .venv-bench
BENCH_STAMP := $(BENCH)/.installed
SYNAPSE := .venv-synapse
SYNAPSE_LOCK := tests/sinks/matrix/synapse.lock
SYNAPSE_STAMP := $(SYNAPSE)/.installed
JS := tests/js
JS_STAMP := $(JS)/node_modules/.installed
# More options for pytest, as in: make test ARGS="-k merge -x"
ARGS ?=
# All tests are shared by three processes, also on two cores: most of the time they wait for servers and browsers.
# With ARGS there is one, which keeps the order and starts sooner, unless told otherwise: make test WORKERS=3 ARGS=…
WORKERS ?= $(if $(ARGS),0,3)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Registries of packages are slow or away now and then. What the caller has chosen goes before.
export PIP_RETRIES ?= 10
export PIP_DEFAULT_TIMEOUT ?= 60
export npm_config_fetch_retries ?= 5
# What a virtual environment or a search path of the caller's would leak into ours.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_USER PIP_REQUIRE_VIRTUALENV

.PHONY: help
help: ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(STAMP) ## build .venv from the lock file (PYTHON=python3.12 picks another Python)

# The stamp depends on what the environment is made of, so an edited lock file is enough to renew it.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    found=$$($(PYTHON) --version 2>/dev/null || echo "not there"); \
	    echo "bridge needs Python 3.11 or newer; $(PYTHON) is $$found." >&2; \
	    echo "Name another one: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { \
	    echo "Could not make $(VENV). On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: run
run: $(STAMP) ## the demonstration: server, gateway and a worker, with URLs to open
	@$(BIN)/bridge demo

# Tests that read a stream with JavaScript skip where node or its package is missing, so this may fail.
$(JS_STAMP): $(JS)/package-lock.json
	@if command -v node >/dev/null && command -v npm >/dev/null; then \
	    (cd $(JS) && npm ci --no-audit --no-fund --loglevel=error >/dev/null && touch node_modules/.installed) \
	        || echo "npm ci failed in $(JS): the tests that need its packages are skipped." >&2; \
	fi

.PHONY: synapse
synapse: $(SYNAPSE_STAMP) ## install a Matrix homeserver for the tests that need one (240 MB)

# In an environment of its own: what it pins mustn't decide what we are tested with.
$(SYNAPSE_STAMP): $(SYNAPSE_LOCK)
	$(PYTHON) -m venv $(SYNAPSE)
	$(SYNAPSE)/bin/python -m pip install --quiet --require-hashes -r $(SYNAPSE_LOCK)
	@touch $@

.PHONY: test
test: $(STAMP) $(JS_STAMP) ## all tests (ARGS="-k merge -x" goes to pytest)
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

.PHONY: chaos
chaos: $(STAMP) $(JS_STAMP) ## break real processes for long, print the table (ARGS="--seed 7 killed")
	@$(BIN)/python -m tests.chaos $(ARGS)

# An environment of its own: the peers that we are measured against have no place in the others.
$(BENCH_STAMP): benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --require-hashes -r benchmarks/requirements.txt
	@touch $@

.PHONY: bench
bench: $(BENCH_STAMP) ## measure beside peers, write benchmarks/results/ (ARGS="--quick wide typical")
	@$(BENCH)/bin/python -m benchmarks $(ARGS)

.PHONY: check
check: $(STAMP) ## lint, format, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

# The list of vulnerabilities is elsewhere, so this is no part of `check`. What isn't in it counts as wrong
# (--strict): a mirror that has only the packages would else find nothing in nothing.
.PHONY: audit
audit: $(STAMP) ## look for known vulnerabilities in what the lock installs; asks pypi.org
	$(BIN)/ruff check --select S bridge
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r requirements.lock $(ARGS) || { \
	    echo "Not audited, or not well: either what stands above was found, or the list of vulnerabilities couldn't" >&2; \
	    echo "be read, and nothing is known. It comes from https://pypi.org, with ARGS='-s osv' from osv.dev." >&2; \
	    exit 1; }

.PHONY: format
format: $(STAMP) ## let ruff repair what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: docs
docs: $(STAMP) ## renew the pages that are made from the code
	@$(BIN)/python -c 'from bridge.settings import as_markdown; print(as_markdown(), end="")' > docs/settings.md

# Neither the index nor its host is written into the lock: it holds for every mirror, and hashes do the trusting.
.PHONY: lock
lock: ## renew requirements.lock with the newest versions
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-emit-find-links --upgrade --quiet \
	    --custom-compile-command "make lock" --output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml benchmarks/requirements.in --extra cli --extra embedded \
	    --constraint requirements.lock --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-emit-find-links --upgrade --quiet \
	    --custom-compile-command "make lock" --output-file benchmarks/requirements.txt

.PHONY: clean
clean: ## remove the environment and all that was built
	rm -rf $(VENV) $(BENCH) $(SYNAPSE) $(JS)/node_modules build dist
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find bridge tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
