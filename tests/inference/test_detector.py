"""Detectors find pasted faces, and the crop is what the network was trained on."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from emotion_detection.errors import ModelError
from emotion_detection.evaluation.detector_crops import detect_pasted_faces, draw_background, draw_scene, paste_face
from emotion_detection.inference.detector import HaarDetector, load_detector, to_gray, to_model_input
from emotion_detection.inference.reading import Box


@pytest.fixture(scope="module")
def detector():
    return HaarDetector()


def test_every_drawn_face_is_detected(detector, drawn_faces):
    detected, _ = detect_pasted_faces(drawn_faces, detector, seed=0)
    assert detected.all()


@pytest.mark.parametrize(("height", "width"), [(480, 640), (720, 1280)])
def test_faces_are_detected_in_their_places(detector, drawn_faces, height, width):
    rng = np.random.default_rng(0)
    detected = 0
    for _ in range(3):
        image, true_boxes = draw_scene(drawn_faces[:3], height=height, width=width, sides_px=(90, 160), rng=rng)
        boxes = detector.detect(image)
        detected += sum(any(box.overlap(true_box) > 0.4 for box in boxes) for true_box in true_boxes)
    assert detected >= 6


def test_empty_image_has_no_faces(detector):
    assert detector.detect(np.full((240, 320), 127, np.uint8)) == []
    assert detector.detect(np.zeros((1, 1), np.uint8)) == []


def test_bounds_exclude_other_sizes(detector, drawn_faces):
    canvas = draw_background(400, 400, np.random.default_rng(2))
    paste_face(canvas, drawn_faces[0], Box(130, 130, 140, 140))
    assert len(detector.detect(canvas, smallest_px=90, largest_px=220)) == 1
    assert detector.detect(canvas, largest_px=60) == []


def test_detector_is_thread_safe(detector, drawn_faces):
    rng = np.random.default_rng(1)
    images = [draw_scene([face], height=120, width=160, sides_px=(45, 55), rng=rng)[0] for face in drawn_faces[:4]]
    expected = [detector.detect(image) for image in images]
    assert any(expected)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: [detector.detect(image) for image in images], range(8)))
    assert results == [expected] * 8


def test_crop_without_margin_is_the_face(drawn_faces):
    np.testing.assert_array_equal(to_model_input(drawn_faces[0], [Box(0, 0, 48, 48)], margin=0)[0], drawn_faces[0])


def test_crop_does_not_depend_on_other_boxes():
    gray = draw_background(200, 300, np.random.default_rng(0))
    boxes = [Box(10, 20, 60, 60), Box(100, 90, 50, 70), Box(250, 150, 90, 90)]
    together = to_model_input(gray, boxes)
    assert together.shape == (3, 48, 48)
    for box, face in zip(boxes, together, strict=True):
        np.testing.assert_array_equal(to_model_input(gray, [box])[0], face)
    assert to_model_input(gray, []).shape == (0, 48, 48)


def test_border_is_repeated_outside_the_image():
    gray = np.tile(np.arange(100, dtype=np.uint8), (100, 1))
    (face,) = to_model_input(gray, [Box(-48, 0, 96, 96)], margin=0)
    assert (face[:, :23] == 0).all()
    assert face[0, -1] > 40
    assert to_model_input(gray, [Box(500, 500, 40, 40)], margin=0)[0].min() == 99


def test_wide_box_gives_a_square_crop_around_its_center():
    gray = np.zeros((100, 100), np.uint8)
    gray[50, 50] = 255
    (face,) = to_model_input(gray, [Box(26, 38, 48, 24)], margin=0)
    assert np.unravel_index(face.argmax(), face.shape) == (24, 24)


def test_gray_is_computed_by_opencv():
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_gray(frame), cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((5, 7), np.uint8),
        np.zeros((5, 7, 4), np.uint8),
        np.zeros((5, 7, 3)),
        np.zeros((0, 7, 3), np.uint8),
        None,
        "photo.jpg",
    ],
)
def test_other_arrays_are_rejected(frame):
    with pytest.raises(ValueError, match=r"a frame must be a uint8 array \(height, width, 3\) in RGB, not"):
        to_gray(frame)


def test_detectors_are_loaded_by_name_or_path(tmp_path):
    assert isinstance(load_detector("haar"), HaarDetector)
    with pytest.raises(ModelError, match=r"absent\.onnx does not exist: use haar, yunet or the path of"):
        load_detector(tmp_path / "absent.onnx")
