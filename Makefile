PYTHON ?= python3
BIN := .venv/bin
ONNX := .venv-onnx/bin
VERSION := 'import sys; print(sys.version_info[:2])'
OTHER := .venv-$(notdir $(PYTHON))

.PHONY: demo jam onnx test core

demo: .venv/installed-report
	$(BIN)/gapt run smoke --workdir runs/smoke-lambda0 --set algorithm.adversarial_weight=0
	$(BIN)/gapt run smoke --workdir runs/smoke-lambda1
	$(BIN)/gapt report runs/smoke-lambda0 runs/smoke-lambda1 --out runs/smoke-report
	@echo "open $(CURDIR)/runs/smoke-report/report.html in a browser"

jam: .venv/installed-live
	$(BIN)/gapt jam

onnx: .venv-onnx/installed
	@echo "next: $(ONNX)/gapt export RUN --onnx --out DIR"

test: .venv/installed-report-dev .venv-onnx/installed
	@test "$(origin PYTHON)" != "command line" || \
	  test "$$($(PYTHON) -c $(VERSION))" = "$$($(BIN)/python -c $(VERSION))" || \
	  { echo "error: .venv is not of $(PYTHON): remove .venv and .venv-onnx, then run this again" >&2; exit 2; }
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --durations 20
	$(ONNX)/pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 -m onnx tests/export tests/benchmark/test_bench.py tests/test_pipeline.py

# The core of the tests on another Python, in an environment of its own: make core PYTHON=python3.13
core: $(OTHER)/installed
	$(OTHER)/bin/pytest -n 2 --dist loadfile --max-worker-restart 0 $(addprefix tests/,algorithm models runtime training export)

# A stamp per set of extras: it is older than pyproject.toml when the install has to be done again.
.venv/installed-report: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[report]'
	@touch $@

.venv/installed-live: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[report,live]'
	@touch $@

.venv/installed-report-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/installed-report

# The converter to ONNX wants an older Orbax than everybody else gets, so it has an environment of its own.
.venv-onnx/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv .venv-onnx
	$(ONNX)/python -m pip install --quiet --disable-pip-version-check --editable '.[onnx,live,test]'
	@touch $@

$(OTHER)/installed: pyproject.toml
	$(PYTHON) -m venv $(OTHER)
	$(OTHER)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is not Python 3.11 or newer: run 'make PYTHON=/path/to/python3.11'" >&2; exit 2; }
	$(PYTHON) -m venv .venv
