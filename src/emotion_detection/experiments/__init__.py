"""Experiment tracking: MLflow runs, the model registry, recipes and provenance."""
