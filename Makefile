# make demo   set up, then train the three models on the embedded digits and draw what they learned
# make test   set up, then ruff and all tests
# make venv   set up only (.venv); make clean removes everything that was made
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test venv clean

demo: venv
	@$(BIN)/scratchgen demo

test: venv
	@$(BIN)/ruff check .
	@$(BIN)/python -m pytest -q

venv: .venv/installed

# The stamp file is newer than the metadata once everything is installed; an interrupted set-up
# leaves none, and the next call starts anew.
.venv/installed: setup.py pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: '$(PYTHON)' not found; install Python 3.11 or\
	 newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1);\
	 name another: make PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up .venv (once; takes a minute or two) ..."
	@$(PYTHON) -m venv .venv || { echo "make: python -m venv failed; on Debian and Ubuntu:\
	 apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	@touch $@

clean:
	@rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
