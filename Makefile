# `make` lists the commands. Each command creates the virtual environment .venv if necessary and runs inside it.
PYTHON ?= python3
PORT ?= 5000
LAST ?= 10
DEMO_PORT ?= 7860
WORKERS ?= 1
JOBS ?= 2
BUILD := build
VENV := .venv
INSTALLED := $(VENV)/installed
LOCK := requirements.lock

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
unexport PYTHONHOME CONDA_PREFIX
# Without .pyc files, every process compiles TensorFlow (11 s) and MLflow (3 s) again.
unexport PYTHONDONTWRITEBYTECODE

export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := true
export HF_HUB_DISABLE_TELEMETRY := 1
export GRADIO_ANALYTICS_ENABLED := False
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup data repro champion tune demo test test-fast fuzz check ui compare adopt release ship lock

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(INSTALLED) ## install everything into .venv; PYTHON=python3.12 selects the interpreter

data: $(INSTALLED) ## put a data set into data/: SOURCE=kaggle, SOURCE=huggingface or SOURCE=path/to/fer2013.csv; VOTES= adds FER+
	@emotion-detection data "$(SOURCE)" --votes "$(VOTES)"

# A killed DVC command can leave an empty file of locks, with which no later command starts (DVC 3.67). DVC also empties
# it for a moment while it writes.
FREE_DVC := find .dvc/tmp -name rwlock -size 0 ! -newermt '-5 seconds' -delete 2>/dev/null || true

repro: $(INSTALLED) ## run the stages that are out of date: prepare, train, evaluate, register
	@$(FREE_DVC)
	@dvc repro
	@python -m emotion_detection.experiments.registered build/registered.json || dvc repro --force --single-item register

CHAMPION := $(if $(SAMPLE),build/champion,recipes/champion)

champion: $(INSTALLED) ## make the best model again, from its teachers on; SAMPLE=1 tries the pipeline on the sample
ifdef SAMPLE
	@mkdir -p $(CHAMPION)/.dvc
	@cp recipes/champion/dvc.yaml recipes/champion/sample/params.yaml $(CHAMPION)
	@cp recipes/champion/.dvc/config $(CHAMPION)/.dvc
	@cd $(CHAMPION) && { $(FREE_DVC); [ -e data.dvc ] || { rm -rf data; dvc import-url ../../sample data >/dev/null; }; }
else
	@[ -d data ] || { echo "data/ does not exist: run make data SOURCE=..., or make champion SAMPLE=1" >&2; exit 1; }
endif
	@cd $(CHAMPION) && { $(FREE_DVC); dvc repro; }

tune: $(INSTALLED) ## search for better settings; WORKERS=2 runs two processes, STUDY= and OPTUNA_STORAGE= join a search
	@$(FREE_DVC)
	@dvc --wait-for-lock repro prepare # another make tune may be running
	@emotion-detection tune --params params.yaml --faces build/faces.npz \
		--data-report build/data_report.json --recipes recipes --out build/tuning --workers $(WORKERS) --study "$(STUDY)"

demo: $(INSTALLED) ## start the demo, a web page for your webcam; DEMO_PORT=7860
	@python demo/app.py --port $(DEMO_PORT)

ui: $(INSTALLED) ## start MLflow's web page with runs and models; PORT=5000
	@emotion-detection ui --port $(PORT)

compare: $(INSTALLED) ## compare the settings and scores of the latest trainings; LAST=10
	@emotion-detection compare --last $(LAST)

adopt: $(INSTALLED) ## write the settings of a recipe into params.yaml: FROM=recipes/fer_resnet_fast.yaml
	@emotion-detection adopt "$(FROM)" --params params.yaml

release: $(INSTALLED) ## replace the shipped model with the pipeline's: RECIPE=recipes/fer_resnet.yaml
	@emotion-detection release --faces $(BUILD)/faces.npz --data-report $(BUILD)/data_report.json \
		--model $(BUILD)/model --report $(BUILD)/report --recipe "$(RECIPE)" $(if $(OVERLAY),--overlay "$(OVERLAY)") \
		--pretrained src/emotion_detection/pretrained

ship:
	@echo "make ship is now make release" >&2; exit 1

test: $(INSTALLED) ## run all tests in JOBS=2 processes and print the coverage of src/
	@mkdir -p build/coverage
	@pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder --cov --cov-report=term --cov-fail-under=90

test-fast: $(INSTALLED) ## run the tests that need no training and no other process
	@pytest -n $(JOBS) -m "not slow"

fuzz: $(INSTALLED) ## try thousands of damaged files and requests; MINUTES=30, SEED= repeats a run
	@python -m tests.fuzz.campaign --minutes $(or $(MINUTES),30) --seed "$(SEED)"

check: $(INSTALLED) ## check style, formatting, imports and types
	@ruff check
	@ruff format --check
	@lint-imports --no-cache
	@mypy

lock: ## update requirements.lock after a change of pyproject.toml; needs uv; UPGRADE=--upgrade updates all versions
	@command -v uv >/dev/null || { echo "make lock needs uv: python3 -m pip install uv" >&2; exit 1; }
	@uv pip compile pyproject.toml --universal --python-version 3.10 --extra train --extra demo --extra serve --extra batch --extra dev \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet $(UPGRADE) --output-file $(LOCK)

# A virtual environment belongs to its folder: a moved one does not start, and a copied one runs the original's code.
ifneq ($(shell cat $(INSTALLED) 2>/dev/null),$(CURDIR))
$(shell rm -f $(INSTALLED))
endif

# The lock is complete, so nothing is resolved. It contains setuptools, so no build environment is needed.
$(INSTALLED): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.10 to 3.13 is needed: make setup PYTHON=python3.12" >&2; exit 1; }
	@[ ! -e $(VENV)/bin/activate ] || grep -qF "$(CURDIR)/$(VENV)" $(VENV)/bin/activate || rm -rf $(VENV)
	@if command -v uv >/dev/null; then set -e; \
		uv venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV); \
		uv pip install --compile-bytecode --no-deps --requirement $(LOCK); \
		uv pip install --no-deps --no-build-isolation --editable .; \
	else set -e; \
		$(PYTHON) -m venv $(VENV); \
		python -m pip install --no-deps --requirement $(LOCK); \
		python -m pip install --no-deps --no-build-isolation --editable .; \
	fi
	@python -c 'import cv2' || \
		{ echo "OpenCV needs two system libraries: apt-get install libgl1 libglib2.0-0" >&2; exit 1; }
	@git rev-parse --git-dir >/dev/null 2>&1 || dvc config --local core.no_scm true # a ZIP file of the project has no .git
	@pwd -P > $@
