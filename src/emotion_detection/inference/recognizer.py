"""Frames -> readings: every face found, cropped and read in one call of the network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.inference.detector import FaceDetector, Frame, Gray, HaarDetector, to_gray, to_model_input
from emotion_detection.inference.pretrained import MODEL
from emotion_detection.inference.reading import Box, Reading


class Recognizer:
    """Reads stills; `following.Follower` reads videos with it."""

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
        """model: an ONNX file, the registry's models:/name@alias or models:/name/version, or None: the shipped one.

        InputError if there is no such model or it is none of this project.
        """
        return cls(EmotionClassifier(_located(model)), detector or HaarDetector(), faces=faces)

    def recognize(self, frame_rgb: Frame) -> list[Reading]:
        """The readings of a still u8 (h,w,3), from left to right; none without a face."""
        gray = to_gray(frame_rgb)
        return self.read(gray, self.chosen(self.detector.detect(gray)))

    def chosen(self, boxes: Sequence[Box]) -> list[Box]:
        """Those to read: all from left to right, or the largest alone."""
        if self.faces == "largest":
            return sorted(boxes, key=lambda box: box.width * box.height)[-1:]
        return sorted(boxes, key=lambda box: (box.left, box.top))

    def read(self, gray: Gray, boxes: Sequence[Box]) -> list[Reading]:
        """A reading for each box of gray u8 (h,w), in one call of the network."""
        probabilities = self.classifier.probabilities(to_model_input(gray, boxes))
        return [Reading(box, row) for box, row in zip(boxes, probabilities, strict=True)]


def _located(model: str | Path | None) -> Path:
    if model is None:
        return MODEL
    if str(model).startswith("models:/"):
        from emotion_detection.experiments.registry import fetch  # MLflow takes seconds to import

        return fetch(str(model))
    return Path(model)
