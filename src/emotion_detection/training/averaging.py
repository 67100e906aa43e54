"""Average the weights of several trainings of one network, and measure its statistics of batch normalization again.

An average of trainings that share a start can be more accurate and more robust than each of them, at the cost of one
network (Wortsman et al. 2022, arXiv 2109.01903 and 2203.05482). Its activations have other statistics than theirs, so
batch normalization needs new ones (Izmailov et al. 2018, arXiv 1803.05407).
"""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from emotion_detection.arrays import Images
from emotion_detection.config import Average
from emotion_detection.training.initial_weights import COPY_AGAIN, read_weights

Weights = Sequence[NDArray[np.float32]]  # of a network, as get_weights returns them

REMEDY = f"{COPY_AGAIN}, or write `weights: []` and `share: 0` under train.average"
BATCH_SIZE = 512  # faces at least, if there are as many


def read_others(average: Average, model: keras.Model) -> list[Weights]:
    """Read the weights of train.average. Raise ModelError if a file cannot be used or is from another network."""
    return [read_weights(Path(path), model, remedy=REMEDY) for path in average.weights]


def mean(kept: Weights, others: Sequence[Weights], share: float) -> list[NDArray[np.float32]]:
    """Return (1 - share) * kept + share * the mean of the others, array by array."""
    means = (np.mean(arrays, axis=0) for arrays in zip(*others, strict=True))
    return [((1 - share) * own + share * other).astype(np.float32) for own, other in zip(kept, means, strict=True)]


def measure_batch_norm(model: keras.Model, images: Images, seed: int) -> None:
    """Set the statistics of batch normalization to their means over random batches of all images u8 (n,48,48).

    A batch has BATCH_SIZE images, or up to twice as many, so that all have about the same size.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if not norms:
        return
    order = np.random.default_rng(seed).permutation(len(images))
    momenta = [norm.momentum for norm in norms]
    batches = np.array_split(order, max(1, len(images) // BATCH_SIZE))
    for done, batch in enumerate(tqdm(batches, "batch normalization", unit="batch", leave=False)):
        for norm in norms:
            norm.momentum = done / (done + 1)  # the moving average becomes the mean of all batches
        model(images[np.sort(batch), ..., np.newaxis], training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
