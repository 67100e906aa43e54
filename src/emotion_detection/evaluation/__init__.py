"""Evaluation of a model: metrics, calibration, figures and the model card."""
