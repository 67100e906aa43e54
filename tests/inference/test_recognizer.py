"""Faces in images are detected, cropped and classified independently of each other."""

import sys

import numpy as np
import pytest
from tests.support.paths import PRETRAINED

from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import ModelError
from emotion_detection.evaluation.detector_crops import draw_scene
from emotion_detection.inference.detector import HaarDetector, to_gray, to_model_input
from emotion_detection.inference.recognizer import Recognizer


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer.load()


@pytest.fixture(scope="module")
def frame(recognizer, drawn_faces):
    """An RGB frame with three drawn faces of different sizes, all of which are detected."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        gray, true_boxes = draw_scene(drawn_faces[:3], height=480, width=640, sides_px=(90, 170), rng=rng)
        boxes = recognizer.detector.detect(gray)
        if len(boxes) == 3 and all(max(box.overlap(true_box) for true_box in true_boxes) > 0.4 for box in boxes):
            return np.repeat(gray[..., np.newaxis], 3, axis=2)
    raise AssertionError("no scene in which all three faces are detected")


def test_every_face_has_a_reading(recognizer, frame):
    readings = recognizer.recognize(frame)
    assert len(readings) == 3
    assert [reading.box.left for reading in readings] == sorted(reading.box.left for reading in readings)
    for reading in readings:
        assert reading.probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert reading.emotion == EMOTIONS[reading.probabilities.argmax()]
        assert reading.confidence == pytest.approx(reading.probabilities.max())
        assert reading.track is None


def test_reading_does_not_depend_on_other_faces(recognizer, frame):
    gray = to_gray(frame)
    for reading in recognizer.recognize(frame):
        (single,) = recognizer.read(gray, [reading.box])
        np.testing.assert_allclose(single.probabilities, reading.probabilities, atol=1e-6)


def test_reading_is_the_output_of_the_network_for_the_crop(recognizer, frame):
    readings = recognizer.recognize(frame)
    crops = to_model_input(to_gray(frame), [reading.box for reading in readings])
    expected = recognizer.classifier.probabilities(crops)
    np.testing.assert_allclose([reading.probabilities for reading in readings], expected, atol=1e-6)


def test_network_is_called_once_per_frame(recognizer, frame, monkeypatch):
    calls = []
    original = recognizer.classifier.probabilities

    def count_faces(faces):
        calls.append(len(faces))
        return original(faces)

    monkeypatch.setattr(recognizer.classifier, "probabilities", count_faces)
    recognizer.recognize(frame)
    assert calls == [3]


def test_only_the_largest_face_is_read(recognizer, frame):
    (largest,) = Recognizer(recognizer.classifier, recognizer.detector, faces="largest").recognize(frame)
    boxes = [reading.box for reading in recognizer.recognize(frame)]
    assert largest.box == max(boxes, key=lambda box: box.width)


def test_image_without_faces_has_no_readings(recognizer):
    for shape in ((120, 160, 3), (1, 1, 3), (3, 1000, 3)):
        assert recognizer.recognize(np.full(shape, 100, np.uint8)) == []


def test_model_is_loaded_from_a_path(frame, tmp_path):
    recognizer = Recognizer.load(PRETRAINED / "model.onnx", detector=HaarDetector(), faces="largest")
    assert len(recognizer.recognize(frame)) == 1
    with pytest.raises(ModelError, match=r"absent\.onnx"):
        Recognizer.load(tmp_path / "absent.onnx")


def test_missing_mlflow_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "emotion_detection.experiments.registry", raising=False)
    monkeypatch.delattr("emotion_detection.experiments.registry", raising=False)
    with pytest.raises(ModelError, match="models:/a@b needs the package mlflow: pip install mlflow"):
        Recognizer.load("models:/a@b")
