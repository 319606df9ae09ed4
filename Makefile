# Every target sets itself up: it needs Python 3.11 or newer and make, nothing else.
#
#   make run            the server with a demo practice on http://127.0.0.1:8000
#   make test           everything that is checked before a change is accepted
#   make help           all targets

SHELL       := /bin/sh
.DEFAULT_GOAL := help

PYTHON      ?= python3
VENV        ?= .venv
PORT        ?= 8000
# Test processes at a time: one more than two cores, because many a test waits for another process.
WORKERS     ?= 3
# How many times longer than usual the tests marked "soak" run.
SOAK        ?= 5
# No run of `make soak` takes longer than this.
SOAK_MINUTES ?= 30
# The tests that must reach every branch of the domain by themselves.
DOMAIN_TESTS ?= tests/domain
# Which seeds the simulation runs: 17, 0-4999, or x5000 for so many.
SEEDS       ?= x300
# No run of `make bench` takes longer than this.
BENCH_MINUTES ?= 10
# More arguments for the program behind a target: make mutants ARGS="--only utc_month"
ARGS        ?=

BIN         := $(VENV)/bin
RUN_READY   := $(VENV)/.ready-to-run
DEV_READY   := $(VENV)/.ready-to-develop
PIP         := $(BIN)/python -m pip --disable-pip-version-check
PYTEST      := $(BIN)/python -m pytest

.PHONY: help run test check lint types layers tidy format contract bench bench-full bench-http \
        bench-cycles profile \
        mutants coverage-domain simulate simulate-bugs soak attack test-postgresql test-citus \
        test-frameworks browser setup \
        clean distclean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) \
		| awk -F ':.*## ' '{ printf "  make %-16s %s\n", $$1, $$2 }'

run: $(RUN_READY) ## Start the server, the payment sandbox and a demo practice (PORT=8000)
	@exec $(BIN)/guthaben demo --port $(PORT)

# The tests of the domain run once, while its coverage is measured.
test: lint types layers coverage-domain browser ## Check and test everything, the contract suite included
	$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder --ignore tests/domain $(ARGS)

check: lint types layers tidy ## Style, types, layers and the laws a linter doesn't know

lint: $(DEV_READY)
	$(BIN)/ruff check .
	@$(BIN)/ruff format --check . || { echo "make format does it"; exit 1; }

types: $(DEV_READY)
	$(BIN)/mypy

layers: $(DEV_READY)
	$(BIN)/lint-imports --config pyproject.toml

tidy: $(DEV_READY)
	$(PYTEST) -q tests/test_tidy.py

format: $(DEV_READY) ## Put the code into the project's format
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

contract: $(DEV_READY) ## Run the four modules' contract suite in twelve orders
	$(BIN)/python -m scripts.contract $(ARGS)

coverage-domain: $(DEV_READY) ## Show that the domain's own tests reach every branch of it
	@rm -f $(VENV)/.coverage-domain*
	COVERAGE_FILE=$(VENV)/.coverage-domain $(BIN)/coverage run --source=guthaben.domain \
		-m pytest -q $(DOMAIN_TESTS)
	@COVERAGE_FILE=$(VENV)/.coverage-domain $(BIN)/coverage combine --quiet
	COVERAGE_FILE=$(VENV)/.coverage-domain $(BIN)/coverage report --fail-under=100

mutants: $(DEV_READY) ## Break the money code on purpose and see that a test notices
	$(BIN)/python -m scripts.mutants $(ARGS)

simulate: $(DEV_READY) ## Simulate payments with faults (SEEDS=0-4999, SEEDS=17 ARGS=--history)
	$(BIN)/python -m tests.simulation $(SEEDS) $(ARGS)

simulate-bugs: $(DEV_READY) ## Plant each bug and see how soon the simulation finds it; writes the table
	$(BIN)/python -m tests.simulation --bugs --docs $(SEEDS) $(ARGS)

bench: $(DEV_READY) ## Measure the speed beside a floor of the same run, in ten minutes at most
	$(BIN)/python -m benchmarks --minutes $(BENCH_MINUTES) $(ARGS)

bench-full: $(DEV_READY) ## The same with 10,000,000 past calls: an hour and 30 GB the first time
	$(BIN)/python -m benchmarks --full $(ARGS)

profile: $(DEV_READY) ## Show where each microsecond of a call goes
	$(BIN)/python -m benchmarks.profile $(ARGS)

