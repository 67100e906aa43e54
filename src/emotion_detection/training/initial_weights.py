"""Save the weights of a training, so that another training can start with them or average its own with them."""

import io
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from emotion_detection.errors import ModelError
from emotion_detection.training.content_addressed import open_content_addressed, write_content_addressed
from emotion_detection.training.votes import votes_comment

COPY_AGAIN = "copy the file that a training wrote into the folder initial_weights of its model without renaming it"
REMEDY = f"{COPY_AGAIN}, or set train.initial_weights to null"


def save_initial_weights(weights: Sequence[NDArray[np.float32]], folder: Path, *, label_source: str = "") -> Path:
    """Write the weights of a network, as returned by get_weights, and return the path.

    They are stored as float16: three digits are enough to start with, and the file has half the size.
    label_source: the labels that the network learned from, see `votes.label_tags`.
    """
    content = io.BytesIO()
    np.savez(content, *(array.astype(np.float16) for array in weights))
    return write_content_addressed(content.getvalue(), folder, comment=votes_comment(label_source))


def load_initial_weights(model: keras.Model, path: Path) -> None:
    """Set the weights of a model. Raise ModelError if the file is missing, damaged, or from another network."""
    model.set_weights(read_weights(path, model, remedy=REMEDY))


def read_weights(path: Path, model: keras.Model, *, remedy: str) -> list[NDArray[np.float32]]:
    """Read weights of the same network as `model`, in the order of get_weights.

    Raise ModelError, with the remedy, if the file is missing or damaged, or if it is from another network.
    """
    with open_content_addressed(path, remedy) as arrays:
        if any(header.dtype != np.float16 for header in arrays.headers.values()):
            raise ModelError(f"{path} contains no weights: {remedy}")
        if [header.shape for header in arrays.headers.values()] != [weight.shape for weight in model.get_weights()]:
            raise ModelError(
                f"{path} contains the weights of another network: use its architecture, widths, blocks, stem_stride, "
                "standardize and head, or another file"
            )
        weights = [arrays.read(name).astype(np.float32) for name in arrays.headers]
    if not all(np.isfinite(weight).all() for weight in weights):
        raise ModelError(f"{path} contains weights that are NaN or infinite: {remedy}")
    return weights
