# Two commands for a newcomer: `make quickstart` and `make test`. Each makes .venv and installs on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install quickstart test test-slow lint bench bench-short coverage mutation audit clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

quickstart: install
	$(BIN)/mmsent quickstart

# The files of tests in as many processes as the machine has cores.
test: install
	$(BIN)/python -m pytest -n auto --dist loadfile

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python scripts/bench_fit.py
	$(BIN)/python scripts/bench_cpu_tower.py
	$(BIN)/python scripts/bench_extract.py offline
	$(BIN)/python scripts/bench_scale.py
	$(BIN)/python scripts/bench_serve.py
	$(BIN)/python scripts/bench_ray.py
	$(BIN)/python scripts/bench_sweep.py

bench-short: install
	$(BIN)/python scripts/bench_fit.py --short
	$(BIN)/python scripts/bench_cpu_tower.py --short
	$(BIN)/python scripts/bench_extract.py --short
	$(BIN)/python scripts/bench_scale.py --short
	$(BIN)/python scripts/bench_serve.py --short
	$(BIN)/python scripts/bench_ray.py --short
	$(BIN)/python scripts/bench_sweep.py --short

# Branch coverage of mmsent/ under the default and the slow tests, child processes included.
coverage: install
	rm -f .coverage .coverage.*
	$(BIN)/python -m pytest --cov --cov-report=
	$(BIN)/python -m pytest -m slow --cov --cov-append --cov-report=term-missing:skip-covered

# Mutants of metrics, vote, cache and dataset that the tests let live; see docs/testing.md.
mutation: install
	OMP_NUM_THREADS=1 $(BIN)/python -m mutmut run --max-children 1
	$(BIN)/python -m mutmut results

# Known vulnerabilities of what is installed; asks a service on the internet. --strict: what could not be asked fails.
audit: install
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip_audit --strict --skip-editable

clean:
	rm -rf $(VENV) quickstart build *.egg-info
