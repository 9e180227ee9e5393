# Two commands: `make demo` and `make test`. Everything is installed into $(VENV), at the versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TEACHER ?= smollm
BENCH_TEACHER ?= gemma
DEMO ?= demo

.PHONY: demo test test-slow bench-format bench-loss lint format env clean

demo: $(VENV)/.runtime
	$(BIN)/python examples/demo.py --teacher $(TEACHER) --out $(DEMO)

test: $(VENV)/.dev
	$(BIN)/pytest -m "not slow and not gpu" -n 2

test-slow: $(VENV)/.dev
	$(BIN)/pytest -m "slow and not gpu" --durations=10

# More text: apt-get install anarchism jargon-text bible-kjv-text bible-kjv fortunes debian-reference-en
bench-format: $(VENV)/.runtime
	$(BIN)/python bench/format.py --teacher $(BENCH_TEACHER)

bench-loss: $(VENV)/.bench
	$(BIN)/python bench/loss.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

env: $(VENV)/.dev

$(VENV)/.runtime: pyproject.toml constraints.txt
	@echo "Installing logitcask and its dependencies into $(VENV) (about 2 GB; a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt pip
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) install --quiet --constraint constraints.txt --group dev --editable ".[dask,tensorboard]"
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) install --quiet --constraint constraints.txt --group bench
	@touch $@

clean:
	rm -rf $(VENV) .cache demo build dist
