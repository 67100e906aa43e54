"""The cascade's windows are verified, windows of one face are merged, and the scan adapts to the picture's size."""

import itertools

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


def test_windows_that_the_verifier_refuses_are_dropped(scene, monkeypatch):
    detector = HaarDetector()
    monkeypatch.setattr(detector, "_verifier", lambda _, windows: np.full(len(windows), -20.0))
    assert detector.detect(scene) == []


def test_first_stages_accept_the_windows_that_all_stages_accept_and_more(scene):
    complete = cv2.CascadeClassifier(cv2.data.haarcascades + haar.CASCADE)
    cascades = (haar.load_cascade(), haar.load_cascade(20), complete)
    shipped, all_stages, original = ({tuple(box) for box in c.detectMultiScale(scene, 1.2, 0)} for c in cascades)
    assert all_stages < shipped
    assert all_stages == original


def test_one_window_is_enough_if_the_verifier_is_sure():
    window = np.array([[10, 20, 30, 30]], float)
    assert haar.merge(window, np.array([haar.ENOUGH - 0.1])).tolist() == []
    assert haar.merge(window, np.array([haar.ENOUGH + 0.1])).tolist() == window.tolist()


def test_many_unsure_windows_are_a_face():
    windows = np.repeat([[10.0, 20, 30, 30]], 30, axis=0)
    assert len(haar.merge(windows, np.full(30, haar.ENOUGH - 1))) == 1
    assert len(haar.merge(windows[:1], np.full(1, haar.ENOUGH - 1))) == 0


def test_box_of_a_face_is_the_mean_of_its_windows_by_probability():
    windows = np.array([[100, 100, 50, 50], [110, 100, 50, 50], [104, 104, 50, 50], [300, 100, 40, 40]], float)
    (first, second) = haar.merge(windows, np.array([30.0, 30.0, haar.MAYBE - 1, 20.0]))
    assert first.tolist() == pytest.approx([105, 100, 50, 50])
    assert second.tolist() == [300, 100, 40, 40]


def test_boxes_of_two_faces_do_not_overlap():
    rng = np.random.default_rng(0)
    windows = np.hstack([rng.integers(0, 100, (60, 2)), np.repeat(rng.integers(20, 60, (60, 1)), 2, axis=1)])
    boxes = haar.merge(windows.astype(float), rng.uniform(2, 8, 60))
    pairs = itertools.combinations([Box(*box) for box in boxes.tolist()], 2)
    assert len(boxes) > 1
    assert max(one.overlap(other) for one, other in pairs) < haar.SAME_PLACE


def test_boxes_do_not_depend_on_the_order_of_the_windows(scene, monkeypatch):
    detector = HaarDetector()
    found = detector._cascade().detectMultiScale(scene, 1.2, 0)

    class Cascade:
        windows = found

        def detectMultiScale(self, *_, **__):  # noqa: N802
            return self.windows

    monkeypatch.setattr(detector, "_cascade", Cascade)
    monkeypatch.setattr(detector, "_verifier", lambda _, windows: np.full(len(windows), haar.ENOUGH))
    boxes = detector.detect(scene)
    monkeypatch.setattr(Cascade, "windows", found[::-1])
    assert detector.detect(scene) == boxes != []


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

    monkeypatch.setattr(haar, "load_cascade", Cascade)
    detector = HaarDetector()
    for smallest_px in (0, 40, 80):
        detector.detect(np.zeros((480, 640), np.uint8), smallest_px=smallest_px)
    detector.detect(np.zeros((3000, 4000), np.uint8))
    assert sizes == [((360, 480), (20, 20)), ((240, 320), (20, 20)), ((120, 160), (20, 20)), ((1000, 1333), (20, 20))]


@pytest.fixture
def scans(monkeypatch):
    """The shapes of the scanned pictures."""
    shapes = []

    class Cascade:
        def detectMultiScale(self, image, **_):  # noqa: N802
            shapes.append(image.shape)
            return ()

    monkeypatch.setattr(haar, "load_cascade", Cascade)
    return shapes


@pytest.mark.parametrize("shape", [(360, 16_000), (360, 120_000), (60_000, 400)])
def test_pixels_of_a_scanned_strip_are_bounded(scans, shape):
    HaarDetector().detect(np.zeros(shape, np.uint8))
    ((height, width),) = scans
    assert height * width == pytest.approx(haar.MOST_SCAN_PIXELS, rel=0.02)
    assert width / height == pytest.approx(shape[1] / shape[0], rel=0.02)


@pytest.mark.parametrize(
    ("shape", "scanned"),
    [
        ((360, 1080), (360, 1080)),
        ((1000, 3000), (750, 2250)),
        ((2000, 6000), (1000, 3000)),
        ((3000, 4000), (1000, 1333)),
    ],
)
def test_panorama_is_scaled_by_its_shorter_side_alone(scans, shape, scanned):
    detector = HaarDetector()
    detector.detect(np.zeros(shape, np.uint8))
    detector.detect(np.zeros(shape[::-1], np.uint8))
    assert scans == [scanned, scanned[::-1]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 10_000_000), (30, 2_000_000), (19, 640)])
def test_strip_without_room_for_a_face_is_not_scanned(scans, shape):
    assert HaarDetector().detect(np.zeros(shape, np.uint8)) == []
    assert scans == []


def test_windows_are_verified_in_batches(scene, monkeypatch):
    windows = np.array([[left, 40, 90, 90] for left in range(10)], float)
    verifier = haar.Verifier()
    together = verifier(scene, windows)
    sizes, describe = [], haar.describe
    monkeypatch.setattr(haar, "describe", lambda images: sizes.append(len(images)) or describe(images))  # type: ignore[func-returns-value]
    monkeypatch.setattr(haar, "VERIFIER_BATCH", 4)
    assert verifier(scene, windows) == pytest.approx(together, rel=1e-4)
    assert sizes == [4, 4, 2]


def test_only_the_best_windows_are_merged(monkeypatch):
    monkeypatch.setattr(haar, "MOST_WINDOWS", 3)
    windows = np.array([[100 * column, 0, 30, 30] for column in range(6)], float)
    boxes = haar.merge(windows, np.array([10.0, 20, 30, 12, 40, 11]))
    assert boxes[:, 0].tolist() == [400, 200, 100]


def test_merging_compares_a_bounded_number_of_windows(monkeypatch):
    compared, overlaps = [], haar._overlaps
    monkeypatch.setattr(haar, "_overlaps", lambda box, others: compared.append(len(others)) or overlaps(box, others))  # type: ignore[func-returns-value]
    monkeypatch.setattr(haar, "MOST_WINDOWS", 50)
    windows = np.array([[100 * column, 0, 30, 30] for column in range(2000)], float)
    assert len(haar.merge(windows, np.full(2000, 10.0))) == 50
    assert sum(compared) == 50 * 51 / 2 + 50 * 49 / 2
