# Every target makes `.venv` and installs into it what it needs; a second call finds it there.
# Versions come from infra/constraints.txt; `make lock` renews them.

BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --quiet --disable-pip-version-check --constraint infra/constraints.txt
DEMO_OUTPUT := out/demo
# The first of these that is 3.11 to 3.14; Ray 2.60 has wheels for no other. Or: make PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo "$$p" && break; done)
ARGS ?=

need_python = @test -n "$(PYTHON)" || { \
	echo "Dawn Chorus needs Python 3.11, 3.12, 3.13 or 3.14, and none is on the PATH." >&2; \
	echo "Install one (Debian, Ubuntu: apt-get install python3 python3-venv), or: make PYTHON=/path/to/python3.11" >&2; \
	exit 1; }

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check format bench bench-salm bench-accuracy freeze lock clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-16s %s\n' "$$name" "$$text"; done

demo: .venv/.ready ## Transcribe the sample archive into out/demo and show the result
	@rm -rf $(DEMO_OUTPUT)
	$(BIN)/dawnchorus run configs/demo.yaml output=$(DEMO_OUTPUT)
	@$(BIN)/dawnchorus show $(DEMO_OUTPUT)

test: .venv/.ready-dev ## The default tests; ARGS="tests/test_house.py -x" for some of them
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ARGS)

test-slow: .venv/.ready-dev ## The slow tests: kill seeds, the 10-hour file (up to 45 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not gpu" $(ARGS)

check: .venv/.ready-dev ## Format, lint, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy jobs configs
	$(BIN)/lint-imports

format: .venv/.ready-dev ## Format the code and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/.ready-dev ## Throughput on this machine
	$(BIN)/python tests/bench/throughput.py $(ARGS)

bench-salm: .venv/.ready-dev ## Throughput of Canary-Qwen's architecture on this GPU, against NeMo's own and the physical bound
	PYTHONPATH=tests PYTORCH_ALLOC_CONF=expandable_segments:True $(BIN)/python tests/bench/salm.py $(ARGS)

bench-accuracy: .venv/.ready-dev ## Word error rates of segmentation settings
	$(BIN)/python tests/bench/accuracy.py $(ARGS)

freeze: .venv/.ready-dev ## Rewrite the frozen surfaces and the generated files in configs/
	$(BIN)/python configs/generate.py
	$(BIN)/python tests/surfaces.py

lock: ## Renew infra/constraints.txt from a new environment with the newest versions
	$(need_python)
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --quiet --disable-pip-version-check --editable '.[dev]'
	{ echo "# Exact versions of everything that is installed. Made by: make lock"; \
	  build/lock/bin/pip freeze --exclude-editable | sed 's/+cpu$$//'; } > build/constraints.txt
	mv build/constraints.txt infra/constraints.txt
	rm -rf build/lock

clean: ## Remove .venv, caches and outputs of the demo
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build out/demo
	find pipeline tests jobs configs -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/pip:
	$(need_python)
	@echo "Making .venv with $(PYTHON)."
	@$(PYTHON) -m venv .venv || { \
		echo "That failed. On Debian and Ubuntu venv is a package of its own: apt-get install python3-venv" >&2; \
		exit 1; }

# Order-only on pip: upgrading pip must not install everything again.
.venv/.ready: pyproject.toml infra/constraints.txt | .venv/bin/pip
	@echo "Installing what a run needs into .venv (about 1.3 GB, a minute or two)."
	@$(PIP) --editable '.[whisper,score]'
	@touch $@

.venv/.ready-dev: pyproject.toml infra/constraints.txt | .venv/bin/pip
	@echo "Installing what development needs into .venv (about 3.3 GB, three minutes)."
	@$(PIP) --editable '.[dev]'
	@touch .venv/.ready $@
