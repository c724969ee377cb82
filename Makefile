# The commands of the project. `make demo` and `make test` need nothing but Python 3.11 and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo up install test test-slow chaos history lint bench clean

demo: $(VENV)/embedded.stamp  ## a real tuning job from nothing: starts the service, tunes, recommends, stops
	$(BIN)/foretune demo

up: $(VENV)/embedded.stamp  ## the service, until Ctrl-C
	$(BIN)/foretune up

install: $(VENV)/dev.stamp  ## everything for development

test: $(VENV)/dev.stamp  ## the tests, without those marked slow
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-slow: $(VENV)/dev.stamp  ## the tests marked slow
	$(BIN)/python -m pytest -m slow

chaos: $(VENV)/dev.stamp  ## 200 faults in a quarter of an hour, and the proof that nothing was lost
	$(BIN)/python -m tests.faults.chaos

history: $(VENV)/embedded.stamp  ## trains the starter history's missing jobs (an hour) and packs them
	$(BIN)/python -m workers.starter --folder build/starter

lint: $(VENV)/dev.stamp  ## style, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/bench.stamp  ## the benchmarks that the README quotes (long)
	$(BIN)/python -m benchmarks

clean:  ## removes the virtual environment and caches; data folders stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build *.egg-info

# Pip, not uv: where a local CPU wheel of torch exists, pip takes it; elsewhere the same pin takes the CUDA build.
$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/%.stamp: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[$*]'
	$(BIN)/python -m metalearner
	$(BIN)/python -m workers.engine
	$(BIN)/python -m service.embedded
	touch $@
