# make demo    set up, then train the three models on the embedded digits and draw what they learned
# make test    set up, then ruff and all tests but the long ones
# make proofs  set up, then the long tests
# make check   set up, then ruff, types and the tests of the core, for while you work on it
# make venv    set up only (.venv); make clean removes everything that was made
PYTHON ?= python3
BIN := .venv/bin

# One worker per core, eight at most. A worker that is done takes tests from one that is not.
PYTEST := $(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 8 --dist worksteal
CORE := $(addprefix tests/test_,$(addsuffix .py,engine ops op_errors dtypes in_place copies random laws\
 nn layers parameters gradcheck mutants layout typing))

.PHONY: demo test proofs check venv clean

demo: venv
	@$(BIN)/scratchgen demo

test: venv
	@$(BIN)/ruff check .
	@$(PYTEST)

proofs: venv
	@$(PYTEST) --long

check: venv
	@$(BIN)/ruff check .
	@$(PYTEST) $(CORE)

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
