"""A Haar cascade of OpenCV (Viola and Jones 2001) proposes windows, and a second classifier verifies them."""

import math
from functools import cache
from pathlib import Path
from threading import local
from xml.etree import ElementTree

import cv2
import numpy as np
from cv2.data import haarcascades
from numpy.typing import NDArray

from emotion_detection.arrays import Gray, Images
from emotion_detection.inference.reading import Box

# Chosen with benchmarks/detection.py on val. A still's scan costs no more than the usual one (default cascade, 1.3, 5)
# at full size.
CASCADE = "haarcascade_frontalface_alt2.xml"
STAGES = 14  # of 20. The last ones refuse many faces; the verifier refuses other windows more reliably.
SCALE_FACTOR = 1.28
SCAN_PX = 360  # the shorter side of a scaled still
SCAN_SHARE = 0.75  # of the shorter side of a larger still, so that small faces of large photographs are found
LARGEST_SCAN_PX = 1000
# The pixels of a scaled picture. Only one that is more than three times as wide as high, or the reverse, can have more.
MOST_SCAN_PIXELS = 3_200_000
SMALLEST_PX = 20  # of a face in the scaled picture
SAME_FACE = 0.4  # overlap of two windows of one face
SAME_PLACE = 0.2  # overlap of two boxes, of which one is wrong
# The cascade finds most faces in several windows. Each factor of e in their number counts as much evidence for a face.
EVIDENCE = 1.5
MAYBE = -1.0  # the log odds of a window that can count
MOST_WINDOWS = 4096  # that are merged, the best ones: several hundred faces. Merging takes the square of their number.
ENOUGH = 6.5  # the sum of the best window's log odds and the evidence of the number of windows
VERIFIER = Path(__file__).with_name("face_verifier.npz")
VERIFIER_PX = 32  # of a window
VERIFIER_BATCH = 4096  # windows in one call of the verifier, to bound its memory
SHADES_PX = 16  # of a window as the verifier sees its shades
GRADIENTS = cv2.HOGDescriptor((VERIFIER_PX, VERIFIER_PX), (16, 16), (8, 8), (8, 8), 9)  # the last is for directions

Windows = NDArray[np.float64]  # (n, 4): left, top, width, height
Scores = NDArray[np.float64]  # (n,): log odds that a window is a face


class HaarDetector:
    """Finds frontal faces."""

    # The change of the box's side before cropping, the best one of benchmarks/crop_margin.py on val.
    margin = -0.04
    scan_every_s = 0.3  # of a video: a scan takes as long as following more than 50 faces

    def __init__(self) -> None:
        self._threads = local()  # a cascade reuses internal buffers, so each thread has its own
        self._verifier = Verifier()
        self._cascade()  # loading it takes longer than a scan

    def detect(self, gray: Gray, *, smallest_px: int = 0, largest_px: int = 0) -> list[Box]:
        """Return the boxes of the faces. `smallest_px` also sets how far the picture is scaled down."""
        scale = _scale(gray.shape, smallest_px)
        if round(min(gray.shape) * scale) < SMALLEST_PX:
            return []  # no face fits, and OpenCV cannot scale a side to less than a pixel
        small = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else gray
        smallest, largest = max(round(smallest_px * scale), SMALLEST_PX), round(largest_px * scale)
        found = self._cascade().detectMultiScale(
            small,
            scaleFactor=SCALE_FACTOR,
            minNeighbors=0,
            minSize=(smallest, smallest),
            maxSize=(largest, largest),
        )
        # OpenCV's threads return the windows in any order.
        windows = np.array(sorted(map(tuple, found)), np.float64).reshape(-1, 4)
        return [Box(*map(round, box)) for box in (merge(windows, self._verifier(small, windows)) / scale).tolist()]

    def _cascade(self) -> cv2.CascadeClassifier:
        if not hasattr(self._threads, "cascade"):
            self._threads.cascade = load_cascade()
        cascade: cv2.CascadeClassifier = self._threads.cascade
        return cascade


