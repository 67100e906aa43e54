"""Faces in images are detected, cropped and classified independently of each other."""

import io
import sys

import numpy as np
import pytest
from PIL import Image
from tests.support.paths import PRETRAINED

from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import MediaError, ModelError
from emotion_detection.evaluation.detector_crops import draw_scene
from emotion_detection.inference.detector import HaarDetector, to_gray, to_model_input
from emotion_detection.inference.recognizer import FaceCrops, Recognizer, to_frame


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
    boxes = [reading.box for reading in readings]
    crops = to_model_input(to_gray(frame), boxes, margin=recognizer.detector.margin)
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


def same_readings(readings, expected):
    assert [reading.box for reading in readings] == [reading.box for reading in expected]
    for reading, other in zip(readings, expected, strict=True):
        np.testing.assert_allclose(reading.probabilities, other.probabilities, atol=1e-6)
    return True


def test_path_bytes_and_pil_picture_are_read_like_an_array(recognizer, frame, tmp_path):
    expected, path = recognizer.recognize(frame), tmp_path / "frame.png"
    assert len(expected) == 3
    Image.fromarray(frame).save(path)
    with Image.open(path) as lazy:
        for picture in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), Image.fromarray(frame), lazy):
            assert same_readings(recognizer.recognize(picture), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "LA", "YCbCr", "I;16", "I", "F", "RGBX", "HSV"])
def test_pil_picture_of_any_mode_keeps_its_brightness(frame, mode):
    gray = frame[..., 0]
    if mode == "I;16":
        picture = Image.fromarray(gray.astype(np.uint16) * 257)
    elif mode in ("I", "F", "P"):
        picture = Image.fromarray(gray).convert(mode)
    else:
        picture = Image.fromarray(frame).convert(mode)
    assert picture.mode == mode
    np.testing.assert_allclose(to_gray(to_frame(picture)).astype(int), gray, atol=8)


def test_pil_picture_is_upright_by_its_exif_orientation(recognizer, frame):
    turned, exif = Image.fromarray(np.ascontiguousarray(np.rot90(frame))), Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    turned.save(stream, "PNG", exif=exif)
    with Image.open(stream) as picture:
        assert same_readings(recognizer.recognize(picture), recognizer.recognize(frame))


@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        (None, TypeError, "not NoneType"),
        (3, TypeError, "not int"),
        ([[1, 2]], TypeError, "not list"),
        (np.zeros((0, 10, 3), np.uint8), ValueError, r"not uint8 \(0, 10, 3\)"),
        (np.zeros((10, 10, 3), np.float32), ValueError, r"not float32 \(10, 10, 3\)"),
        (np.zeros((10, 10), np.uint8), ValueError, r"not uint8 \(10, 10\)"),
        (np.zeros((10, 10, 4), np.uint8), ValueError, r"not uint8 \(10, 10, 4\)"),
        (np.zeros(3, object), ValueError, "not object"),
        (Image.new("RGB", (0, 4)), ValueError, "is empty"),
        (b"", MediaError, "is empty"),
        (b"no picture", MediaError, "not a readable image"),
        ("absent.png", MediaError, "absent.png"),
    ],
)
def test_anything_else_is_refused_with_what_it_is(recognizer, picture, error, message):
    with pytest.raises(error, match=message):
        recognizer.recognize(picture)


def test_damaged_file_behind_a_pil_picture_is_refused(recognizer, frame, tmp_path):
    Image.fromarray(frame).save(tmp_path / "half.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "half.jpg").read_bytes()[:3000])
    with Image.open(tmp_path / "half.jpg") as lazy, pytest.raises(MediaError, match=r"half\.jpg is damaged"):
        recognizer.recognize(lazy)


def test_crop_is_read_as_it_is(recognizer, drawn_faces):
    crops = Recognizer(recognizer.classifier, FaceCrops())
    for face in drawn_faces[:3]:
        (reading,) = crops.recognize(np.repeat(face[..., np.newaxis], 3, axis=2))
        expected = recognizer.classifier.probabilities(face[np.newaxis])[0]
        np.testing.assert_allclose(reading.probabilities, expected, atol=1e-6)


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
