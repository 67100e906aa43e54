"""Versions of the shipped model in the registry of a test."""

import numpy as np

from emotion_detection.inference import pretrained


def register_version(name: str = pretrained.MODEL_NAME) -> int:
    """Register the shipped model again, without an alias; returns the number of the version."""
    from emotion_detection.experiments import registry, runs

    faces = np.zeros((1, 48, 48), np.uint8)
    with runs.start_run(name="another"):
        return registry.register(
            pretrained.MODEL,
            name,
            example=faces[..., np.newaxis],
            tags={},
        )
