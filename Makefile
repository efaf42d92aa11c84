# Two commands do everything: `make demo` serves the app, `make test` runs all tests.
PYTHON ?= python3
PORT ?= 8501
ADDRESS ?= localhost
WORKERS ?= 2
BIN := .venv/bin

.PHONY: demo demo-hub test lint clean

demo: .venv/.installed
	@echo "HemaZoo: http://$(ADDRESS):$(PORT)"
	$(BIN)/streamlit run app.py --server.port $(PORT) --server.address $(ADDRESS)

demo-hub: .venv/.installed-dev
	$(BIN)/python -m tests.demo_hub --port $(PORT)

test: .venv/.installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "HemaZoo needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

# the stamp is renewed only when the installation is whole
.venv/.installed: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.txt
	@touch $@

.venv/.installed-dev: requirements-dev.txt requirements-ray.txt .venv/.installed
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements-dev.txt
	@touch $@
