# `make run` and `make test` do all the set-up themselves, on a machine with nothing but Python and make.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	&& { echo $$p; break; }; done)
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help run test check format bench bench-quick torture soak clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: $(VENV)/.installed  ## set up, and start the gateway in the foreground
	@exec $(BIN)/lunar run

test: $(VENV)/.installed-dev  ## set up, and run all tests
	@$(BIN)/pytest -n $(JOBS) --dist loadgroup $(ARGS)

check: $(VENV)/.installed-dev  ## formatting, lint and types
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

format: $(VENV)/.installed-dev  ## format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev  ## all benchmarks, with ratios to the floor of the same run
	@$(BIN)/python -m benchmarks

torture: $(VENV)/.installed-dev  ## the long form of the fault tests, 25 minutes of each part (or PART=kills, PART=report)
	@$(BIN)/python -m tests.faults.torture $(PART) $(if $(MINUTES),--minutes $(MINUTES))

soak: $(VENV)/.installed-dev  ## hours of load with a fault each minute (HOURS=0.5, SEED=…)
	@$(BIN)/python -m tests.faults.soak $(if $(HOURS),--hours $(HOURS)) $(if $(SEED),--seed $(SEED))

bench-quick: $(VENV)/.installed-dev  ## the same in about a minute
	@$(BIN)/python -m benchmarks --quick

screenshots: $(VENV)/.installed-dev  ## the README's pictures, made again
	@$(BIN)/python docs/images/make.py

clean:  ## remove what the set-up made (never your data)
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: apt install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "Python's venv is missing. Install it, and try again:  apt install python3-venv"; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) …"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed
