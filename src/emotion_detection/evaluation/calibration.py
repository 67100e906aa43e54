"""Temperature scaling: make the probabilities match the accuracy (Guo et al. 2017, arXiv 1706.04599)."""

import numpy as np
from scipy.optimize import minimize_scalar

from emotion_detection.arrays import Labels, Probabilities

MAX_TEMPERATURE = 5.0  # the minimum is its inverse; an optimum outside means that there is nothing to calibrate
MIN_PROBABILITY = 1e-12


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float:
    """The temperature, from 0.2 to 5, that minimizes the log loss of the probabilities.

    1 leaves the probabilities unchanged; a higher temperature makes them less confident. The predicted emotion never
    changes.
    """

    def log_loss(log_temperature: float) -> float:
        scaled = at_temperature(probabilities, np.exp(log_temperature))
        return float(-np.log(np.maximum(scaled[np.arange(len(labels)), labels], MIN_PROBABILITY)).mean())

    bounds = (-np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE))
    return float(np.exp(minimize_scalar(log_loss, bounds=bounds, method="bounded").x))


def at_temperature(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Compute softmax(logits / temperature), float32 (n, 7), from probabilities = softmax(logits)."""
    logits = np.log(np.maximum(probabilities, MIN_PROBABILITY)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
