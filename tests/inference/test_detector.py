"""Detectors and the crop: faces are found where they are, and cut out as the network knows them."""

from threading import Thread

import cv2
import numpy as np
import pytest

from emotion_detection.errors import InputError
from emotion_detection.evaluation.detector_crops import background, paste, redetect, scene
from emotion_detection.inference.detector import HaarDetector, YunetDetector, to_gray, to_model_input
from emotion_detection.inference.reading import Box
from emotion_detection.synthetic.sample import draw_faces


@pytest.fixture(scope="module")
def detector():
    return HaarDetector()


@pytest.fixture(scope="module")
def known(detector):
    """Drawn faces that the detector finds when nothing else is there."""
    images, _ = draw_faces(per_class=4, seed=1)
    found, _ = redetect(images, detector, seed=0)
    assert found.sum() >= 6
    return images[found]


def test_overlap_is_intersection_over_union():
    box = Box(0, 0, 10, 10)
    assert box.overlap(box) == 1
    assert box.overlap(Box(5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert box.overlap(Box(10, 0, 10, 10)) == box.overlap(Box(30, 30, 5, 5)) == 0


@pytest.mark.parametrize(("height", "width"), [(480, 640), (720, 1280)])
def test_faces_are_found_where_they_were_pasted(detector, known, height, width):
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(3):
        picture, truth = scene(known[:3], height=height, width=width, sides_px=(90, 160), rng=rng)
        boxes = detector.detect(picture)
        found += sum(any(box.overlap(one) > 0.4 for box in boxes) for one in truth)
    assert found >= 6


def test_nothing_is_found_in_nothing(detector):
    assert detector.detect(np.full((240, 320), 127, np.uint8)) == []
    assert detector.detect(np.zeros((1, 1), np.uint8)) == []


def test_bounds_keep_other_sizes_out(detector, known):
    canvas = background(400, 400, np.random.default_rng(2))
    paste(canvas, known[0], Box(130, 130, 140, 140))
    assert len(detector.detect(canvas, smallest_px=90, largest_px=220)) == 1
    assert detector.detect(canvas, largest_px=60) == []


def test_threads_share_a_detector(detector, known):
    pictures = [
        scene([face], height=240, width=320, sides_px=(80, 110), rng=np.random.default_rng(1))[0] for face in known
    ]
    exclusive_store = [detector.detect(picture) for picture in pictures]
    together: dict[int, list[list[Box]]] = {}

    def work(number):
        together[number] = [detector.detect(picture) for picture in pictures]

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(together.values()) == [exclusive_store] * 4


def test_a_crop_of_the_whole_face_is_the_face():
    face = draw_faces(per_class=1, seed=0)[0][0]
    np.testing.assert_array_equal(to_model_input(face, [Box(0, 0, 48, 48)], margin=0)[0], face)


def test_a_crop_does_not_depend_on_the_other_boxes():
    gray = background(200, 300, np.random.default_rng(0))
    boxes = [Box(10, 20, 60, 60), Box(100, 90, 50, 70), Box(250, 150, 90, 90)]
    together = to_model_input(gray, boxes)
    assert together.shape == (3, 48, 48)
    for box, face in zip(boxes, together, strict=True):
        np.testing.assert_array_equal(to_model_input(gray, [box])[0], face)
    assert to_model_input(gray, []).shape == (0, 48, 48)


def test_over_the_border_the_border_is_repeated():
    gray = np.tile(np.arange(100, dtype=np.uint8), (100, 1))
    (face,) = to_model_input(gray, [Box(-48, 0, 96, 96)], margin=0)
    assert (face[:, :23] == 0).all()
    assert face[0, -1] > 40
    assert to_model_input(gray, [Box(500, 500, 40, 40)], margin=0)[0].min() == 99


def test_a_wide_box_gives_a_square_crop_about_its_centre():
    gray = np.zeros((100, 100), np.uint8)
    gray[50, 50] = 255
    (face,) = to_model_input(gray, [Box(26, 38, 48, 24)], margin=0)
    assert np.unravel_index(face.argmax(), face.shape) == (24, 24)


def test_gray_is_opencvs():
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_gray(frame), cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))


@pytest.mark.parametrize("frame", [np.zeros((5, 7), np.uint8), np.zeros((5, 7, 4), np.uint8), np.zeros((5, 7, 3))])
def test_what_is_no_frame_is_refused(frame):
    with pytest.raises(ValueError, match=r"a frame is uint8 \(height, width, 3\) in RGB"):
        to_gray(frame)


def test_a_missing_or_wrong_yunet_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"gone\.onnx is not there"):
        YunetDetector(tmp_path / "gone.onnx")
    wrong = tmp_path / "wrong.onnx"
    wrong.write_text("no model")
    with pytest.raises(InputError, match=r"wrong\.onnx cannot be loaded as a YuNet model"):
        YunetDetector(wrong)
