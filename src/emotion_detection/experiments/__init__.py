"""Experiment tracking: MLflow runs, the model registry, recipes and provenance."""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads this variable when it is imported
