"""Pictures and camera films of drawn faces that the detector finds, so that tests need no photograph of a person."""

import io
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_detection.arrays import Gray, Images
from emotion_detection.evaluation.detector_crops import draw_background, paste_face
from emotion_detection.inference.reading import Box
from emotion_detection.synthetic.sample import draw_faces

PLACES = {  # number of people -> left, top and side of each face in px
    1: [(240, 130, 170)],
    2: [(90, 140, 150), (370, 150, 150)],
    3: [(40, 160, 130), (250, 120, 140), (470, 170, 120)],
}
CHOSEN = (4, 9, 16)  # drawn faces that the detector finds easily and that look different
ORIENTATION, ROTATED = 274, 6  # the EXIF tag, and its value for "rotate by 90 degrees clockwise"


@cache
def _faces() -> Images:
    return draw_faces(per_class=3, seed=2)[0][list(CHOSEN)]


@cache
def _background() -> Gray:
    return cv2.GaussianBlur(draw_background(480, 640, np.random.default_rng(1)), (0, 0), 6)


def draw_people(people: int, phase: float = 0.0) -> Gray:
    """A picture u8 (480,640) of 1 to 3 people; phase 0..1 is their place in a swaying movement."""
    canvas: NDArray[np.uint8] = _background().copy()
    for number, (left, top, side) in enumerate(PLACES[people]):
        angle = 2 * np.pi * phase + number
        box = Box(left + round(12 * np.sin(angle)), top + round(8 * np.cos(angle)), side, side)
        paste_face(canvas, _faces()[number], box)
    return canvas


def jpeg_frames(people: int, *, count: int = 60) -> list[bytes]:
    """The frames of a camera, as JPEG files."""
    return [cv2.imencode(".jpg", draw_people(people, number / count))[1].tobytes() for number in range(count)]


def write_camera(path: Path, people: int) -> Path:
    """A film of concatenated JPEGs, which Chromium repeats as its camera."""
    path.write_bytes(b"".join(jpeg_frames(people)))
    return path


def write_film(path: Path, *, count: int) -> Path:
    """A video of `count` frames with two drawn people."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (640, 480))
    for number in range(count):
        writer.write(cv2.cvtColor(draw_people(2, number / count), cv2.COLOR_GRAY2BGR))
    writer.release()
    return path


def picture_file(form: str, *, people: int) -> bytes:
    """A file with drawn people; form is color, gray, rgba, 16-bit or rotated (upright by its EXIF tag)."""
    gray = draw_people(people)
    if form == "16-bit":
        return cv2.imencode(".png", gray.astype(np.uint16) * 257)[1].tobytes()
    if form == "gray":
        return cv2.imencode(".png", gray)[1].tobytes()
    if form == "rgba":
        return cv2.imencode(".png", np.dstack([gray, gray, gray, np.full_like(gray, 255)]))[1].tobytes()
    if form == "rotated":
        exif, stream = Image.Exif(), io.BytesIO()
        exif[ORIENTATION] = ROTATED
        Image.fromarray(np.rot90(gray)).save(stream, "JPEG", exif=exif)
        return stream.getvalue()
    return cv2.imencode(".jpg", cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))[1].tobytes()
