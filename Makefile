# Two commands for a newcomer: `make quickstart` and `make test`. Each makes .venv and installs what it needs on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: install quickstart demo test test-slow lint docs bench bench-short coverage mutation audit clean

# What users install, what developers need besides, what the pages need: a stamp file each.
USERS := $(VENV)/.installed
DEVELOPERS := $(VENV)/.installed-dev
WRITERS := $(VENV)/.installed-docs

install: $(DEVELOPERS)

$(USERS): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) --editable '.[serve]'
	touch $@

$(DEVELOPERS): $(USERS)
	$(PIP) --editable '.[dev]'
	touch $@

$(WRITERS): $(USERS)
	$(PIP) --editable '.[serve,docs]'
	touch $@

quickstart: $(USERS)
	$(BIN)/mmsent quickstart

# The page to try the quickstart's heads on; Ctrl-C ends it.
demo: $(USERS)
	@test -d quickstart/runs || $(MAKE) quickstart
	@echo 'When it says "serving", open http://127.0.0.1:8000/'
	$(BIN)/mmsent serve --data quickstart/data --cache quickstart/cache --runs quickstart/runs

# The files of tests in as many processes as the machine has cores.
test: $(DEVELOPERS)
	$(BIN)/python -m pytest -n auto --dist loadfile

# In two processes on any machine: each may take 8 GB.
test-slow: $(DEVELOPERS)
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

lint: $(DEVELOPERS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages, into docs/_build/index.html. -W: a warning, a dead link among them, is an error.
docs: $(WRITERS)
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs/_build

# All of them, into a page of this kind of machine in docs/results/; the short forms write nothing.
bench: $(DEVELOPERS)
	$(BIN)/python scripts/bench_all.py

bench-short: $(DEVELOPERS)
	$(BIN)/python scripts/bench_all.py --short

# Branch coverage of mmsent/ under the default and the slow tests, child processes included.
coverage: $(DEVELOPERS)
	rm -f .coverage .coverage.*
	$(BIN)/python -m pytest --cov --cov-report=
	$(BIN)/python -m pytest -m slow --cov --cov-append --cov-report=term-missing:skip-covered

# Mutants of metrics, vote, cache and dataset that the tests let live; see docs/notes.md.
mutation: $(DEVELOPERS)
	OMP_NUM_THREADS=1 $(BIN)/python -m mutmut run --max-children 1
	$(BIN)/python -m mutmut results

# Known vulnerabilities of what is installed; asks a service on the internet. --strict: what could not be asked fails.
audit: $(DEVELOPERS)
	$(PIP) pip-audit
	$(BIN)/python -m pip_audit --strict --skip-editable

clean:
	rm -rf $(VENV) quickstart build docs/_build docs/project *.egg-info
