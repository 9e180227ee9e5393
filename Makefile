# Main targets: `make demo` and `make test`. Everything is installed into $(VENV), at the versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TEACHER ?= smollm
BENCH_TEACHER ?= gemma
EXPERIMENT_TEACHER ?= smollm
DEMO ?= demo
IMAGES ?= docs/images

.PHONY: demo test test-slow hostile fuzz bench-annotate bench-damage bench-format bench-loss bench-train experiment-quality experiment-replay soak bench-scale bench-deep architectures llama-cpp screenshots lint format env clean

demo: $(VENV)/.runtime
	$(BIN)/python examples/demo.py --teacher $(TEACHER) --out $(DEMO)

test: $(VENV)/.dev
	$(BIN)/pytest -m "not slow and not gpu" -n 2

# Ten minutes on one core: damaged files for every reader.
fuzz: $(VENV)/.dev
	FUZZ_EXAMPLES=4000 $(BIN)/pytest tests/fuzz -m slow --durations=0

test-slow: $(VENV)/.dev
	$(BIN)/pytest -m "slow and not gpu" -n 2 --durations=20

# Every bad value in every field of a dataset × every command: hours. CI tries a sample.
hostile: $(VENV)/.dev
	HOSTILE_CASES=all $(BIN)/pytest tests/hostile -s

bench-annotate: $(VENV)/.runtime
	$(BIN)/python bench/annotate.py --teacher $(BENCH_TEACHER)

# More text: apt-get install anarchism jargon-text bible-kjv-text bible-kjv fortunes debian-reference-en
bench-format: $(VENV)/.runtime
	$(BIN)/python bench/format.py --teacher $(BENCH_TEACHER)

bench-loss: $(VENV)/.bench
	$(BIN)/python bench/loss.py

bench-train: $(VENV)/.runtime
	$(BIN)/python bench/train.py

# The first takes hours on one core (pruned student), the second half an hour. Both resume after an interruption.
experiment-quality: $(VENV)/.bench
	$(BIN)/python bench/experiment_quality.py --teacher $(EXPERIMENT_TEACHER)

experiment-replay: $(VENV)/.bench
	$(BIN)/python bench/experiment_replay.py --teacher $(EXPERIMENT_TEACHER) --plot docs/replay.svg

# 200 kills at random moments: half an hour on two cores. Resumes after an interruption; delete .cache/soak to start over.
soak: $(VENV)/.dev
	$(BIN)/python bench/soak.py --kills 200 --units 200 --directory .cache/soak

# A million stubbed units: measures the memory of making units, resuming, and writing the snapshot.
bench-scale: $(VENV)/.runtime
	$(BIN)/python bench/scale.py --units 1000000

# What every command does with a damaged dataset: a thousand runs, about half an hour.
bench-damage: $(VENV)/.runtime
	$(BIN)/python bench/damage.py

# Needs a finished `make demo`; repeats its shards.
bench-deep: $(VENV)/.runtime
	$(BIN)/python bench/deep.py $(DEMO)/$(TEACHER)/shards

# All causal language models of transformers, with tiny random weights: ten minutes. Writes docs/architectures.md.
architectures: $(VENV)/.runtime
	$(BIN)/python bench/architectures.py --out docs/architectures.md

# Builds llama.cpp from source (a quarter of an hour), and keeps its numbers for tests/teacher. Needed only when
# tests/support/gguf_*.py or the supported settings change.
llama-cpp: $(VENV)/.runtime
	$(PYTHON) -m venv .cache/llama-cpp
	.cache/llama-cpp/bin/python -m pip install --quiet --no-binary llama-cpp-python llama-cpp-python==0.3.36 gguf==0.19.0
	.cache/llama-cpp/bin/python bench/gguf_logits.py --out tests/fixtures/llama_cpp --rules $$($(BIN)/python -c \
		"from logitcask.teacher.text.gguf_tokenizer import RULES; print(*sorted(RULES))")

# Pictures for the README. Needs a finished `make demo`.
screenshots: $(VENV)/.dev
	mkdir -p .cache
	$(BIN)/logitcask report $(DEMO)/$(TEACHER)/shards --run $(DEMO)/$(TEACHER)/run --html .cache/report.html
	$(BIN)/python docs/screenshots.py .cache/report.html --out $(IMAGES)

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
	$(PIP) install --quiet --constraint constraints.txt --group dev --editable ".[dask,prometheus,tensorboard]"
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) install --quiet --constraint constraints.txt --group bench
	@touch $@

clean:
	rm -rf $(VENV) .cache demo build dist
