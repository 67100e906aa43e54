"""Read the expressions of all faces in a frame, with one call of the network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from emotion_detection.arrays import Frame, Gray
from emotion_detection.errors import ModelError
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.inference.detector import FaceDetector, HaarDetector, to_gray, to_model_input
from emotion_detection.inference.pretrained import MODEL
from emotion_detection.inference.reading import Box, Reading


class Recognizer:
    """Reads single images. `face_tracker.FaceTracker` reads videos with it."""

    def __init__(
        self, classifier: EmotionClassifier, detector: FaceDetector, *, faces: Literal["all", "largest"] = "all"
    ) -> None:
        self.classifier, self.detector, self.faces = classifier, detector, faces

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        detector: FaceDetector | None = None,
        faces: Literal["all", "largest"] = "all",
    ) -> "Recognizer":
        """Load a model: an ONNX file, models:/<name>@<alias>, models:/<name>/<version>, or the shipped model.

        Raises ModelError if the model does not exist or is not a model of this project.
        """
        return cls(EmotionClassifier(_model_path(model)), detector or HaarDetector(), faces=faces)

    def recognize(self, frame_rgb: Frame) -> list[Reading]:
        """Return the readings of a uint8 RGB image (height, width, 3) from left to right."""
        gray = to_gray(frame_rgb)
        return self.read(gray, self.select(self.detector.detect(gray)))

    def select(self, boxes: Sequence[Box]) -> list[Box]:
        """All boxes from left to right, or only the largest one."""
        if self.faces == "largest":
            return sorted(boxes, key=lambda box: box.width * box.height)[-1:]
        return sorted(boxes, key=lambda box: (box.left, box.top))

    def read(self, gray: Gray, boxes: Sequence[Box]) -> list[Reading]:
        """Classify the face in each box."""
        probabilities = self.classifier.probabilities(to_model_input(gray, boxes))
        return [Reading(box, row) for box, row in zip(boxes, probabilities, strict=True)]


def _model_path(model: str | Path | None) -> Path:
    if model is None:
        return MODEL
    if not str(model).startswith("models:/"):
        return Path(model)
    try:
        from emotion_detection.experiments.registry import fetch  # MLflow takes seconds to import
    except ModuleNotFoundError as error:
        raise ModelError(f"{model} needs the package {error.name}: pip install {error.name}") from error
    return fetch(str(model))
