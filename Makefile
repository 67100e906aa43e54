# `make` lists the commands. Each of them first sees to the virtual environment .venv and then works inside it,
# whatever other environment is active.
PYTHON ?= python3
PORT ?= 5000
DEMO_PORT ?= 7860
WORKERS ?= 1
VENV := .venv
INSTALLED := $(VENV)/installed
LOCK := requirements.lock

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
unexport PYTHONHOME CONDA_PREFIX
# Without .pyc files every process compiles all of TensorFlow and MLflow again, 11 and 3 seconds of it.
unexport PYTHONDONTWRITEBYTECODE

export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := true
export HF_HUB_DISABLE_TELEMETRY := 1
export GRADIO_ANALYTICS_ENABLED := False
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup data repro tune demo test check ui adopt release ship lock

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(INSTALLED) ## install everything into .venv; PYTHON=python3.12 chooses the interpreter

data: $(INSTALLED) ## bring a data set: SOURCE=kaggle, SOURCE=huggingface or SOURCE=path/of/fer2013.csv
	@emotion-detection data "$(SOURCE)"

repro: $(INSTALLED) ## run what is out of date: prepare, train, evaluate, register
	@dvc repro

tune: $(INSTALLED) ## search better settings of train; WORKERS=2 shares this machine, STUDY= and OPTUNA_STORAGE= join others
	@dvc repro prepare
	@emotion-detection tune --params params.yaml --faces build/faces.npz \
		--data-report build/data_report.json --recipes recipes --out build/tuning --workers $(WORKERS) --study "$(STUDY)"

demo: $(INSTALLED) ## read the faces before your webcam, in the browser; DEMO_PORT=7860
	@python demo/app.py --port $(DEMO_PORT)

ui: $(INSTALLED) ## look at runs and models in the browser; PORT=5000
	@case "$${MLFLOW_TRACKING_URI:=sqlite:///mlflow.db}" in \
	http*) echo "the store is a server: open $$MLFLOW_TRACKING_URI in the browser" ;; \
	*) MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
		mlflow ui --backend-store-uri "$$MLFLOW_TRACKING_URI" --host 127.0.0.1 --port $(PORT) ;; \
	esac

adopt: $(INSTALLED) ## take over the settings of a recipe: FROM=recipes/fer_resnet.yaml
	@emotion-detection adopt "$(FROM)" --params params.yaml

release: $(INSTALLED) ## replace the shipped model by the pipeline's: RECIPE=recipes/fer_resnet.yaml
	@emotion-detection release --faces build/faces.npz --data-report build/data_report.json \
		--model build/model --report build/report --recipe "$(RECIPE)" --pretrained src/emotion_detection/pretrained

ship:
	@echo "make ship is now make release" >&2; exit 1

test: $(INSTALLED) ## run the tests
	@pytest

check: $(INSTALLED) ## lint, formatting, imports, types
	@ruff check
	@ruff format --check
	@lint-imports --no-cache
	@mypy

lock: ## write requirements.lock anew after a change of pyproject.toml; needs uv, and UPGRADE=--upgrade renews all
	@command -v uv >/dev/null || { echo "make lock needs uv: python3 -m pip install uv" >&2; exit 1; }
	@uv pip compile pyproject.toml --universal --python-version 3.10 --extra train --extra demo --extra dev \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet $(UPGRADE) --output-file $(LOCK)

# The lock is complete, so nothing is resolved here. setuptools is in it, so the project needs no build environment.
$(INSTALLED): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.10 to 3.13 is needed: make setup PYTHON=python3.12" >&2; exit 1; }
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
	@touch $@
