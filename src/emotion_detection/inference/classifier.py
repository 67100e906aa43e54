"""The exported model at work: onnxruntime alone, no training library."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE
from emotion_detection.errors import InputError

READS = ("tensor(uint8)", [IMAGE_SIZE, IMAGE_SIZE, 1])
GIVES = ("tensor(float)", [len(EMOTIONS)])
CHUNK = 256  # faces a call: enough to fill the cores, little memory


class EmotionClassifier:
    """An ONNX file of this project, loaded once."""

    def __init__(self, path: Path) -> None:
        """InputError if the file is no ONNX model, or not one of this project."""
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions share no base but this
            raise InputError(f"{path} cannot be loaded as an ONNX model: {' '.join(str(error).split())}") from error
        self._input = self._session.get_inputs()[0].name
        self._check_labels(path)
        self._check_shapes(path)

    @property
    def about(self) -> dict[str, str]:
        """What the file says of itself: labels, input_size, temperature, run_id, dataset, architecture."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    @property
    def temperature(self) -> float:
        """What the graph divides its logits by; 1.0 in a file that does not say."""
        return float(self.about.get("temperature", 1))

    def _check_labels(self, path: Path) -> None:
        """Only one order of labels is right: probabilities carry no names."""
        labels = self.about.get("labels")
        if labels != json.dumps(EMOTIONS):
            raise InputError(f"{path} names the labels {labels}, not {list(EMOTIONS)}: export it with the train stage")

    def _check_shapes(self, path: Path) -> None:
        (face, *others), (probabilities, *_) = self._session.get_inputs(), self._session.get_outputs()
        reads, gives = (face.type, face.shape[1:]), (probabilities.type, probabilities.shape[1:])
        free = not isinstance(face.shape[0], int)
        if others or not free or (reads, gives) != (READS, GIVES):
            raise InputError(
                f"{path} turns {face.type} {face.shape} into {probabilities.type} {probabilities.shape}, "
                f"not {READS[0]} [n, {IMAGE_SIZE}, {IMAGE_SIZE}, 1] into {GIVES[0]} [n, {len(EMOTIONS)}]: "
                "export it with the train stage"
            )

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Faces u8 (n,48,48) -> probabilities f32 (n,7) in the order of EMOTIONS, for any n, also 0."""
        chunks = [self._call(images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)]
        return np.concatenate([np.empty((0, len(EMOTIONS)), np.float32), *chunks])

    def _call(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = self._session.run(None, {self._input: images[..., np.newaxis]})[0]
        return result


def mirror_averaged(classifier: EmotionClassifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities f32 (n,7) of images u8 (n,48,48), each averaged with those of its mirror image."""
    both = np.stack([classifier.probabilities(images), classifier.probabilities(images[:, :, ::-1])])
    return both.mean(axis=0, dtype=np.float32)
