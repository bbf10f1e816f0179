# Every target sets up what it needs; a fresh clone needs only make and Python 3.11 or later.
#   make demo        the main job on real data
#   make test        the quick tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
SEED ?= 0
SEEDS ?= 5000
WORKERS ?= $(shell nproc 2>/dev/null || echo 1)
QUICK ?=
MINUTES ?= 10
ARGS ?=

# A set-up is current while the pyproject.toml it was made from is still the same, byte for byte;
# so a second call, a fresh checkout of the same version and a machine without network cost nothing.
BASE := $(VENV)/installed.toml
DEMO := $(VENV)/installed-demo.toml
ALL := $(VENV)/installed-all.toml
# Not empty where the caller chose PYTHON.
ASKED := $(filter-out file default undefined,$(origin PYTHON))

.DEFAULT_GOAL := help
.PHONY: help all setup setup-all setup-demo packages check format test unit integration e2e sim mutants campaign demo bench bench-peers dev docs reference site sizes services dist clean
.DELETE_ON_ERROR:

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk 'BEGIN { FS = ":.*## " } { printf "  %-13s %s\n", $$1, $$2 }'

all: check test integration e2e sim ## everything that CI runs

setup: ## make .venv for the quick tests (PYTHON=python3.12 chooses another Python)
	@bash scripts/setup.sh "$(PYTHON)" "$(VENV)" "$(BASE)" "$(ASKED)"

setup-all: setup ## also the libraries of the ten foreign drivers, which check, services and integration need
	@bash scripts/setup.sh "$(PYTHON)" "$(VENV)" "$(ALL)" "$(ASKED)" "" drivers

setup-demo: setup ## also what the demo needs (pandas and the flight data)
	@bash scripts/setup.sh "$(PYTHON)" "$(VENV)" "$(DEMO)" "$(ASKED)" demo

check: setup-all ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports

format: setup ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: setup ## unit, contract, architecture, and a smoke share of the simulation
	$(BIN)/pytest -n auto tests/unit tests/contract tests/arch tests/simulation $(ARGS)

unit: setup ## the unit tests alone: under ten seconds
	$(BIN)/pytest -n auto tests/unit $(ARGS)

integration: setup-all ## real processes, files, kills and full disks
	$(BIN)/pytest tests/integration $(ARGS)

e2e: setup ## a node from outside: the guides, typed
	$(BIN)/pytest tests/e2e $(ARGS)

sim: setup ## simulated seeds on virtual time: SEED= the first, SEEDS= how many
	$(PY) -m headrace.simulation --start $(SEED) --seeds $(SEEDS) --workers $(WORKERS) $(ARGS)

mutants: setup ## change one thing at a time and list what no test notices: SEED= which, MINUTES= how long
	$(PY) scripts/mutants.py --seed $(SEED) --minutes $(MINUTES) $(ARGS)

demo: setup-demo ## the main job: a year of flights, exactly once, under kills (QUICK=1: a slice)
	$(PY) examples/flights/demo.py $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

bench: setup-demo ## measure against the limits of this machine; ARGS="--peers" adds other systems
	$(PY) -m bench $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

bench-peers: ## install the peers that the bench compares with, in an environment of their own
	sh bench/peers/setup.sh

campaign: setup-all ## the long fault campaign: ARGS="--scale 0.1 --only kill-host --times 20 --seed 7 --record"
	$(PY) -m tests.integration.faults $(ARGS)

dev: setup ## a node with the flights app, reloading on change
	$(BIN)/headrace dev examples/flights/function.py $(ARGS)

docs: setup ## links, code blocks and reference pages against the code
	$(BIN)/pytest tests/arch/test_pages.py $(ARGS)

reference: setup ## write the Python API and the tables of options into the reference pages, from the code
	$(PY) scripts/option_pages.py $(ARGS)
	$(PY) scripts/python_reference.py $(ARGS)

site: setup-all ## build a site of all pages, with search, into site/
	$(PY) scripts/site.py

sizes: setup ## what has outgrown a screen or its room (for information)
	@$(PY) scripts/sizes.py

services: setup-all ## install the real servers that tests start, and try each
	@$(PY) -m tests.services.bring

dist: setup ## write a wheel and an sdist into dist/
	@$(PY) -m pip --disable-pip-version-check install --quiet 'hatchling>=1.27'
	$(PY) -m hatchling build --directory dist

packages: dist ## try the wheel and the sdist in a bare environment of every Python at hand
	bash scripts/try_packages.sh dist

clean: ## remove what was built (not your data folders)
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .import_linter_cache .hypothesis .pytest_cache
	find . -name __pycache__ -type d -prune -not -path './.venv*' -exec rm -rf {} +
