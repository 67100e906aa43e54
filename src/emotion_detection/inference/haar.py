"""Haar cascades of OpenCV (Viola and Jones 2001), whose findings a second classifier verifies."""

import math
from pathlib import Path
from threading import local

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_detection.arrays import Gray
from emotion_detection.inference.reading import Box

# Chosen with benchmarks/detection.py on val. A still's scan costs no more than the usual one (default cascade, 1.3, 5)
# at full size.
CASCADE = "haarcascade_frontalface_alt2.xml"
SCALE_FACTOR = 1.2
SCAN_PX = 360  # the shorter side of a scaled still
SCAN_SHARE = 0.75  # of the shorter side of a larger still, so that small faces of large photographs are found
LARGEST_SCAN_PX = 1000
SMALLEST_PX = 20  # of a face in the scaled picture
SAME_FACE = 0.2  # relative difference of windows that are one face
SAME_PLACE = 0.2  # overlap of two boxes, of which one is wrong
# The cascade finds most faces in several windows. Each factor of e in their number counts as much evidence for a face.
EVIDENCE = 1.5
ENOUGH = 2.0  # the sum of the verifier's log odds and the evidence of the windows
VERIFIER = Path(__file__).with_name("face_verifier.npz")
VERIFIER_PX = 32  # of a face
BLOCK_PX, CELL_PX, DIRECTIONS = (16, 16), (8, 8), 9  # of its histograms of gradients


class HaarDetector:
    """Finds frontal faces."""

    # The change of the box's side before cropping, the best one of benchmarks/crop_margin.py on val.
    margin = -0.08
    scan_every_s = 0.3  # of a video: a scan takes as long as following more than 50 faces

    def __init__(self) -> None:
        self._threads = local()  # a cascade reuses internal buffers, so each thread has its own
        self._verifier = _Verifier()
        self._cascade()  # loading it takes longer than a scan

    def detect(self, gray: Gray, *, smallest_px: int = 0, largest_px: int = 0) -> list[Box]:
        """Return the boxes of the faces. `smallest_px` also sets how far the picture is scaled down."""
        scale = _scale(min(gray.shape), smallest_px)
        small = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else gray
        smallest, largest = max(round(smallest_px * scale), SMALLEST_PX), round(largest_px * scale)
        windows = self._cascade().detectMultiScale(
            small,
            scaleFactor=SCALE_FACTOR,
            minNeighbors=0,
            minSize=(smallest, smallest),
            maxSize=(largest, largest),
        )
        # OpenCV drops groups of one window, so each window counts twice here.
        groups, counts = cv2.groupRectangles([*windows, *windows], 1, SAME_FACE) if len(windows) else ((), ())
        boxes = [Box(*(round(side / scale) for side in group)) for group in groups]
        scored = [
            (self._verifier(gray, box) + EVIDENCE * math.log(count / 2), box)
            for box, count in zip(boxes, np.array(counts).ravel(), strict=True)
        ]
        return _best([(score, box) for score, box in scored if score > ENOUGH])

    def _cascade(self) -> cv2.CascadeClassifier:
        if not hasattr(self._threads, "cascade"):
            self._threads.cascade = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADE)
        cascade: cv2.CascadeClassifier = self._threads.cascade
        return cascade


def _best(scored: list[tuple[float, Box]]) -> list[Box]:
    """The boxes without those in the place of a better one."""
    best: list[Box] = []
    for _, box in sorted(scored, key=lambda pair: -pair[0]):
        if all(box.overlap(other) < SAME_PLACE for other in best):
            best.append(box)
    return best


class _Verifier:
    """A linear classifier of oriented gradients (Dalal and Triggs 2005), by benchmarks/face_verifier.py."""

    def __init__(self) -> None:
        with np.load(VERIFIER) as arrays:
            self._weights: NDArray[np.float32] = arrays["weights"]
            self._bias = float(arrays["bias"])

    def __call__(self, gray: Gray, box: Box) -> float:
        """The log odds that the box is a face."""
        return float(gradients(gray, box) @ self._weights) + self._bias


def gradients(gray: Gray, box: Box) -> NDArray[np.float32]:
    """Histograms of the oriented gradients of a box inside the picture, f32 (324,)."""
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    face = cv2.resize(gray[rows, columns], (VERIFIER_PX, VERIFIER_PX), interpolation=cv2.INTER_AREA)
    descriptor = cv2.HOGDescriptor((VERIFIER_PX, VERIFIER_PX), BLOCK_PX, CELL_PX, CELL_PX, DIRECTIONS)
    histograms: NDArray[np.float32] = np.asarray(descriptor.compute(cv2.equalizeHist(face)), np.float32).ravel()
    return histograms


def _scale(shorter: int, smallest_px: int) -> float:
    """The factor by which a picture is scaled down."""
    largest = SMALLEST_PX / smallest_px if smallest_px else 1.0
    scan_px = min(max(SCAN_PX, SCAN_SHARE * shorter), LARGEST_SCAN_PX)
    return min(scan_px / max(shorter, 1), largest, 1.0)
