"""Read facial expressions. The names below are imported when they are first used, so importing this is fast."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emotion_detection.emotions import EMOTIONS
    from emotion_detection.inference.face_tracker import FaceTracker
    from emotion_detection.inference.media import read_image
    from emotion_detection.inference.reading import Box, Reading
    from emotion_detection.inference.recognizer import Recognizer

    __version__: str

__all__ = ["EMOTIONS", "Box", "FaceTracker", "Reading", "Recognizer", "__version__", "read_image"]

_MODULES = {
    "EMOTIONS": "emotions",
    "Box": "inference.reading",
    "FaceTracker": "inference.face_tracker",
    "Reading": "inference.reading",
    "Recognizer": "inference.recognizer",
    "read_image": "inference.media",
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
