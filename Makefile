# make demo   answer one question live, then compare methods at growing budgets
# make test   format, lint, types, the import law, and every test with the docs' examples
# Both set up .venv from the lock the first time. PYTHON=/path/to/python3.12 picks the interpreter.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint types laws pytest docs lock clean

demo: $(VENV)/.run
	$(BIN)/anystep demo

# Types and laws are read on one core while tests begin on the other.
test: lint
	@$(MAKE) --no-print-directory -j 2 types laws pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

laws: $(VENV)/.dev
	$(BIN)/lint-imports

pytest: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Pages that are written from data; a test fails while they are stale.
docs: $(VENV)/.dev
	$(BIN)/python tools/pages.py
	$(BIN)/python tools/verdicts_page.py
	$(BIN)/python tools/curves_page.py
	$(BIN)/python tools/cli_page.py

lock: $(VENV)/.dev
	$(BIN)/python tools/lock.py

# The environment, in two layers with a stamp each: what runs, then what tests.
$(VENV)/pyvenv.cfg:
	@tools/python $(PYTHON) > .python || { rm -f .python; exit 1; }
	"$$(cat .python)" -m venv $(VENV) && rm -f .python

$(VENV)/.run: requirements.lock pyproject.toml | $(VENV)/pyvenv.cfg
	$(PIP) install -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock requirements-gym.lock $(VENV)/.run
	$(PIP) install --only-binary :all: -r requirements-dev.lock
	$(PIP) install -r requirements-gym.lock || echo "anystep: no reasoning-gym here (it needs a C compiler and Python's headers); tests of its adapter will be skipped"
	@touch $@

clean:
	rm -rf $(VENV) .python build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
