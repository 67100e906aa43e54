"""Stills: every face read, alone or in company, by the same network as in training."""

import numpy as np
import pytest
from tests.support.paths import PRETRAINED

from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import InputError
from emotion_detection.evaluation.detector_crops import redetect, scene
from emotion_detection.inference.detector import HaarDetector, to_gray, to_model_input
from emotion_detection.inference.reading import UNSURE_BELOW, Box, Reading
from emotion_detection.inference.recognizer import Recognizer
from emotion_detection.synthetic.sample import draw_faces


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer.load()


@pytest.fixture(scope="module")
def frame(recognizer):
    """Three drawn faces of different sizes in an RGB frame."""
    images, _ = draw_faces(per_class=4, seed=1)
    found, _ = redetect(images, recognizer.detector, seed=0)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        gray, truth = scene(list(images[found][:3]), height=480, width=640, sides_px=(90, 170), rng=rng)
        boxes = recognizer.detector.detect(gray)
        if len(boxes) == 3 and all(max(box.overlap(one) for one in truth) > 0.4 for box in boxes):
            return np.repeat(gray[..., np.newaxis], 3, axis=2)
    raise AssertionError("no scene in which all three drawn faces are found")


def test_every_face_gets_a_reading(recognizer, frame):
    readings = recognizer.recognize(frame)
    assert len(readings) == 3
    assert [reading.box.left for reading in readings] == sorted(reading.box.left for reading in readings)
    for reading in readings:
        assert reading.probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert reading.emotion == EMOTIONS[reading.probabilities.argmax()]
        assert reading.confidence == pytest.approx(reading.probabilities.max())
        assert reading.track is None


def test_a_face_is_read_the_same_alone_and_in_company(recognizer, frame):
    gray = to_gray(frame)
    together = recognizer.recognize(frame)
    for reading in together:
        (exclusive_store,) = recognizer.read(gray, [reading.box])
        np.testing.assert_allclose(exclusive_store.probabilities, reading.probabilities, atol=1e-6)


def test_a_reading_is_what_the_network_says_of_the_crop(recognizer, frame):
    readings = recognizer.recognize(frame)
    crops = to_model_input(to_gray(frame), [reading.box for reading in readings])
    told = recognizer.classifier.probabilities(crops)
    np.testing.assert_allclose([reading.probabilities for reading in readings], told, atol=1e-6)


def test_one_call_of_the_network_a_frame(recognizer, frame, monkeypatch):
    calls = []
    told = recognizer.classifier.probabilities

    def counted(faces):
        calls.append(len(faces))
        return told(faces)

    monkeypatch.setattr(recognizer.classifier, "probabilities", counted)
    recognizer.recognize(frame)
    assert calls == [3]


def test_the_largest_face_alone(recognizer, frame):
    one = Recognizer(recognizer.classifier, recognizer.detector, faces="largest").recognize(frame)
    every = recognizer.recognize(frame)
    assert [reading.box for reading in one] == [max((r.box for r in every), key=lambda box: box.width)]


def test_without_a_face_there_is_no_reading(recognizer):
    for shape in ((120, 160, 3), (1, 1, 3), (3, 1000, 3)):
        assert recognizer.recognize(np.full(shape, 100, np.uint8)) == []


def test_unsure_is_below_the_threshold():
    def unsure(top):
        rest = (1 - top) / 6
        return Reading(Box(0, 0, 1, 1), np.array([top] + [rest] * 6, np.float32)).unsure

    assert unsure(UNSURE_BELOW - 0.01)
    assert not unsure(UNSURE_BELOW + 0.01)


def test_a_model_is_loaded_from_a_path(frame, tmp_path):
    shipped = PRETRAINED / "model.onnx"
    other = Recognizer.load(shipped, detector=HaarDetector(), faces="largest")
    assert len(other.recognize(frame)) == 1
    with pytest.raises(InputError, match=r"gone\.onnx"):
        Recognizer.load(tmp_path / "gone.onnx")
