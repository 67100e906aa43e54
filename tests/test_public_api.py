"""`import emotion_detection` is fast, and its public names are imported on first use."""

import subprocess
import sys

import pytest

import emotion_detection

LIBRARIES = {"numpy", "cv2", "onnxruntime", "matplotlib", "mlflow", "keras", "tensorflow"}


def test_import_loads_no_library():
    code = "import sys, emotion_detection; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "emotion_detection" in loaded
    assert not LIBRARIES & set(loaded)


def test_public_names_are_stable():
    names = ["EMOTIONS", "Box", "FaceTracker", "Reading", "Recognizer", "__version__", "read_image"]
    assert sorted(emotion_detection.__all__) == sorted(names)


@pytest.mark.parametrize("name", emotion_detection.__all__)
def test_public_name_resolves(name):
    assert getattr(emotion_detection, name) is not None
    assert name in dir(emotion_detection)


def test_names_can_be_imported_together():
    from emotion_detection import EMOTIONS, Box, FaceTracker, Reading, Recognizer, __version__, read_image

    assert len(EMOTIONS) == 7
    assert Box(0, 0, 1, 1).width == 1
    assert {FaceTracker.__name__, Reading.__name__, Recognizer.__name__} == {"FaceTracker", "Reading", "Recognizer"}
    assert callable(read_image)
    assert __version__.count(".") == 2


def test_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Follower'"):
        _ = emotion_detection.Follower
