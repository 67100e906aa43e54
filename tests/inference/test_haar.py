"""The cascade's findings are verified, and the scan adapts to the size of the picture."""

import cv2
import numpy as np
import pytest

from emotion_detection.evaluation.detector_crops import draw_background, paste_face
from emotion_detection.inference import haar
from emotion_detection.inference.haar import HaarDetector
from emotion_detection.inference.reading import Box


@pytest.fixture
def scene(drawn_faces):
    canvas = draw_background(180, 240, np.random.default_rng(2))
    paste_face(canvas, drawn_faces[0], Box(40, 40, 90, 90))
    return canvas


def test_each_face_has_one_box(scene):
    (box,) = HaarDetector().detect(scene)
    assert box.overlap(Box(40, 40, 90, 90)) > 0.4


def test_boxes_that_the_verifier_refuses_are_dropped(scene, monkeypatch):
    detector = HaarDetector()
    monkeypatch.setattr(detector, "_verifier", lambda *_: -20.0)
    assert detector.detect(scene) == []


def test_one_window_is_enough_if_the_verifier_is_sure(scene, monkeypatch):
    detector = HaarDetector()
    monkeypatch.setattr(haar, "EVIDENCE", 0.0)
    monkeypatch.setattr(detector, "_verifier", lambda *_: haar.ENOUGH)
    assert detector.detect(scene) == []
    monkeypatch.setattr(detector, "_verifier", lambda *_: haar.ENOUGH + 0.1)
    assert len(detector.detect(scene)) >= 1


def test_small_face_in_a_large_picture_is_found(drawn_faces):
    """Its side is 5 % of the picture's shorter side."""
    canvas = np.full((1200, 1600), 120, np.uint8)
    canvas[:400, :400] = draw_background(400, 400, np.random.default_rng(1))
    paste_face(canvas, drawn_faces[0], Box(200, 200, 60, 60))
    assert any(box.overlap(Box(200, 200, 60, 60)) > 0.4 for box in HaarDetector().detect(canvas))


def test_picture_is_scaled_no_larger_than_the_smallest_face_needs(monkeypatch):
    sizes = []

    class Cascade:
        def detectMultiScale(self, image, minSize, **_):  # noqa: N802, N803
            sizes.append((image.shape, minSize))
            return ()

    monkeypatch.setattr(cv2, "CascadeClassifier", lambda _: Cascade())
    detector = HaarDetector()
    for smallest_px in (0, 40, 80):
        detector.detect(np.zeros((480, 640), np.uint8), smallest_px=smallest_px)
    detector.detect(np.zeros((3000, 4000), np.uint8))
    assert sizes == [((360, 480), (20, 20)), ((240, 320), (20, 20)), ((120, 160), (20, 20)), ((1000, 1333), (20, 20))]
