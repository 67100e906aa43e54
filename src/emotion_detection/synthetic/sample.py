"""Draws labelled faces: the built-in sample, test data and the demo's examples, free of anyone's likeness."""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_detection.atomic import atomic_output
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE, SAMPLE_COMMENT
from emotion_detection.synthetic.render import Field, expose, express, noise, over, photograph, portrait

FOLDERS = {"Training": "train", "PublicTest": "test", "PrivateTest": "test"}
# Copies planted in the sample, since FER-2013 has hundreds: (emotion, usage) whose first picture is copied,
# then where its bytes stand again. The last three contradict the label, too.
COPIES = (
    (("happy", "PublicTest"), ("happy", "Training")),
    (("sad", "PublicTest"), ("sad", "Training")),
    (("neutral", "PrivateTest"), ("neutral", "Training")),
    (("angry", "PrivateTest"), ("angry", "PublicTest")),
    (("surprise", "PrivateTest"), ("fear", "Training")),
    (("sad", "Training"), ("angry", "Training")),
    (("fear", "Training"), ("surprise", "Training")),
)


def draw_face(emotion: str, rng: np.random.Generator, *, size_px: int = IMAGE_SIZE) -> NDArray[np.uint8]:
    """A gray face u8 (size_px,size_px), framed as FER-2013 frames its faces."""
    picture, cover = portrait(express(emotion, rng), rng, 2 * size_px)
    wall = rng.uniform(0.1, 0.9) + 0.12 * noise(rng, 4, 2 * size_px)
    return photograph(over(wall, cover, picture), size_px, rng)


def draw_faces(per_class: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """images u8 (7*per_class,48,48) and labels u8 (7*per_class,), class by class in the order of EMOTIONS."""
    labels = np.repeat(np.arange(len(EMOTIONS), dtype=np.uint8), per_class)
    numbers = np.tile(np.arange(per_class), len(EMOTIONS))
    faces = [_numbered(int(label), int(number), seed) for label, number in zip(labels, numbers, strict=True)]
    return np.stack(faces), labels


def _numbered(label: int, number: int, seed: int) -> NDArray[np.uint8]:
    """One face by its number alone, so that any of them can be drawn again without the others."""
    return draw_face(EMOTIONS[label], np.random.default_rng((seed, label, number)))


def draw_frame(
    emotions: Sequence[str], rng: np.random.Generator, *, width_px: int = 640, height_px: int = 480
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """A camera frame of people side by side, RGB u8 (h,w,3), and boxes i32 (n,4): left, top, width, height.

    A box is the square OpenCV's frontal Haar cascade tends to report; boxes follow the order of emotions.
    """
    room, boxes = _room(rng, width_px, height_px), []
    column_px = width_px // max(len(emotions), 1)
    for column, emotion in enumerate(emotions):
        side_px = int(min(column_px, height_px) * rng.uniform(0.8, 1.0))
        left = column * column_px + int(rng.integers(0, column_px - side_px + 1))
        top = int(rng.integers(0, height_px - side_px + 1))
        shape = express(emotion, rng, zoom=1.65, shift_x=0.0, shift_y=0.15)
        _stand(room, *portrait(shape, rng, side_px), left, top)
        unit_px = side_px / 2 / shape.zoom
        reach_px = 1.14 * unit_px  # a head's half-width is 1, its middle at 0
        corner = (left + side_px / 2 - reach_px, top + side_px / 2 - shape.shift_y * unit_px - reach_px)
        boxes.append((*corner, 2 * reach_px, 2 * reach_px))
    gray = expose(cv2.GaussianBlur(room, (0, 0), 0.7), rng)[..., None]
    tint = np.array([1.0, 0.9, 0.82])  # skin, wood and lamplight are warm
    return (gray * tint).astype(np.uint8), np.rint(boxes).astype(np.int32).reshape(-1, 4)


def _room(rng: np.random.Generator, width_px: int, height_px: int) -> Field:
    """A dim wall with a few plain rectangles (shelves, windows, posters), gray 0..1 (h,w)."""
    side_px = max(width_px, height_px)
    room = (rng.uniform(0.3, 0.6) + 0.05 * noise(rng, 4, side_px))[:height_px, :width_px].copy()
    for _ in range(int(rng.integers(2, 6))):
        near, far = rng.integers(0, (width_px, height_px), (2, 2)).tolist()
        cv2.rectangle(room, near, far, float(rng.uniform(0.15, 0.75)), cv2.FILLED)
    return room


def _stand(room: Field, picture: Field, cover: Field, left: int, top: int) -> None:
    """Paste a portrait into the room, its last row drawn on down to the floor as the body."""
    place = room[top:, left : left + picture.shape[1]]
    below = ((0, len(place) - len(picture)), (0, 0))
    place[:] = over(place, np.pad(cover, below, mode="edge"), np.pad(picture, below, mode="edge"))


def write_sample(path: Path, *, per_class: int = 200, seed: int) -> None:
    """Write a zip in the layout of Kaggle's msambare/fer2013: train|test/<emotion>/<Usage>_<number>.jpg.

    70 % Training, 15 % PublicTest, 15 % PrivateTest, plus COPIES. The same arguments give the same bytes with
    the same OpenCV (its JPEG codec decides). Numbers start anew in each emotion: base names are not unique.
    """
    if per_class < 6:
        raise ValueError(f"per_class is {per_class}; at least 6 are needed to fill the three splits")
    with (
        atomic_output(path) as written,
        zipfile.ZipFile(written, "w") as archive,
    ):  # stored: JPEGs do not deflate, and zlib versions differ
        archive.comment = SAMPLE_COMMENT
        for name, jpeg in _pictures(per_class, seed):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # else it tells which system wrote the file
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, jpeg)


def _pictures(per_class: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Name and JPEG bytes of each picture in the sample."""
    firsts: dict[tuple[str, str], bytes] = {}
    for label, emotion in enumerate(EMOTIONS):
        for number in range(per_class):
            usage = _usage(number, per_class)
            jpeg = _jpeg(_numbered(label, number, seed))
            firsts.setdefault((emotion, usage), jpeg)
            yield _name(emotion, usage, number), jpeg
    for copy, (source, (emotion, usage)) in enumerate(COPIES):
        yield _name(emotion, usage, per_class + copy), firsts[source]


def _jpeg(face: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def _usage(number: int, per_class: int) -> str:
    if number < round(0.7 * per_class):
        return "Training"
    return "PublicTest" if number < round(0.85 * per_class) else "PrivateTest"


def _name(emotion: str, usage: str, number: int) -> str:
    return f"{FOLDERS[usage]}/{emotion}/{usage}_{number}.jpg"
