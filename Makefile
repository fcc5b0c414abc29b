# make demo: install and compile the shipped example.  make test: the tests.  PYTHON=python3.12 picks an interpreter.
PYTHON ?= python3
VENV   ?= .venv
DEMO   ?= dist/digits-local
# What pytest runs: `make test TIER=all` adds the tests marked long.
TIER   ?= short

BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
SOURCES := pyproject.toml constraints.txt
MARKS   := $(if $(filter all,$(TIER)),,-m "not long")

.DELETE_ON_ERROR:
.PHONY: demo test lint types clean

demo: $(VENV)/.demo
	@mkdir -p $(dir $(DEMO))
	@$(BIN)/edgeopt compile examples/digits/model.pt2 --target local --data digits -o $(DEMO)
	@echo "The bundle is $(DEMO), its report $(DEMO)/report.html"

test: $(VENV)/.test
	@$(BIN)/python -m pytest $(MARKS) -n 2

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python -m edgeopt.recipes.validate

types: $(VENV)/.dev
	@$(BIN)/mypy

clean:
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp is newer than what it was made from, so a second run installs nothing.
$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "edgeopt: there is no $(PYTHON) here; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "edgeopt: $(PYTHON) is $$($(PYTHON) -c 'import platform; print(platform.python_version())'), and 3.11 or newer is needed; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "edgeopt: $(PYTHON) cannot make virtual environments; on Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made $(SOURCES)
	@echo "Installing edgeopt with ONNX Runtime and OpenVINO into $(VENV); the first time takes some minutes"
	@$(PIP) -e '.[all]'
	@touch $@

$(VENV)/.test: $(VENV)/.made $(SOURCES)
	@echo "Installing edgeopt with what its tests need into $(VENV); the first time takes some minutes"
	@$(PIP) -e '.[test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made $(SOURCES)
	@echo "Installing edgeopt with its linters into $(VENV); the first time takes some minutes"
	@$(PIP) -e '.[dev]'
	@touch $@
