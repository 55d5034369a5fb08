# What there is to do here. `make` alone lists it; every target builds or completes .venv/ first, from the locks in requirements/.
#   PYTHON=…  the interpreter to build with     ENGINE=cuda  vLLM for NVIDIA GPUs instead of the CPU's     VENV=…  another folder

ENGINE ?= cpu
VENV ?= .venv
PYTHON ?= $(shell for python in python3.11 python3 python3.12; do \
	$$python tools/setup_environment.py --suits 2>/dev/null && echo $$python && break; done)
BIN = $(VENV)/bin

# Prefect's and vLLM's usage reports stay off in everything started from here.
export DO_NOT_TRACK = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export VLLM_NO_USAGE_STATS = 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow bench lint format ci environment environment-dev locks

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: environment ## draw pictures, label them with the tiny checkpoint; results under demo-output/
	$(BIN)/python examples/shapes/generate.py --out demo-output --count 240 --odd \
		--categories "orange circle" "green square" "purple star" "cyan ring"
	$(BIN)/prelabel run examples/shapes/job.yaml

test: environment-dev ## all tests but the slow ones
	$(BIN)/python -m pytest

test-slow: environment-dev ## the slow tests: kills, whole jobs, many images
	$(BIN)/python -m pytest -m slow

bench: environment-dev ## measure; results under benchmarks/results/
	$(BIN)/python -m benchmarks

lint: environment-dev ## style, types, direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: environment-dev ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

ci: ## what CI runs: system packages (as root), lint, all tests
	bash .ci/run

environment: python-found ## build or complete .venv/: what `prelabel` needs
	@$(PYTHON) tools/setup_environment.py --venv $(VENV) --engine $(ENGINE)

environment-dev: python-found ## the same with what tests and checks need
	@$(PYTHON) tools/setup_environment.py --venv $(VENV) --engine $(ENGINE) --dev

locks: environment ## resolve pyproject.toml's dependencies anew and rewrite requirements/*.txt
	$(BIN)/python tools/renew_locks.py

.PHONY: python-found
python-found:
	@test -n "$(PYTHON)" || { echo "No suitable Python found: prelabel needs the one that pyproject.toml's requires-python names" \
		"($$(sed -n 's/^requires-python = "\([^"]*\)".*/\1/p' pyproject.toml)). Install it, or run make with PYTHON=/path/to/python3.11." >&2; exit 1; }