bench-http: $(DEV_READY) ## Measure gateway and Cycles route over HTTP beside their floors
	$(BIN)/python -m benchmarks.http $(ARGS)
	$(BIN)/python -m benchmarks.http_cycles $(ARGS)

bench-cycles: $(DEV_READY) ## Only reservations by the Cycles route beside the framework's floor
	$(BIN)/python -m benchmarks.http_cycles $(ARGS)

soak: $(DEV_READY) browser ## Run the random and the destructive tests longer (SOAK=5, SOAK_MINUTES=30)
	SOAK_FACTOR=$(SOAK) $(BIN)/python -m scripts.bounded --minutes $(SOAK_MINUTES) -- \
		$(PYTEST) -n $(WORKERS) --dist loadfile -m soak -x $(ARGS)

attack: $(DEV_READY) ## Attack four servers on one database, SQLite then PostgreSQL (SECONDS=60)
	$(BIN)/python -m scripts.bounded --minutes $(SOAK_MINUTES) -- \
		$(BIN)/python -m tests.faults.attack --seconds $(or $(SECONDS),60) $(ARGS)

test-postgresql: $(DEV_READY) ## Only the tests that touch a database, on PostgreSQL only
	$(BIN)/python -m scripts.bounded --minutes $(SOAK_MINUTES) -- \
		$(PYTEST) -n $(WORKERS) --dist loadfile --database postgresql \
		tests/store tests/services tests/properties tests/faults tests/web tests/cycles $(ARGS)

test-citus: $(DEV_READY) ## The store's tests on a Citus cluster (DSN: a database of its coordinator)
	@test -n "$(DSN)" || { echo "DSN=postgresql://... names a database of the coordinator, with \
	every node added; see tests/citus.py"; exit 2; }
	GUTHABEN_TEST_CITUS='$(DSN)' $(BIN)/python -m scripts.bounded --minutes $(SOAK_MINUTES) -- \
		$(PYTEST) -n 1 --dist loadfile --database citus tests/store tests/services \
		tests/properties/test_machine.py tests/faults/test_cluster.py \
		tests/faults/test_several_servers.py tests/faults/test_crowds.py $(ARGS)

# Both are heavy and bring a plugin for pytest: they lie apart, and are seen by this test alone.
test-frameworks: $(DEV_READY) ## Run LangChain and the OpenAI Agents SDK on wrapped clients
	$(PIP) install --quiet --upgrade --target $(VENV)/frameworks 'langchain-openai>=1.7,<2' 'openai-agents>=0.24,<1'
	PYTHONPATH=$(abspath $(VENV))/frameworks $(PYTEST) -n 0 -p no:langsmith_plugin tests/gateway/test_frameworks.py $(ARGS)

browser: $(DEV_READY)
	@$(BIN)/python -m scripts.ensure_browser

setup: $(DEV_READY) ## Only prepare the virtual environment

clean: ## Remove caches and build products; demo data and the environment stay
	rm -rf build dist .coverage .coverage.* htmlcov .hypothesis .mypy_cache .pytest_cache \
		.ruff_cache .import_linter_cache src/*.egg-info
	find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## Remove the virtual environment too
	rm -rf "$(VENV)"

# ------------------------------------------------------------------ set-up

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Guthaben needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
		echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv "$(VENV)" || { rm -rf "$(VENV)"; \
		echo "$(PYTHON) can't make a virtual environment; Debian and Ubuntu keep that in python3-venv."; \
		exit 1; }

$(RUN_READY): pyproject.toml | $(BIN)/python
	@echo "Setting up $(VENV) (once) ..."
	@$(PIP) install --quiet --editable '.[prices]'
	@# uvloop and httptools make the server faster where they exist ready-made.
	@$(PIP) install --quiet --only-binary=httptools,uvloop --editable '.[fast]' 2>/dev/null \
		|| echo "(without uvloop and httptools: there is no ready-made one for this machine)"
	@touch $@

$(DEV_READY): pyproject.toml $(RUN_READY)
	@echo "Adding the tools for development to $(VENV) (once) ..."
	@$(PIP) install --quiet --editable '.[dev]'
	@# Its price map is data for one test; what it would import is left out, and so is it.
	@$(PIP) install --quiet --no-deps 'litellm==1.109.1' \
		|| echo "(without LiteLLM's price map: the test that compares with it is skipped)"
	@touch $@
