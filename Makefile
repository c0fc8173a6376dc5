# Everything sets itself up: a virtual environment in .venv with the package in it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help test lint types unit demo speed clean

help:
	@echo "make demo    learn, evaluate and predict on generated photos"
	@echo "make test    what CI runs: lint, types, all tests"
	@echo "make unit    the quick tests alone"
	@echo "make speed   time and memory beside the plain way, to docs/speed.md (about 20 minutes)"

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=23.2'
	$(BIN)/python -m pip install --quiet torch==2.14.1 torchvision==0.29.1
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy

unit: $(VENV)/.ready
	$(BIN)/pytest -m "not slow"

test: lint types
	$(BIN)/pytest

demo: $(VENV)/.ready
	$(BIN)/python examples/demo.py

speed: $(VENV)/.ready
	$(BIN)/python benchmarks/speed.py

clean:
	rm -rf $(VENV) demo
