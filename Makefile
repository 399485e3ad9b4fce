# Two commands for a newcomer: `make quickstart` and `make test`. Each makes .venv and installs on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install quickstart test test-slow lint bench bench-short clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

quickstart: install
	$(BIN)/mmsent quickstart

test: install
	$(BIN)/python -m pytest

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python scripts/bench_fit.py
	$(BIN)/python scripts/bench_extract.py offline
	$(BIN)/python scripts/bench_scale.py

bench-short: install
	$(BIN)/python scripts/bench_fit.py --short
	$(BIN)/python scripts/bench_extract.py --short
	$(BIN)/python scripts/bench_scale.py --short

clean:
	rm -rf $(VENV) quickstart build *.egg-info
