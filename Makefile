# Everything from a fresh clone: Python 3.11 or newer and make are all that is needed.
#   make demo    install the base, then build and prove a small specialist from nothing
#   make test    install the test tools and peers, then run every test (what CI runs)

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
BIN    := $(VENV)/bin
BASE   := $(VENV)/.base
DEV    := $(VENV)/.dev
PYTEST := $(BIN)/python -m pytest
comma  := ,

.PHONY: demo quick test bench stress docs golden check lock clean
.DEFAULT_GOAL := demo

demo: $(BASE)
	$(BIN)/tinygpt quickstart --demo

# Where Python is told to write no byte code, every worker would parse and rewrite every test anew: 3 s.
quick: $(DEV)
	PYTHONDONTWRITEBYTECODE= $(PYTEST) -n $(JOBS) --dist worksteal -m "not parity and not wide" $(wildcard tests/unit tests/house tests/contract)

test: $(DEV)
	TINYGPT_REQUIRE_PARITY=1 $(PYTEST) -n $(JOBS) --dist loadfile --seen check tests
	@$(BIN)/python scripts/lines.py

bench: $(DEV)
	$(BIN)/python scripts/bench.py

# Rough to a live server, for minutes: see docs/serve.md. Words in WHAT choose a part: make stress WHAT=slow
stress: $(DEV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test-fuzz]'
	$(BIN)/python scripts/stress.py $(WHAT)

docs: $(DEV)
	TINYGPT_REQUIRE_PARITY=1 $(PYTEST) -n $(JOBS) --seen write tests/contract
	$(BIN)/python scripts/docs.py

# `make golden REMOVE=--remove` drops commands and flags that are gone.
golden: $(DEV)
	$(BIN)/python scripts/golden.py $(REMOVE)

check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python scripts/docs.py --check

# Needs uv; run it after changing the dependencies in pyproject.toml.
lock:
	uv lock

clean:
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Two installations, each with a stamp: the base that demo needs, and the test tools with the parity peers.
$(BASE): pyproject.toml uv.lock scripts/constraints.py | $(BIN)/pip
	$(call install,.)
	@touch $@

$(DEV): pyproject.toml uv.lock scripts/constraints.py | $(BIN)/pip
	$(call install,.[dev$(comma)test-parity$(comma)test-clients])
	@touch $(BASE) $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tinygpt needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# The locked versions where the package index offers all of them, else the newest that pyproject.toml allows.
define install
@$(BIN)/python scripts/constraints.py > $(VENV)/constraints.txt
@echo "installing $(1) into $(VENV)"
@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/constraints.txt -e '$(1)' || { \
  echo "the locked versions cannot be installed here: taking the newest that pyproject.toml allows" >&2; \
  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '$(1)'; }
endef
