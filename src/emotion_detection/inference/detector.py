"""Frames -> boxes of faces -> faces as the network knows them: detectors and the one crop."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_detection.emotions import IMAGE_SIZE
from emotion_detection.errors import InputError
from emotion_detection.inference.reading import Box

Gray = NDArray[np.uint8]
Frame = NDArray[np.uint8]

# Of the cascades and settings tried, this one on a picture shrunk to SCAN_PX finds more faces than the usual (default,
# 1.3, 5) at full size, no more that are none, and takes less than half of the time (benchmarks/live.py).
CASCADE = "haarcascade_frontalface_alt2.xml"
SCALE_FACTOR = 1.15
NEIGHBOURS = 4
SCAN_PX = 320  # of the shorter side
SMALLEST_PX = 24  # a face in the shrunk picture
# How much wider than the detector's box the crop is; from the curve of benchmarks/crop_margin.py on val.
MARGIN = -0.08
YUNET_SCORE = 0.7


class FaceDetector(Protocol):
    """Finds faces; safe to call from several threads."""

    def detect(self, gray: Gray, *, smallest_px: int = 0, largest_px: int = 0) -> list[Box]:
        """Boxes of the faces in gray u8 (h,w); 0: no bound. A detector may ignore the bounds: they only save time."""
        ...


class HaarDetector:
    """OpenCV's frontal face cascade (Viola & Jones 2001), loaded once."""

    def __init__(self) -> None:
        self._cascade = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADE)
        self._lock = Lock()  # a cascade works in buffers of its own

    def detect(self, gray: Gray, *, smallest_px: int = 0, largest_px: int = 0) -> list[Box]:
        shrunk = min(SCAN_PX / max(min(gray.shape), 1), 1)
        if shrunk < 1:
            gray = cv2.resize(gray, None, fx=shrunk, fy=shrunk, interpolation=cv2.INTER_AREA)
        smallest, largest = max(round(smallest_px * shrunk), SMALLEST_PX), round(largest_px * shrunk)
        with self._lock:
            found = self._cascade.detectMultiScale(
                gray,
                scaleFactor=SCALE_FACTOR,
                minNeighbors=NEIGHBOURS,
                minSize=(smallest, smallest),
                maxSize=(largest, largest),
            )
        return [Box(*(round(side / shrunk) for side in box)) for box in found]


class YunetDetector:
    """OpenCV's YuNet (Wu et al. 2023), from a model file face_detection_yunet_*.onnx that the user brings."""

    def __init__(self, path: Path) -> None:
        """InputError if there is no such file or it is no YuNet model."""
        if not path.is_file():
            raise InputError(f"{path} is not there: get face_detection_yunet_2023mar.onnx from OpenCV's model zoo")
        try:
            self._network = cv2.FaceDetectorYN.create(str(path), "", (320, 320), YUNET_SCORE)
        except cv2.error as error:
            raise InputError(f"{path} cannot be loaded as a YuNet model: {' '.join(str(error).split())}") from error
        self._lock = Lock()

    def detect(self, gray: Gray, *, smallest_px: int = 0, largest_px: int = 0) -> list[Box]:  # noqa: ARG002
        with self._lock:
            self._network.setInputSize(gray.shape[::-1])
            found = self._network.detect(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))[1]
        return [] if found is None else [Box(*map(round, row[:4].tolist())) for row in found]


def to_gray(frame_rgb: Frame) -> Gray:
    """Frame u8 (h,w,3) -> gray u8 (h,w). ValueError for anything else."""
    if frame_rgb.dtype != np.uint8 or frame_rgb.ndim != 3 or frame_rgb.shape[2] != 3:
        raise ValueError(f"a frame is uint8 (height, width, 3) in RGB, not {frame_rgb.dtype} {frame_rgb.shape}")
    return cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2GRAY)


def to_model_input(gray: Gray, boxes: Sequence[Box], *, margin: float = MARGIN) -> Gray:
    """Gray u8 (h,w) and its boxes -> faces u8 (n,48,48); the only way from pixels to the network.

    Each crop is a square about the box's centre, its longer side plus the margin; what lies beyond the border repeats
    the border. Shrunk by areas, as the pictures of FER-2013 look.
    """
    faces = np.empty((len(boxes), IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    for face, box in zip(faces, boxes, strict=True):
        square = _square(gray, box, margin)
        enlarges = len(square) < IMAGE_SIZE
        cv2.resize(
            square, (IMAGE_SIZE, IMAGE_SIZE), dst=face, interpolation=cv2.INTER_LINEAR if enlarges else cv2.INTER_AREA
        )
    return faces


def _square(gray: Gray, box: Box, margin: float) -> Gray:
    side = max(round(max(box.width, box.height) * (1 + margin)), 1)
    left, top = (round(middle - side / 2) for middle in box.centre)
    height, width = gray.shape
    inside = gray[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    if inside.shape == (side, side):
        return inside
    rows, columns = (
        np.clip(np.arange(start, start + side), 0, end - 1) for start, end in ((top, height), (left, width))
    )
    return gray[np.ix_(rows, columns)]
