PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo jam test

demo: .venv/installed-report
	$(BIN)/gapt run smoke --workdir runs/smoke-lambda0 --set algorithm.adversarial_weight=0
	$(BIN)/gapt run smoke --workdir runs/smoke-lambda1
	$(BIN)/gapt report runs/smoke-lambda0 runs/smoke-lambda1 --out runs/smoke-report
	@echo "open $(CURDIR)/runs/smoke-report/report.html in a browser"

jam: .venv/installed-live
	test -f runs/smoke-lambda1/evaluation.json || $(BIN)/gapt run smoke --workdir runs/smoke-lambda1
	$(BIN)/gapt jam runs/smoke-lambda1

test: .venv/installed-report-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile --max-worker-restart 0

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

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is not Python 3.11 or newer: run 'make PYTHON=/path/to/python3.11'" >&2; exit 2; }
	$(PYTHON) -m venv .venv
