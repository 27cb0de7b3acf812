# Two commands: `make demo` explains a picture, `make test` runs every check. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.DEFAULT_GOAL := help
.PHONY: help demo test matrix lint types imports unit browser app-test docs bench clean

help:
	@echo "make demo   set up, explain a picture of a dog offline, print the path of the page"
	@echo "make test   set up, run every check: lint, types, imports, tests with coverage, docs"
	@echo "make app-test the web app in a real browser (installs Chromium where it can)"
	@echo "make matrix run the tests of models on older and newer transformers and open_clip (16 GB, an hour or two)"
	@echo "make bench  set up, measure speed and completeness"
	@echo "make clean  remove the environment and what was made"

$(BIN)/python:
	@echo "==> Making a Python environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/core.stamp: $(BIN)/python pyproject.toml constraints.txt
	@echo "==> Installing Isthmus and its core dependencies (PyTorch is large: this takes a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/core.stamp
	@echo "==> Installing the tools of the checks"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(VENV)/core.stamp
	@echo "==> Explaining examples/dog.jpg with the bundled model, offline"
	@HF_HUB_OFFLINE=1 $(BIN)/isthmus explain examples/dog.jpg \
		"a dog on the grass" "a dog is tied to a fire hydrant" "a plate of food" \
		--steps auto --out $(DEMO)
	@echo "==> Open this page in a browser: $(abspath $(DEMO)/index.html)"

test: $(VENV)/dev.stamp lint types imports unit

lint: $(VENV)/dev.stamp
	@echo "==> Lint and format (ruff)"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	@echo "==> Types, strict (mypy)"
	@$(BIN)/mypy

imports: $(VENV)/dev.stamp
	@echo "==> Directions of imports (import-linter)"
	@$(BIN)/lint-imports

# Chromium and axe-core, where they are missing and can be installed; where not, the tests that need them skip.
browser: $(VENV)/dev.stamp
	@.ci/browser

app-test: browser
	@echo "==> The web app by a real browser (pytest)"
	@ISTHMUS_BROWSER=require HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/app -n 2

unit: browser
	@echo "==> Tests with branch coverage, documentation snippets among them (pytest)"
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --cov --cov-report=term -n 2 --dist loadgroup

# Environments of their own, .venv-*: `.ci/matrix --help` tells of them, and takes the names of those to run.
matrix:
	@PYTHON=$(PYTHON) .ci/matrix

bench: $(VENV)/dev.stamp
	@$(BIN)/python benchmarks/explain_once.py
	@$(BIN)/python benchmarks/completeness.py
	@$(BIN)/python benchmarks/speed.py --write
	@$(BIN)/python benchmarks/speed_device.py

clean:
	rm -rf $(VENV) $(VENV)-transformers-* $(VENV)-open_clip-* $(DEMO) isthmus-out out build dist src/*.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache
