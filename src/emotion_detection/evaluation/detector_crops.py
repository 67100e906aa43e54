"""Simulate a webcam: paste faces into larger images at known positions, detect them there and crop them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from emotion_detection.arrays import Gray, Images, Labels
from emotion_detection.emotions import EMOTIONS
from emotion_detection.inference.detector import FaceDetector, to_model_input
from emotion_detection.inference.reading import Box

PADDING = 0.35  # added on each side of a face, as a fraction of its side: FER-2013's crops end at the chin and the ears
MIN_OVERLAP = 0.3  # intersection over union of a detected box with the true box
SCENE_SIZE_PX = (240, 320)  # height, width
FACE_SIDES_PX = (60, 130)  # a quarter to a half of the image's height, as in front of a webcam
SPECTRUM_EXPONENT = 1.2  # of the background; photographs have about 1
BACKGROUNDS = 16  # different ones; more would cost time
# The groups of `end_to_end_rows`: name -> upper limits of a condition, with the unit of its values.
SIZES = {"side up to 12 % of the picture's height": 0.12, "12 to 25 %": 0.25, "25 to 55 %": 0.55}
TURNS = {"turned by up to 5 degrees": 5, "5 to 15 degrees": 15, "15 to 30 degrees": 30}
LIGHTS = {"darkened to 25 to 50 % of the brightness": 0.5, "50 to 75 %": 0.75, "75 to 100 %": 1.0}


def draw_background(height: int, width: int, rng: np.random.Generator) -> Gray:
    """Draw noise with the spectrum of a photograph (1/f; Field 1987)."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    phases = np.exp(2j * np.pi * rng.random(frequency.shape))
    noise = np.fft.irfft2(phases / frequency**SPECTRUM_EXPONENT, (height, width))
    contrast = rng.uniform(20, 40) * (noise - noise.mean()) / noise.std()
    return np.clip(rng.uniform(80, 170) + contrast, 0, 255).astype(np.uint8)


def paste_face(canvas: Gray, face: Gray, box: Box) -> None:
    """Paste a 48x48 face into the box of the canvas, in place. Its repeated border pixels fade into the canvas."""
    size = (box.width, box.height)
    enlarged = cv2.resize(face, size, interpolation=cv2.INTER_CUBIC)
    border = round(PADDING * max(size))
    padded = cv2.copyMakeBorder(enlarged, *4 * (border,), cv2.BORDER_REPLICATE).astype(np.float32)
    blurred = cv2.GaussianBlur(padded, (0, 0), border / 4)
    mask = np.zeros(padded.shape, np.float32)
    mask[border:-border, border:-border] = 1
    edge = np.clip(cv2.GaussianBlur(mask, (0, 0), border / 16) * 2, 0, 1)  # sharp inside the box, blurred around it
    padded = edge * padded + (1 - edge) * blurred
    fade = np.clip(cv2.GaussianBlur(mask, (0, 0), border / 2.5) * 2, 0, 1)
    top, left = box.top - border, box.left - border
    rows = slice(max(top, 0), min(top + len(padded), canvas.shape[0]))
    columns = slice(max(left, 0), min(left + padded.shape[1], canvas.shape[1]))
    inside = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    below = canvas[rows, columns]
    canvas[rows, columns] = fade[inside] * padded[inside] + (1 - fade[inside]) * below + 0.5


def place_boxes(
    count: int, *, height: int, width: int, sides_px: tuple[int, int], rng: np.random.Generator
) -> list[Box]:
    """Random boxes of `count` faces that do not touch each other or the border.

    Raises ValueError if they do not fit.
    """
    boxes: list[Box] = []
    for _ in range(1000):
        if len(boxes) == count:
            return boxes
        side = int(rng.integers(sides_px[0], sides_px[1] + 1))
        gap = round(PADDING * side)
        if side + 2 * gap >= min(height, width):
            continue
        left = int(rng.integers(gap, width - side - gap))
        top = int(rng.integers(gap, height - side - gap))
        padded = Box(left - gap, top - gap, side + 2 * gap, side + 2 * gap)
        if all(padded.overlap(box) == 0 for box in boxes):
            boxes.append(Box(left, top, side, side))
    raise ValueError(f"{count} faces of {sides_px} px do not fit into {width}x{height}")


def draw_scene(
    faces: Sequence[Gray], *, height: int, width: int, sides_px: tuple[int, int], rng: np.random.Generator
) -> tuple[Gray, list[Box]]:
    """Draw an image with the faces at random positions, and return it with their boxes."""
    canvas = draw_background(height, width, rng)
    boxes = place_boxes(len(faces), height=height, width=width, sides_px=sides_px, rng=rng)
    for face, box in zip(faces, boxes, strict=True):
        paste_face(canvas, face, box)
    return canvas, boxes


@dataclass(frozen=True)
class Conditions:
    """How faces are shown: shares of the picture's height, turns in degrees, factors of brightness; each f64 (n,)."""

    sizes: NDArray[np.float64]
    turns: NDArray[np.float64]
    lights: NDArray[np.float64]

    @classmethod
    def draw(cls, count: int, seed: int) -> "Conditions":
        """Draw the conditions of `count` faces at random. Each group of a condition gets a third of the faces."""
        rng = np.random.default_rng(seed)
        edges = ([0.08, *SIZES.values()], [0, *TURNS.values()], [0.25, *LIGHTS.values()])
        sizes, turns, lights = (np.interp(rng.random(count) * 3, range(4), edge) for edge in edges)
        return cls(sizes, turns * rng.choice((-1, 1), count), lights)


def detect_in_conditions(
    faces: Images, conditions: Conditions, detector: FaceDetector, *, seed: int
) -> tuple[NDArray[np.bool_], Images]:
    """Paste each face, altered, into an image of its own and detect it there.

    Returns a mask of the detected faces, bool (n,), and their crops, uint8 (detected, 48, 48).
    """
    rng = np.random.default_rng(seed)
    height, width = SCENE_SIZE_PX
    backgrounds = [draw_background(height, width, rng) for _ in range(BACKGROUNDS)]
    detected, crops = np.zeros(len(faces), bool), []
    for row, face in enumerate(tqdm(faces, "detecting altered faces", leave=False, disable=None)):
        canvas = backgrounds[row % BACKGROUNDS].copy()
        side = round(conditions.sizes[row] * height)
        (true_box,) = place_boxes(1, height=height, width=width, sides_px=(side, side), rng=rng)
        paste_face(canvas, _turned(face, conditions.turns[row]), true_box)
        canvas = cv2.convertScaleAbs(canvas, alpha=conditions.lights[row])
        best = max(detector.detect(canvas), key=true_box.overlap, default=None)
        if best is not None and true_box.overlap(best) >= MIN_OVERLAP:
            detected[row] = True
            crops.append(to_model_input(canvas, [best], margin=detector.margin)[0])
    return detected, np.array(crops, np.uint8).reshape(-1, *faces.shape[1:])


def _turned(face: Gray, degrees: float) -> Gray:
    middle = ((face.shape[1] - 1) / 2, (face.shape[0] - 1) / 2)
    turn = cv2.getRotationMatrix2D(middle, degrees, 1)
    return cv2.warpAffine(face, turn, face.shape[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def end_to_end_rows(
    labels: Labels, conditions: Conditions, detected: NDArray[np.bool_], correct: NDArray[np.bool_]
) -> Iterator[dict[str, object]]:
    """The shares of faces that are found, and found and read right, in each group.

    `correct` bool (n,) is False for a face that is not detected.
    """
    yield _rates("all", np.ones(len(labels), bool), detected, correct)
    for values, groups in (
        (conditions.sizes, SIZES),
        (np.abs(conditions.turns), TURNS),
        (conditions.lights, LIGHTS),
    ):
        numbers = np.searchsorted(list(groups.values()), values)
        for number, name in enumerate(groups):
            yield _rates(name, numbers == number, detected, correct)
    for label, emotion in enumerate(EMOTIONS):
        yield _rates(emotion, labels == label, detected, correct)


def _rates(
    name: str, rows: NDArray[np.bool_], detected: NDArray[np.bool_], correct: NDArray[np.bool_]
) -> dict[str, object]:
    found, right = (f"{values[rows].mean():.3f}" if rows.any() else "" for values in (detected, correct))
    return {"group": name, "faces": int(rows.sum()), "found": found, "found_and_read_right": right}


def detect_pasted_faces(
    faces: Images, detector: FaceDetector, *, margins: Sequence[float] | None = None, seed: int
) -> tuple[NDArray[np.bool_], Images]:
    """Paste each face into an image of its own and detect it there.

    Returns a mask of the detected faces, bool (n,), and their crops, uint8 (margins, detected, 48, 48). A face is
    detected if a box overlaps its true box by MIN_OVERLAP; the box with the largest overlap is cropped, with the
    detector's own margin by default.
    """
    margins = margins or (detector.margin,)
    rng = np.random.default_rng(seed)
    backgrounds = [draw_background(*SCENE_SIZE_PX, rng) for _ in range(BACKGROUNDS)]
    detected = np.zeros(len(faces), bool)
    crops: list[list[Gray]] = [[] for _ in margins]
    for row, face in enumerate(tqdm(faces, "detecting pasted faces", leave=False, disable=None)):
        canvas = backgrounds[row % len(backgrounds)].copy()
        (true_box,) = place_boxes(1, height=canvas.shape[0], width=canvas.shape[1], sides_px=FACE_SIDES_PX, rng=rng)
        paste_face(canvas, face, true_box)
        best = max(detector.detect(canvas), key=true_box.overlap, default=None)
        if best is not None and true_box.overlap(best) >= MIN_OVERLAP:
            detected[row] = True
            for crop, margin in zip(crops, margins, strict=True):
                crop.append(to_model_input(canvas, [best], margin=margin)[0])
    return detected, np.array(crops, np.uint8).reshape(len(margins), detected.sum(), *faces.shape[1:])