def load_cascade(stages: int = STAGES) -> cv2.CascadeClassifier:
    """The first stages of the cascade."""
    storage = cv2.FileStorage(_first_stages(stages), cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
    cascade = cv2.CascadeClassifier()
    cascade.read(storage.getFirstTopLevelNode())
    return cascade


@cache
def _first_stages(count: int) -> str:
    """The XML of the cascade without its last stages."""
    document = ElementTree.parse(haarcascades + CASCADE).getroot()
    for stages in document.iter("stages"):
        stages[:] = stages[:count]
    for number in document.iter("stageNum"):
        number.text = str(count)
    return '<?xml version="1.0"?>' + ElementTree.tostring(document, encoding="unicode")  # OpenCV needs the first line


def merge(windows: Windows, scores: Scores) -> Windows:
    """The boxes f64 (faces, 4) of the faces, the most certain first.

    Windows in the place of the best one are the same face. Its box is their mean, weighted by their probabilities.
    Only the best MOST_WINDOWS windows count.
    """
    faces: list[tuple[float, Windows]] = []
    windows, scores = windows[scores > MAYBE], scores[scores > MAYBE]
    kept = np.sort(np.argsort(-scores, kind="stable")[:MOST_WINDOWS])
    windows, scores = windows[kept], scores[kept]
    while len(windows):
        best = scores.argmax()
        overlaps = _overlaps(windows[best], windows)
        same = overlaps >= SAME_FACE
        weights = 1 / (1 + np.exp(-scores[same]))
        score = scores[best] + EVIDENCE * np.log(weights.sum())
        if score > ENOUGH:
            faces.append((score, weights @ windows[same] / weights.sum()))
        elsewhere = overlaps < SAME_PLACE
        windows, scores = windows[elsewhere], scores[elsewhere]
    best_boxes = np.empty((0, 4))
    for _, box in sorted(faces, key=lambda face: -face[0]):
        if (_overlaps(box, best_boxes) < SAME_PLACE).all():  # means can overlap again
            best_boxes = np.vstack([best_boxes, box])
    return best_boxes


def _overlaps(box: Windows, others: Windows) -> NDArray[np.float64]:
    """The intersection over union of a box f64 (4,) with others, f64 (n,)."""
    corner, size = box[:2], box[2:]
    ends = np.minimum(corner + size, others[:, :2] + others[:, 2:])
    common = np.maximum(ends - np.maximum(corner, others[:, :2]), 0).prod(axis=1)
    overlaps: NDArray[np.float64] = common / (size.prod() + others[:, 2:].prod(axis=1) - common)
    return overlaps


class Verifier:
    """A network with one hidden layer that tells windows of faces from others, by benchmarks/face_verifier.py."""

    def __init__(self) -> None:
        with np.load(VERIFIER) as arrays:
            self._hidden, self._hidden_bias = arrays["hidden"], arrays["hidden_bias"]
            self._output, self._output_bias = arrays["output"], arrays["output_bias"]

    def __call__(self, gray: Gray, windows: Windows) -> Scores:
        """The log odds f64 (n,) that the windows, which are inside the picture, are faces."""
        scores = np.empty(len(windows))
        for start in range(0, len(windows), VERIFIER_BATCH):
            batch = slice(start, start + VERIFIER_BATCH)
            hidden = np.maximum(describe(patches(gray, windows[batch])) @ self._hidden + self._hidden_bias, 0)
            scores[batch] = hidden @ self._output + self._output_bias
        return scores


def patches(gray: Gray, windows: Windows) -> Images:
    """Cut out windows inside the picture and scale them, u8 (n, 32, 32)."""
    cut = np.empty((len(windows), VERIFIER_PX, VERIFIER_PX), np.uint8)
    for patch, (left, top, width, height) in zip(cut, windows.astype(int).tolist(), strict=True):
        window = gray[top : top + height, left : left + width]
        cv2.resize(window, patch.shape, dst=patch, interpolation=cv2.INTER_AREA)
    return cut


def describe(images: Images) -> NDArray[np.float32]:
    """Histograms of oriented gradients (Dalal and Triggs 2005) and shades of windows u8 (n, 32, 32), f32 (n, 580)."""
    count = GRADIENTS.getDescriptorSize()
    features = np.empty((len(images), count + SHADES_PX**2), np.float32)
    for row, image in zip(features, images, strict=True):
        equalized = cv2.equalizeHist(image)
        row[:count] = np.ravel(GRADIENTS.compute(equalized))
        shades = cv2.resize(equalized, (SHADES_PX, SHADES_PX), interpolation=cv2.INTER_AREA)
        row[count:] = shades.ravel() / 255.0 - 0.5
    return features


def _scale(shape: tuple[int, ...], smallest_px: int) -> float:
    """The factor by which a picture of this height and width is scaled down."""
    shorter, longer = sorted(shape)
    largest = SMALLEST_PX / smallest_px if smallest_px else 1.0
    scan_px = min(max(SCAN_PX, SCAN_SHARE * shorter), LARGEST_SCAN_PX)
    fewer_pixels = math.sqrt(MOST_SCAN_PIXELS / max(shorter * longer, 1))
    return min(scan_px / max(shorter, 1), fewer_pixels, largest, 1.0)
