"""Temperature scaling: probabilities that mean what they say (Guo et al. 2017, arXiv 1706.04599)."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

LARGEST = 5.0  # and its inverse the smallest: a temperature beyond says that there is nothing to calibrate
SMALLEST_PROBABILITY = 1e-12

Floats = NDArray[np.float32]


def fit_temperature(probabilities: Floats, labels: NDArray[np.uint8]) -> float:
    """The temperature, from 0.2 to 5, at which probabilities (n,7) fit labels int (n,) best: the least log loss.

    1 leaves them as they are, more makes them less sure. The predicted emotion is the same at any.
    """

    def log_loss(log_temperature: float) -> float:
        cooled = at_temperature(probabilities, np.exp(log_temperature))
        return float(-np.log(np.maximum(cooled[np.arange(len(labels)), labels], SMALLEST_PROBABILITY)).mean())

    bounds = (-np.log(LARGEST), np.log(LARGEST))
    return float(np.exp(minimize_scalar(log_loss, bounds=bounds, method="bounded").x))


def at_temperature(probabilities: Floats, temperature: float) -> Floats:
    """softmax(logits / temperature), f32 (n,7), from probabilities = softmax(logits): over 1 is less sure."""
    logits = np.log(np.maximum(probabilities, SMALLEST_PROBABILITY)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
