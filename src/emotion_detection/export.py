"""A trained model -> the ONNX file that ships, proved to compute the same."""

import json
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import onnx

from emotion_detection.inference import EmotionClassifier
from emotion_detection.labels import EMOTIONS, IMAGE_SIZE
from emotion_detection.replacing import replacing

TOLERANCE = 1e-4  # the largest difference of a probability between Keras and onnxruntime


def export_onnx(model: keras.Model, path: Path, *, about: Mapping[str, str] | None = None) -> float:
    """Write a float32 model (faces u8 (n,48,48,1) -> probabilities) to `path`; returns the largest difference seen.

    `about` goes into the file's metadata, beside the labels and the size of its input.

    The file is read back and compared before it gets its name: some graphs export "successfully" and compute
    something else. ArithmeticError if a probability differs by more than TOLERANCE.
    """
    faces = np.random.default_rng(0).integers(0, 256, (64, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    expected = model.predict_on_batch(faces[..., np.newaxis])
    with replacing(path) as written:
        model.export(written, format="onnx", verbose=False)
        _describe(written, about or {})
        difference = float(np.abs(EmotionClassifier(written).probabilities(faces) - expected).max())
        if not difference <= TOLERANCE:  # also when it is no number
            raise ArithmeticError(f"{path} would differ from the Keras model by {difference:.1e} in a probability")
    return difference


def _describe(path: Path, about: Mapping[str, str]) -> None:
    """Put into the file what its user needs: the meaning of its outputs, and where it comes from."""
    graph = onnx.load(path)
    told = {"labels": json.dumps(EMOTIONS), "input_size": str(IMAGE_SIZE), **about}
    onnx.helper.set_model_props(graph, told)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
