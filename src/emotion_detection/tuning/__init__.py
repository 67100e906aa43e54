"""Hyperparameter search with Optuna, by several processes on one or more machines."""
