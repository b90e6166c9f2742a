# What a newcomer types. Everything runs in .venv, which the first target makes and later ones find ready.
# Needs python3 (3.10 or newer) with venv, and make. Settings: PYTHON=python3.12, ARGS="-k actors" for the tests.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
bin := $(VENV)/bin
metadata := setup.cfg pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help demo test slow lint types bench chaos mutants compat matrix docs clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1  /p' $(MAKEFILE_LIST) | awk '{n=$$1; $$1=""; printf "  make %-7s%s\n", n, $$0}'

demo: $(VENV)/.examples ## train, compare and serve forecasts on an embedded Redis
	$(bin)/python examples/forecast.py

test: $(VENV)/.test $(VENV)/.examples ## run the tests, in random order
	$(bin)/python -m pytest -m "not slow" $(ARGS)

slow: $(VENV)/.test $(VENV)/.examples ## run the slow tests: every example, and machines joined by a network
	$(bin)/python -m pytest -m slow $(ARGS)

lint: $(VENV)/.dev ## ruff, and the floors of the house
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/lint-imports

types: $(VENV)/.dev ## mypy --strict
	$(bin)/mypy

bench: $(VENV)/.bench ## time the standard workloads; beside Ray where it is installed
	$(bin)/python -m benchmarks $(ARGS)

chaos: $(VENV)/.test ## kill workers, nodes and drivers, real and simulated, and look for anything lost
	$(bin)/python -m pytest tests/integration/test_faults.py tests/unit/test_simulation.py $(ARGS)

compat: $(VENV)/.test ## run programs written for Ray under redray, and under Ray where RAY_PYTHON has it
	$(bin)/python -m tests.compat $(ARGS)

mutants: $(VENV)/.test ## plant known bugs, and see that the tests catch each
	$(bin)/python -m tests.chaos.mutate

matrix: $(VENV)/.test ## run the API tests on each kind of cluster, in random order, twice
	for kind in embedded tcp three-nodes; do for round in 1 2; do \
	    $(bin)/python -m pytest tests/api --cluster $$kind $(ARGS) || exit 1; \
	done; done

docs: $(VENV)/.test ## draw the generated parts of docs/ anew
	$(bin)/python docs/generate.py

clean: ## forget the virtual environment and what builds left
	rm -rf $(VENV) build dist *.egg-info

# One stamp per set of dependencies: an environment is installed again only when the metadata changed.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "redray needs Python 3.10 or newer.")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.%: $(VENV)/bin/python $(metadata)
	$(bin)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
