"""Facial expression recognition. Public names are imported on first use: this import takes milliseconds."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emotion_detection.decoding.images import read_image
    from emotion_detection.emotions import EMOTIONS
    from emotion_detection.inference.face_tracker import FaceTracker
    from emotion_detection.inference.reading import Box, Reading
    from emotion_detection.inference.recognizer import Recognizer

    __version__: str

# onnxruntime looks up a telemetry host unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["EMOTIONS", "Box", "FaceTracker", "Reading", "Recognizer", "__version__", "read_image"]

_MODULES = {
    "EMOTIONS": "emotions",
    "Box": "inference.reading",
    "FaceTracker": "inference.face_tracker",
    "Reading": "inference.reading",
    "Recognizer": "inference.recognizer",
    "read_image": "decoding.images",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("emotion-detection")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
