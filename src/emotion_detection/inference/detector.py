"""Detect faces in a frame and crop them to the input of the network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from emotion_detection.arrays import Frame, Gray, Images
from emotion_detection.emotions import IMAGE_SIZE
from emotion_detection.inference.haar import HaarDetector
from emotion_detection.inference.reading import Box
from emotion_detection.inference.yunet import YunetDetector, yunet_file

__all__ = ["FaceDetector", "HaarDetector", "YunetDetector", "load_detector", "to_gray", "to_model_input"]

MARGIN = HaarDetector.margin


class FaceDetector(Protocol):
    """Finds faces. Must be thread-safe."""

    margin: float
    """The change of a box's side before cropping, as a fraction, for the best accuracy on val."""

    def detect(self, gray: Gray, *, smallest_px: int = 0, largest_px: int = 0) -> list[Box]:
        """Return the boxes of the faces.

        The bounds of a face's side save time, and a detector may return other faces too; 0 means no bound. Without a
        bound, a large picture is searched for small faces as well.
        """
        ...


def load_detector(name: str | Path) -> FaceDetector:
    """Load a detector: haar, yunet (downloaded once and cached), or the path of a YuNet file.

    Raises ModelError if the file cannot be downloaded, does not exist or is not a YuNet model.
    """
    if str(name) == "haar":
        return HaarDetector()
    return YunetDetector(yunet_file() if str(name) == "yunet" else Path(name))


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
