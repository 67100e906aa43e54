"""Faces pasted into larger pictures, where a detector has to find them again: a webcam that knows the truth."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from emotion_detection.inference.detector import MARGIN, FaceDetector, to_model_input
from emotion_detection.inference.reading import Box

Gray = NDArray[np.uint8]

SURROUNDING = 0.35  # of a face's side, each way: FER-2013's crops end at the chin and the ears
FOUND = 0.3  # overlap of a detector's box with the true one
REDISCOVERED_PX = (240, 320)
REDISCOVERED_SIDES_PX = (60, 130)  # a quarter to a half of the picture's height, as before a webcam
ROUGHNESS = 1.2  # exponent of the background's spectrum; photographs have about 1


def background(height: int, width: int, rng: np.random.Generator) -> Gray:
    """A picture u8 (h,w) of nothing, with the spectrum of a photograph (1/f; Field 1987)."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    phases = np.exp(2j * np.pi * rng.random(frequency.shape))
    picture = np.fft.irfft2(phases / frequency**ROUGHNESS, (height, width))
    spread = rng.uniform(20, 40) * (picture - picture.mean()) / picture.std()
    return np.clip(rng.uniform(80, 170) + spread, 0, 255).astype(np.uint8)


def paste(canvas: Gray, face: Gray, box: Box) -> None:
    """Put face u8 (48,48) at the box of canvas u8 (h,w), in place; its last pixels, repeated, fade into the canvas."""
    size = (box.width, box.height)
    enlarged = cv2.resize(face, size, interpolation=cv2.INTER_CUBIC)
    border = round(SURROUNDING * max(size))
    surrounded = cv2.copyMakeBorder(enlarged, *4 * (border,), cv2.BORDER_REPLICATE).astype(np.float32)
    soft = cv2.GaussianBlur(surrounded, (0, 0), border / 4)
    solid = np.zeros(surrounded.shape, np.float32)
    solid[border:-border, border:-border] = 1
    edge = np.clip(cv2.GaussianBlur(solid, (0, 0), border / 16) * 2, 0, 1)  # sharp inside the box, soft around it
    surrounded = edge * surrounded + (1 - edge) * soft
    fade = np.clip(cv2.GaussianBlur(solid, (0, 0), border / 2.5) * 2, 0, 1)
    top, left = box.top - border, box.left - border
    rows = slice(max(top, 0), min(top + len(surrounded), canvas.shape[0]))
    columns = slice(max(left, 0), min(left + surrounded.shape[1], canvas.shape[1]))
    inside = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    under = canvas[rows, columns]
    canvas[rows, columns] = fade[inside] * surrounded[inside] + (1 - fade[inside]) * under + 0.5


def place(count: int, *, height: int, width: int, sides_px: tuple[int, int], rng: np.random.Generator) -> list[Box]:
    """Boxes of `count` faces that do not touch each other or the border; ValueError if they cannot be placed."""
    boxes: list[Box] = []
    for _ in range(1000):
        if len(boxes) == count:
            return boxes
        side = int(rng.integers(sides_px[0], sides_px[1] + 1))
        gap = round(SURROUNDING * side)
        if side + 2 * gap >= min(height, width):
            continue
        left = int(rng.integers(gap, width - side - gap))
        top = int(rng.integers(gap, height - side - gap))
        wide = Box(left - gap, top - gap, side + 2 * gap, side + 2 * gap)
        if all(wide.overlap(box) == 0 for box in boxes):
            boxes.append(Box(left, top, side, side))
    raise ValueError(f"{count} faces of {sides_px} px do not fit into {width}x{height}")


def scene(
    faces: Sequence[Gray], *, height: int, width: int, sides_px: tuple[int, int], rng: np.random.Generator
) -> tuple[Gray, list[Box]]:
    """A picture u8 (h,w) with the faces somewhere in it, and where they are."""
    canvas = background(height, width, rng)
    boxes = place(len(faces), height=height, width=width, sides_px=sides_px, rng=rng)
    for face, box in zip(faces, boxes, strict=True):
        paste(canvas, face, box)
    return canvas, boxes


def redetect(
    faces: Gray, detector: FaceDetector, *, margins: Sequence[float] = (MARGIN,), seed: int
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Paste each of faces u8 (n,48,48) into a picture of its own and look for it there.

    Returns which were found, bool (n,), and their crops u8 (margins, found, 48, 48). Found is a box that overlaps the
    true one by 0.3; if there are several, the best.
    """
    rng = np.random.default_rng(seed)
    backgrounds = [background(*REDISCOVERED_PX, rng) for _ in range(16)]
    found = np.zeros(len(faces), bool)
    crops: list[list[Gray]] = [[] for _ in margins]
    for row, face in enumerate(tqdm(faces, "looking for pasted faces", leave=False, disable=None)):
        canvas = backgrounds[row % len(backgrounds)].copy()
        (truth,) = place(1, height=canvas.shape[0], width=canvas.shape[1], sides_px=REDISCOVERED_SIDES_PX, rng=rng)
        paste(canvas, face, truth)
        best = max(detector.detect(canvas), key=truth.overlap, default=None)
        if best is not None and truth.overlap(best) >= FOUND:
            found[row] = True
            for crop, margin in zip(crops, margins, strict=True):
                crop.append(to_model_input(canvas, [best], margin=margin)[0])
    return found, np.array(crops, np.uint8).reshape(len(margins), found.sum(), *faces.shape[1:])
