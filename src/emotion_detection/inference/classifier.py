"""Classify faces with an exported model. Needs onnxruntime only."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from emotion_detection.arrays import Images, Probabilities
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE
from emotion_detection.errors import ModelError

INPUT = ("tensor(uint8)", [IMAGE_SIZE, IMAGE_SIZE, 1])  # without the batch dimension
OUTPUT = ("tensor(float)", [len(EMOTIONS)])
BATCH_SIZE = 256  # large enough to use all cores, small enough to need little memory


class EmotionClassifier:
    """An ONNX model of this project, loaded once."""

    def __init__(self, path: Path) -> None:
        """Raises ModelError if the file is not an ONNX model or its labels, input or output differ."""
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no other common base
            raise ModelError(f"{path} cannot be loaded as an ONNX model: {' '.join(str(error).split())}") from error
        self._check_labels(path)
        self._check_shapes(path)
        self._input = self._session.get_inputs()[0].name

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata in the file: labels, input_size, temperature, run_id, dataset, architecture."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    @property
    def temperature(self) -> float:
        """The divisor of the logits in the graph; 1.0 if the metadata does not contain it."""
        return float(self.metadata.get("temperature", 1))

    def _check_labels(self, path: Path) -> None:
        """Probabilities carry no names, so the labels must be in the order of EMOTIONS."""
        labels = self.metadata.get("labels")
        if labels != json.dumps(EMOTIONS):
            raise ModelError(
                f"{path} has the labels {labels} instead of {list(EMOTIONS)}: use a model.onnx of the train stage"
            )

    def _check_shapes(self, path: Path) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if _forms(inputs) != [INPUT] or _forms(outputs)[:1] != [OUTPUT] or isinstance(inputs[0].shape[0], int):
            raise ModelError(
                f"{path} maps {_description(inputs)} to {_description(outputs)} instead of "
                f"{INPUT[0]} [n, {IMAGE_SIZE}, {IMAGE_SIZE}, 1] to {OUTPUT[0]} [n, {len(EMOTIONS)}]: "
                "use a model.onnx of the train stage"
            )

    def probabilities(self, images: Images) -> Probabilities:
        """Classify any number of faces, including 0."""
        starts = range(0, len(images), BATCH_SIZE)
        batches = [self._run(images[start : start + BATCH_SIZE]) for start in starts]
        return np.concatenate([np.empty((0, len(EMOTIONS)), np.float32), *batches])

    def _run(self, images: Images) -> Probabilities:
        probabilities: Probabilities = self._session.run(None, {self._input: images[..., np.newaxis]})[0]
        return probabilities


def _forms(values: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Type and shape of inputs or outputs, without the batch dimension."""
    return [(value.type, value.shape[1:]) for value in values]


def _description(values: Sequence[Any]) -> str:
    return ", ".join(f"{value.type} {value.shape}" for value in values) or "nothing"


def mirror_averaged(classifier: EmotionClassifier, images: Images) -> Probabilities:
    """The mean probabilities of each face and its mirror image."""
    both = np.stack([classifier.probabilities(images), classifier.probabilities(images[:, :, ::-1])])
    return both.mean(axis=0, dtype=np.float32)
