# `make test` and `make demo` need Python >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: test check lint demo bench bench-quick clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# Everything: what CI runs.
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The quick inner loop leaves these to `make test`: long, or held against other programs throughout.
LONG := families generation compute graph tasks verbs/test_graph.py \
        training/test_adapting.py training/test_fitting.py \
        $(patsubst tests/%,%,$(wildcard tests/checkpoints/test_gguf*.py))

check: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not oracle" \
	  $(addprefix --ignore=tests/,$(LONG))

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

demo: $(STAMP)
	$(BIN)/python examples/demo.py

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks --write

bench-quick: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks --quick

clean:
	rm -rf $(VENV) .demo .bench build dist
