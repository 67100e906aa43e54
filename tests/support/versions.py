"""Versions of the shipped model in the registry of a test."""

import numpy as np

from emotion_detection.inference import pretrained
from emotion_detection.inference.classifier import EmotionClassifier


def register_version() -> int:
    """Register the shipped model again, without an alias; returns the number of the version."""
    from emotion_detection.experiments import registry, runs

    faces = np.zeros((1, 48, 48), np.uint8)
    probabilities = EmotionClassifier(pretrained.MODEL).probabilities(faces)
    with runs.start_run(name="another"):
        return registry.register(
            pretrained.MODEL,
            pretrained.MODEL_NAME,
            example=faces[..., np.newaxis],
            probabilities=probabilities,
            tags={},
        )
