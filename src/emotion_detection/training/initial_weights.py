"""Weights that one training leaves and another begins with: more epochs, or faces of one's own."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_detection.errors import InputError
from emotion_detection.training.content_addressed import read_content_addressed, write_content_addressed

REMEDY = "copy the file that a training left in start/ beside its model.keras, name and all, or write `start: none`"


def save_initial_weights(weights: Sequence[NDArray[np.float32]], folder: Path) -> Path:
    """Write a network's weights as it learns them; returns the file, named by its own digest.

    Half precision: a beginning needs three digits, and the file is half as large.
    """
    content = io.BytesIO()
    np.savez(content, *(array.astype(np.float16) for array in weights))
    return write_content_addressed(content.getvalue(), folder)


def load_initial_weights(model: Any, path: Path) -> None:
    """Give a Keras model the weights of a file; InputError if it is damaged, missing, or of another network."""
    with np.load(io.BytesIO(read_content_addressed(path, REMEDY)), allow_pickle=False) as start:
        if any(start[name].dtype != np.float16 for name in start.files):
            raise InputError(f"{path} holds no weights: {REMEDY}")
        weights = [start[name].astype(np.float32) for name in start.files]
    shapes, wanted = ([array.shape for array in arrays] for arrays in (weights, model.get_weights()))
    if shapes != wanted:
        raise InputError(
            f"{path} holds the weights of another network: take its architecture, widths, blocks, stem_stride and "
            "standardize from its recipe, or another file"
        )
    model.set_weights(weights)
