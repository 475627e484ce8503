# make demo    train the 8-agent ring on double circles and draw what it learned
# make test    the test suite without the slow tests
# make check   lint, format, types, and who may import whom
# make slow    the tests that take minutes
# make docs    the pages of docs/ as a site, in build/site
# make clean   remove .venv, caches and the demo's run folder
#
# The only thing needed is Python 3.11: make PYTHON=python3.12 picks another.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# The matrices are small and the tests start many processes: one thread each is fastest.
export OMP_NUM_THREADS ?= 1

# So many files of tests at a time: what a file starts once stays in one process.
WORKERS ?= 2

.PHONY: help demo test check slow docs clean

help:
	@sed -n 's/^# //p' Makefile | head -6

demo: $(VENV)/.installed
	$(BIN)/hdnn-dist train --run-dir runs/demo --overwrite
	@echo "The decision regions it learned: runs/demo/decision.png"

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m 'not slow and not alone' --numprocesses $(WORKERS) --dist loadfile
	$(BIN)/python -m pytest -m 'alone and not slow'

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site: build/site/index.html"

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis runs/demo
	find hdnn_dist tests -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# A stamp is written after a whole installation, so that a broken one is done again.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[data,mpi,metis]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[data,mpi,metis,tables,power,tensorboard,docs,dev]'
	@touch $@ $(VENV)/.installed
