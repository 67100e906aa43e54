"""The exported model at work: onnxruntime alone, no training library."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from emotion_detection.errors import InputError
from emotion_detection.labels import EMOTIONS, IMAGE_SIZE

CHUNK = 256  # faces a call: enough to fill the cores, little memory


class EmotionClassifier:
    """An ONNX file of this project, loaded once."""

    def __init__(self, path: Path) -> None:
        """InputError if the file is no ONNX model, or not one of this project."""
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions share no base but this
            raise InputError(f"{path} cannot be loaded as an ONNX model: {' '.join(str(error).split())}") from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.labels: tuple[str, ...] = tuple(json.loads(metadata.get("labels", "[]")))
        self._input = self._session.get_inputs()[0]
        self._check(path)

    def _check(self, path: Path) -> None:
        if self.labels != EMOTIONS:
            raise InputError(
                f"{path} names the labels {list(self.labels)}, not {list(EMOTIONS)}: export it with the train stage"
            )
        if self._input.shape[1:] != [IMAGE_SIZE, IMAGE_SIZE, 1] or self._input.type != "tensor(uint8)":
            raise InputError(
                f"{path} reads {self._input.type} {self._input.shape}, "
                f"not uint8 [n, {IMAGE_SIZE}, {IMAGE_SIZE}, 1]: export it with the train stage"
            )

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Faces u8 (n,48,48) -> probabilities f32 (n,7) in the order of EMOTIONS, for any n, also 0."""
        chunks = [self._call(images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)]
        return np.concatenate([np.empty((0, len(EMOTIONS)), np.float32), *chunks])

    def _call(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = self._session.run(None, {self._input.name: images[..., np.newaxis]})[0]
        return result
