# Two commands do everything: `make demo` serves the app, `make test` runs the tests.
# `make demo DEVICE=cpu` installs torch without CUDA: several GB less, for machines without a GPU.
PYTHON ?= python3
PORT ?= 8501
ADDRESS ?= localhost
WORKERS ?= 4
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q

# cuda: PyPI's build (CUDA on Linux, Metal on a Mac; runs on a CPU too). cpu: PyTorch's build without CUDA.
INSTALLED_DEVICE := $(shell cat .venv/.installed 2>/dev/null)
DEVICE = $(or $(INSTALLED_DEVICE),cuda)
CPU_INDEX := https://download.pytorch.org/whl/cpu

ifeq ($(filter cpu cuda,$(DEVICE)),)
$(error DEVICE is $(DEVICE): give cpu or cuda)
endif
ifneq ($(filter-out $(DEVICE),$(INSTALLED_DEVICE)),)
$(warning .venv holds the $(INSTALLED_DEVICE) build of torch and keeps it. Run `make clean` first to change it)
endif

.PHONY: demo demo-hub test lint docs lock sbom clean

demo: .venv/.installed
	@echo "HemaZoo: http://$(ADDRESS):$(PORT)"
	$(BIN)/streamlit run app.py --server.port $(PORT) --server.address $(ADDRESS)

demo-hub: .venv/.installed-dev
	$(BIN)/python -m tests.demo_hub --port $(PORT)

# Four processes on two cores: tests often wait for a browser, a server or a process.
# Checks of shipped tables and entries (marker `artefacts`) are for releases; `make test ARGS='-m ""'` includes them.
test: .venv/.installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) -m "not artefacts" $(ARGS)

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy zoo training pages app.py

# API reference from the docstrings, in docs/api. Each module is named because pdoc skips those outside `__all__`.
MODULES = $(shell find zoo training -name '*.py' ! -name __main__.py | sed 's,/__init__.py$$,,; s,\.py$$,,; s,/,.,g' | sort)
docs: .venv/.installed-dev
	$(BIN)/python -W "ignore:The module specification" -m pdoc --docformat google --no-show-source \
		--output-directory docs/api $(MODULES)

# Renew the lock file after a change of requirements.txt.
lock: .venv/.installed-dev
	$(BIN)/uv pip compile requirements.txt --universal --python-version 3.11 --generate-hashes --quiet \
		--custom-compile-command "make lock" --output-file requirements.lock

# Software bill of materials of the installed packages, CycloneDX JSON.
sbom: .venv/.installed-dev
	$(BIN)/cyclonedx-py environment $(BIN)/python --of JSON --output-file sbom.json
	@echo "Written: sbom.json"

clean:
	rm -rf .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "HemaZoo needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

# requirements.lock pins every package with the hashes of its files, for all platforms. LOCK=no takes requirements.txt
# instead, for a package index whose files the lock file does not know.
LOCK ?= yes
# torch's build for CPUs has hashes of its own and needs none of CUDA's packages
WITHOUT_CUDA := awk '/^[a-z]/ {kept = !/^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==/} kept'

# The stamp is renewed only after a complete installation, and says which build of torch it holds.
.venv/.installed: requirements.txt requirements.lock | .venv/bin/python
ifeq ($(DEVICE),cpu)
	grep -E '^(torch|torchvision)==' requirements.txt > .venv/torch.txt
	$(PIP) --index-url $(CPU_INDEX) -r .venv/torch.txt
endif
ifneq ($(LOCK),yes)
	$(PIP) -r requirements.txt
else ifeq ($(DEVICE),cpu)
	$(WITHOUT_CUDA) requirements.lock > .venv/others.lock
	$(PIP) --no-deps --require-hashes -r .venv/others.lock
else
	$(PIP) --require-hashes -r requirements.lock
endif
	@echo $(DEVICE) > $@

.venv/.installed-dev: requirements-dev.txt requirements-ray.txt requirements-serve.txt .venv/.installed
	$(PIP) -r requirements-dev.txt
	@touch $@
