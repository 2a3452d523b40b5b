# Everything a new clone needs: `make demo` and `make test` do their own set-up, once.
#
#   PYTHON=...       the interpreter that .venv is made from (3.10 or newer; python3)
#   VENV=...         where the environment lives (.venv); VENV= with nothing uses PYTHON as it is,
#                    for an environment that has torch, Detectron2 and `pip install -e .[dev]`
#   PYTEST_ARGS=...  more arguments for pytest

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup test test-fast test-slow gpu-check lint format demo check-wheel clean

help:
	@echo "make demo         set up, train a small detector on generated images, show what it finds"
	@echo "make test         set up, run the tests"
	@echo "make test-fast    set up, run only the fast tests (seconds)"
	@echo "make test-slow    set up, run the tests of minutes; one of them downloads Detectron2"
	@echo "make gpu-check    set up, check tests, precisions, speed and torch.compile on a CUDA card (8 minutes)"
	@echo "make setup        make $(or $(VENV),nothing: PYTHON is used) with all that is needed"
	@echo "make lint         set up, check style, format and types (the types with Python 3.11 or newer)"
	@echo "make format       set up, format the code"
	@echo "make check-wheel  set up, build the wheel and load all its configs away from the source"
	@echo "make clean        remove the folder .venv here (never another VENV) and what builds and tests leave"

ifeq ($(strip $(VENV)),)
PY := $(PYTHON)

setup:
	@$(PY) -W ignore dev/check_environment.py
else
PY := $(VENV)/bin/python
STAMPS := $(VENV)/.setup
PIP_INSTALL := $(PY) -m pip --disable-pip-version-check install --constraint constraints.txt

# Each step leaves a stamp, and runs again only after a change of what it depends on.
setup: $(STAMPS)/checked

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo \
	  "make: Python 3.10 or newer is needed, and '$(PYTHON)' is not; use e.g. make setup PYTHON=python3.12" >&2; exit 1; }
	@echo "== making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo \
	  "make: '$(PYTHON) -m venv $(VENV)' failed; on Debian and Ubuntu install python3-venv first" >&2; exit 1; }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/torch: constraints.txt $(STAMPS)/venv
	@echo "== installing PyTorch (the largest download, some minutes)"
	@$(PIP_INSTALL) --quiet --upgrade pip setuptools wheel
	@$(PIP_INSTALL) torch torchvision
	@touch $@

$(STAMPS)/detectron2: dev/install_detectron2.py dev/detectron2_wheel.py dev/interpreter.py $(STAMPS)/torch
	@echo "== installing Detectron2"
	@$(PY) dev/install_detectron2.py --cache-dir $(STAMPS)/cache --constraint constraints.txt --no-build-isolation
	@$(PY) -c 'import cv2' 2>/dev/null || $(PIP_INSTALL) --quiet opencv-python-headless
	@touch $@

$(STAMPS)/package: setup.py pyproject.toml $(STAMPS)/detectron2
	@echo "== installing efpn_d2 from this folder"
	@$(PIP_INSTALL) -qq --no-build-isolation --editable '.[dev]'
	@touch $@

$(STAMPS)/checked: dev/check_environment.py $(STAMPS)/package
	@$(PY) -W ignore dev/check_environment.py
	@touch $@
endif

test: setup
	$(PY) -m pytest -m "not slow" $(PYTEST_ARGS)

test-fast: setup
	$(PY) -m pytest -m "fast and not slow" $(PYTEST_ARGS)

test-slow: setup
	$(PY) -m pytest -m slow $(PYTEST_ARGS)

gpu-check: setup
	$(PY) benchmarks/gpu_check.py

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

demo: setup
	$(PY) demo/run_demo.py

check-wheel: setup
	$(PY) dev/check_wheel.py

# By its name and not as $(VENV), which may be an environment that was there before.
clean:
	rm -rf .venv
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
