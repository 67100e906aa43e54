"""Draw labeled faces and camera frames, and write the built-in sample. No face is that of a real person."""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_detection.arrays import Frame, Gray, Images, Labels
from emotion_detection.atomic import atomic_output
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE, SAMPLE_COMMENT
from emotion_detection.synthetic.render import Field, composite, draw_portrait, expose, noise, photograph, random_shape

FOLDERS = {"Training": "train", "PublicTest": "test", "PrivateTest": "test"}
# The sample contains copies of images, as FER-2013 does: the first image of an (emotion, usage) is copied to another.
# The last three copies have another label than the original.
COPIES = (
    (("happy", "PublicTest"), ("happy", "Training")),
    (("sad", "PublicTest"), ("sad", "Training")),
    (("neutral", "PrivateTest"), ("neutral", "Training")),
    (("angry", "PrivateTest"), ("angry", "PublicTest")),
    (("surprise", "PrivateTest"), ("fear", "Training")),
    (("sad", "Training"), ("angry", "Training")),
    (("fear", "Training"), ("surprise", "Training")),
)


def draw_face(emotion: str, rng: np.random.Generator, *, size_px: int = IMAGE_SIZE) -> Gray:
    """Draw a gray face, u8 (size_px,size_px), cropped like the faces of FER-2013."""
    portrait, opacity = draw_portrait(random_shape(emotion, rng), rng, 2 * size_px)
    background = rng.uniform(0.1, 0.9) + 0.12 * noise(rng, 4, 2 * size_px)
    return photograph(composite(background, opacity, portrait), size_px, rng)


def draw_faces(per_class: int, seed: int) -> tuple[Images, Labels]:
    """Draw images u8 (7*per_class,48,48) with labels u8 (7*per_class,), sorted by label."""
    labels = np.repeat(np.arange(len(EMOTIONS), dtype=np.uint8), per_class)
    numbers = np.tile(np.arange(per_class), len(EMOTIONS))
    faces = [_draw_numbered(int(label), int(number), seed) for label, number in zip(labels, numbers, strict=True)]
    return np.stack(faces), labels


def _draw_numbered(label: int, number: int, seed: int) -> Gray:
    """Draw a face that depends only on the arguments, so that it can be drawn again without the others."""
    return draw_face(EMOTIONS[label], np.random.default_rng((seed, label, number)))


def draw_frame(
    emotions: Sequence[str], rng: np.random.Generator, *, width_px: int = 640, height_px: int = 480
) -> tuple[Frame, NDArray[np.int32]]:
    """Draw people side by side. Return an RGB frame u8 (h,w,3) and boxes i32 (n,4): left, top, width, height.

    A box approximates what OpenCV's frontal Haar cascade finds. The boxes have the order of `emotions`.
    """
    frame, boxes = _draw_background(rng, width_px, height_px), []
    column_px = width_px // max(len(emotions), 1)
    for column, emotion in enumerate(emotions):
        side_px = int(min(column_px, height_px) * rng.uniform(0.8, 1.0))
        left = column * column_px + int(rng.integers(0, column_px - side_px + 1))
        top = int(rng.integers(0, height_px - side_px + 1))
        shape = random_shape(emotion, rng, zoom=1.65, shift_x=0.0, shift_y=0.15)
        _paste(frame, *draw_portrait(shape, rng, side_px), left, top)
        unit_px = side_px / 2 / shape.zoom
        reach_px = 1.14 * unit_px  # in face units, a head is 2 wide and centered at 0
        corner = (left + side_px / 2 - reach_px, top + side_px / 2 - shape.shift_y * unit_px - reach_px)
        boxes.append((*corner, 2 * reach_px, 2 * reach_px))
    gray = expose(cv2.GaussianBlur(frame, (0, 0), 0.7), rng)[..., None]
    tint = np.array([1.0, 0.9, 0.82])  # warm colors, as indoors
    return (gray * tint).astype(np.uint8), np.rint(boxes).astype(np.int32).reshape(-1, 4)


def _draw_background(rng: np.random.Generator, width_px: int, height_px: int) -> Field:
    """A wall with a few rectangles, such as shelves or posters, gray 0..1 (h,w)."""
    side_px = max(width_px, height_px)
    wall = (rng.uniform(0.3, 0.6) + 0.05 * noise(rng, 4, side_px))[:height_px, :width_px].copy()
    for _ in range(int(rng.integers(2, 6))):
        start, end = rng.integers(0, (width_px, height_px), (2, 2)).tolist()
        cv2.rectangle(wall, start, end, float(rng.uniform(0.15, 0.75)), cv2.FILLED)
    return wall


def _paste(frame: Field, portrait: Field, opacity: Field, left: int, top: int) -> None:
    """Paste a portrait into the frame, and repeat its last row down to the lower edge as the body."""
    area = frame[top:, left : left + portrait.shape[1]]
    padding = ((0, len(area) - len(portrait)), (0, 0))
    area[:] = composite(area, np.pad(opacity, padding, mode="edge"), np.pad(portrait, padding, mode="edge"))


def write_sample(path: Path, *, per_class: int = 200, seed: int) -> None:
    """Write a zip file in the layout of Kaggle's msambare/fer2013: train|test/<emotion>/<Usage>_<number>.jpg.

    Each emotion has 70 % Training, 15 % PublicTest and 15 % PrivateTest images, and COPIES are added. The same
    arguments give the same bytes, unless another version of OpenCV has another JPEG codec. Each emotion is numbered
    from 0, so base names are not unique.
    """
    if per_class < 6:
        raise ValueError(f"per_class is {per_class}, but the three splits need at least 6")
    # Uncompressed: JPEG files cannot be compressed further, and versions of zlib give different bytes.
    with atomic_output(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.comment = SAMPLE_COMMENT
        for name, jpeg in _encoded_images(per_class, seed):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, jpeg)


def _encoded_images(per_class: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """The name and the JPEG bytes of each image in the sample."""
    first_images: dict[tuple[str, str], bytes] = {}
    for label, emotion in enumerate(EMOTIONS):
        for number in range(per_class):
            usage = _usage(number, per_class)
            jpeg = _jpeg(_draw_numbered(label, number, seed))
            first_images.setdefault((emotion, usage), jpeg)
            yield _name(emotion, usage, number), jpeg
    for copy, (source, (emotion, usage)) in enumerate(COPIES):
        yield _name(emotion, usage, per_class + copy), first_images[source]


def _jpeg(face: Gray) -> bytes:
    return cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def _usage(number: int, per_class: int) -> str:
    if number < round(0.7 * per_class):
        return "Training"
    return "PublicTest" if number < round(0.85 * per_class) else "PrivateTest"


def _name(emotion: str, usage: str, number: int) -> str:
    return f"{FOLDERS[usage]}/{emotion}/{usage}_{number}.jpg"
