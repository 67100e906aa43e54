"""Evaluation of a model: metrics, calibration, paired tests and figures."""
