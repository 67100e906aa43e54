"""Detect faces in a frame and crop them to the input of the network."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Protocol

import cv2
import numpy as np

from emotion_detection.arrays import Frame, Gray, Images
from emotion_detection.emotions import IMAGE_SIZE
from emotion_detection.errors import ModelError
from emotion_detection.inference.reading import Box

# On an image scaled to SCAN_PX, these settings find more faces than the usual ones (default cascade, 1.3, 5) at full
# size, with no more false detections and in less than half the time (benchmarks/live.py).
CASCADE = "haarcascade_frontalface_alt2.xml"
SCALE_FACTOR = 1.15
NEIGHBORS = 4
SCAN_PX = 320  # the shorter side
SMALLEST_PX = 24  # of a face in the scaled image
# The change of the box's side before cropping, from the curve of benchmarks/crop_margin.py on val.
MARGIN = -0.08
YUNET_SCORE = 0.7


class FaceDetector(Protocol):
    """Finds faces. Must be thread-safe."""

    def detect(self, gray: Gray, *, smallest_px: int = 0, largest_px: int = 0) -> list[Box]:
        """Return the boxes of the faces.

        The bounds of a face's side save time, and a detector may ignore them; 0 means no bound.
        """
        ...


class HaarDetector:
    """OpenCV's cascade of frontal faces (Viola & Jones 2001), loaded once."""

    def __init__(self) -> None:
        self._cascade = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADE)
        self._lock = Lock()  # a cascade reuses internal buffers

    def detect(self, gray: Gray, *, smallest_px: int = 0, largest_px: int = 0) -> list[Box]:
        scale = min(SCAN_PX / max(min(gray.shape), 1), 1)
        if scale < 1:
            gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        smallest, largest = max(round(smallest_px * scale), SMALLEST_PX), round(largest_px * scale)
        with self._lock:
            boxes = self._cascade.detectMultiScale(
                gray,
                scaleFactor=SCALE_FACTOR,
                minNeighbors=NEIGHBORS,
                minSize=(smallest, smallest),
                maxSize=(largest, largest),
            )
        return [Box(*(round(side / scale) for side in box)) for box in boxes]


class YunetDetector:
    """OpenCV's YuNet (Wu et al. 2023), from a face_detection_yunet_*.onnx file that the user provides."""

    def __init__(self, path: Path) -> None:
        """Raises ModelError if the file does not exist or is not a YuNet model."""
        if not path.is_file():
            raise ModelError(
                f"{path} does not exist: download face_detection_yunet_2023mar.onnx from OpenCV's model zoo"
            )
        try:
            self._network = cv2.FaceDetectorYN.create(str(path), "", (320, 320), YUNET_SCORE)
        except cv2.error as error:
            raise ModelError(f"{path} cannot be loaded as a YuNet model: {' '.join(str(error).split())}") from error
        self._lock = Lock()

    def detect(self, gray: Gray, *, smallest_px: int = 0, largest_px: int = 0) -> list[Box]:  # noqa: ARG002
        with self._lock:
            self._network.setInputSize(gray.shape[::-1])
            faces = self._network.detect(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))[1]
        return [] if faces is None else [Box(*map(round, row[:4].tolist())) for row in faces]


def to_gray(frame_rgb: Frame) -> Gray:
    """Convert RGB to gray. Raises ValueError for anything but a uint8 array (height, width, 3) with pixels in it."""
    if not isinstance(frame_rgb, np.ndarray):
        raise ValueError(f"a frame must be a uint8 array (height, width, 3) in RGB, not {type(frame_rgb).__name__}")
    if frame_rgb.dtype != np.uint8 or frame_rgb.ndim != 3 or frame_rgb.shape[2] != 3 or not frame_rgb.size:
        form = f"{frame_rgb.dtype} {frame_rgb.shape}"
        raise ValueError(f"a frame must be a uint8 array (height, width, 3) in RGB, not {form}")
    return cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2GRAY)


def to_model_input(gray: Gray, boxes: Sequence[Box], *, margin: float = MARGIN) -> Images:
    """Crop a face for each box. This is the only path from an image to the network.

    A crop is a square around the center of the box; its side is the longer side of the box plus the margin. Beyond the
    image, the border pixels are repeated. The crop is scaled to 48x48, down by area averaging, as in FER-2013.
    """
    faces = np.empty((len(boxes), IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    for face, box in zip(faces, boxes, strict=True):
        crop = _square_crop(gray, box, margin)
        interpolation = cv2.INTER_LINEAR if len(crop) < IMAGE_SIZE else cv2.INTER_AREA
        cv2.resize(crop, (IMAGE_SIZE, IMAGE_SIZE), dst=face, interpolation=interpolation)
    return faces


def _square_crop(gray: Gray, box: Box, margin: float) -> Gray:
    side = max(round(max(box.width, box.height) * (1 + margin)), 1)
    left, top = (round(middle - side / 2) for middle in box.center)
    height, width = gray.shape
    inside = gray[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    if inside.shape == (side, side):
        return inside
    rows, columns = (
        np.clip(np.arange(start, start + side), 0, end - 1) for start, end in ((top, height), (left, width))
    )
    return gray[np.ix_(rows, columns)]
