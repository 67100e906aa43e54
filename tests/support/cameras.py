"""Pictures and films of drawn faces that the detector finds: no person's picture is needed to test a camera."""

import io
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_detection.evaluation.detector_crops import background, paste
from emotion_detection.inference.reading import Box
from emotion_detection.synthetic.sample import draw_faces

PLACES = {
    1: [(240, 130, 170)],
    2: [(90, 140, 150), (370, 150, 150)],
    3: [(40, 160, 130), (250, 120, 140), (470, 170, 120)],
}
CHOSEN = (4, 9, 16)  # of the drawn faces: easily found, unlike each other
ORIENTATION = 274  # the EXIF tag; 6: to be turned by 90 degrees clockwise


@cache
def _parts() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    faces, _ = draw_faces(per_class=3, seed=2)
    empty = cv2.GaussianBlur(background(480, 640, np.random.default_rng(1)), (0, 0), 6)
    return faces[list(CHOSEN)], empty


def frame(people: int, turn: float = 0.0) -> NDArray[np.uint8]:
    """A picture u8 (480,640) of so many faces, swaying with the turn 0..1."""
    faces, empty = _parts()
    canvas = empty.copy()
    for number, (left, top, side) in enumerate(PLACES[people]):
        angle = 2 * np.pi * turn + number
        paste(canvas, faces[number], Box(left + round(12 * np.sin(angle)), top + round(8 * np.cos(angle)), side, side))
    return canvas


def camera(path: Path, people: int, *, count: int = 60) -> Path:
    """A film of concatenated JPEGs, which Chromium plays as its camera, over and over."""
    jpegs = (cv2.imencode(".jpg", frame(people, number / count))[1].tobytes() for number in range(count))
    path.write_bytes(b"".join(jpegs))
    return path


def picture(form: str, *, people: int) -> bytes:
    """A file of so many faces: color, gray, rgba, 16-bit or rotated (upright by its EXIF tag alone)."""
    gray = frame(people)
    if form == "16-bit":
        return cv2.imencode(".png", gray.astype(np.uint16) * 257)[1].tobytes()
    if form == "gray":
        return cv2.imencode(".png", gray)[1].tobytes()
    if form == "rgba":
        return cv2.imencode(".png", np.dstack([gray, gray, gray, np.full_like(gray, 255)]))[1].tobytes()
    if form == "rotated":
        exif, stream = Image.Exif(), io.BytesIO()
        exif[ORIENTATION] = 6
        Image.fromarray(np.rot90(gray)).save(stream, "JPEG", exif=exif)
        return stream.getvalue()
    return cv2.imencode(".jpg", cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))[1].tobytes()
