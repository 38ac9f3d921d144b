# make ui: install, index, serve.   make test: install with the test extras, run all tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: ui test bench lint clean

ui: $(VENV)/.installed
	@$(BIN)/tunesmith ui

test: $(VENV)/.installed-test
	@$(BIN)/python -m pytest

bench: $(VENV)/.installed-test
	@for bench in tests/bench/*.py; do echo "# $$bench" >&2; $(BIN)/python $$bench || exit 1; done

lint: $(VENV)/.installed-test
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

# The stamp is newer than what it was made from: a second start installs nothing.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tunesmith needs Python 3.11 or newer; give it with: make PYTHON=/path/to/python3.11")'
	@echo "Installing into $(VENV); the first time takes a few minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) torch
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@$(INSTALL) --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
