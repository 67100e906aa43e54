"""Experiment tracking: MLflow runs, the model registry and where a run comes from."""
