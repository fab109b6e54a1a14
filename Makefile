# Planktrait: `make demo` for a running server, `make test` for everything, `make lint`, `make clean`.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
IMAGES ?=
WORKERS ?= 2
PORT ?= 8080
BACKEND_PORT ?= 9090

.PHONY: demo install test test-fast lint format clean clean-all

install: $(BIN)/.installed

$(BIN)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --no-deps -r requirements.lock
	$(BIN)/pip install --no-deps -e .
	touch $@

demo: install
	$(BIN)/python -m examples.demo --port $(PORT) --backend-port $(BACKEND_PORT) $(if $(IMAGES),--images "$(IMAGES)")

test: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-fast: install
	$(BIN)/python -m pytest -m "not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy label_studio_config hpc_jobs simclr export_tools ml_backend planktrait.py examples benchmarks

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo-home demo-home-* test-artefacts .pytest_cache .mypy_cache .ruff_cache build *.egg-info

clean-all: clean
	rm -rf $(VENV)
