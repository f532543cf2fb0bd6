# Each target sets itself up: nothing but Python 3.11 or newer, pip and make has to be there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The environment's own pip is not needed, so this works where Python comes without ensurepip.
INSTALL := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check install --quiet

.PHONY: demo test test-all test-heavy check format fuzz soak kills mutants audit docs

demo: $(VENV)/.core
	$(BIN)/knet demo --output demo-results

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The large networks as well: some gigabytes of memory, and the whole set of recorded numbers (KNET_GOLDENS=folder).
test-all: test
	$(BIN)/python -m pytest -n 2 -m large

# What takes longest and continuous integration leaves out: a cluster, the packages, exports of large networks, a GPU's day.
test-heavy: $(VENV)/.dev
	$(BIN)/python -m pytest -m heavy

# Hostile files and options, the same for the same SEED; KINDS of them by name. See docs/reliability.md.
SEED ?= 0
CASES ?= 3000
KINDS ?= images,videos,annotations,cards,exported,configs,commands,calls

fuzz: $(VENV)/.dev
	cd tests && $(abspath $(BIN))/python -m fuzz --seed $(SEED) --cases $(CASES) --kinds $(KINDS)

# Whether memory, files and threads stay as they are; SOAK="--parts frames --frames 100000" for a part of it.
soak: $(VENV)/.dev
	cd tests && $(abspath $(BIN))/python -m soak $(SOAK)

# Known holes in what is installed; fails also where PyPI could not be asked.
audit: $(VENV)/.dev
	$(INSTALL) pip-audit
	$(BIN)/python tests/audit.py

# Kills runs at random moments and looks at what is left: COUNT kills of each kind, from SEED on. Some ten minutes.
COUNT ?= 16
kills: $(VENV)/.dev
	$(BIN)/python tests/kills/kills.py --count $(COUNT) --seed $(SEED)

# Changes the package in COUNT places of each FILE and asks whether its tests notice. Half an hour.
FILES ?=
mutants: $(VENV)/.dev
	$(BIN)/python tests/mutants/mutants.py --count $(COUNT) --seed $(SEED) $(FILES)

# What continuous integration asks for before the tests.
check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documents as a site: open site/index.html
docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "knet needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv --without-pip $(VENV)

$(VENV)/.core: pyproject.toml | $(BIN)/python
	@echo "installing knet and PyTorch into $(VENV) (several GB, a few minutes)"
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	@echo "installing knet and what builds its site into $(VENV)"
	$(INSTALL) --editable '.[docs]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing knet, PyTorch and the tools for tests into $(VENV) (several GB, a few minutes)"
	$(INSTALL) --editable '.[dev]'
	@touch $@
