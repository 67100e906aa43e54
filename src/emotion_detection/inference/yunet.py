"""YuNet, a small neural network that finds faces (Wu, Peng and Yu 2023), from a file or from OpenCV's model zoo."""

import hashlib
import urllib.request
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
import platformdirs
from numpy.typing import NDArray

from emotion_detection.arrays import Gray
from emotion_detection.atomic import atomic_output
from emotion_detection.errors import ModelError
from emotion_detection.inference.reading import Box

FILE = "face_detection_yunet_2023mar.onnx"
URL = (
    "https://media.githubusercontent.com/media/opencv/opencv_zoo/82b38c8f98e7b52aa171400f3e4c722352d0669f"
    f"/models/face_detection_yunet/{FILE}"
)
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
LARGEST_FILE = 10_000_000  # bytes; the published files have 0.2 MB
TIMEOUT_S = 20
SCORE = 0.7
# The shorter side of a scaled picture. The network finds faces of about 10 to 300 px. Multiples of 32 px fit it best.
COARSE_PX = 320
LARGE_PICTURE = 1000  # px of the shorter side: a still gets a second scan, for small faces
FINE_SHARE = 0.6  # of the shorter side: the second scan; both together take a quarter of a Haar scan at full size
FINE_PX = 1600  # the most for the second scan
VIDEO_PX = 256
SMALLEST_PX = 10  # of a face and of a scaled picture
# OpenCV 4.14 pads an input to multiples of 32 px with black. If a padded side has 32 px, its network reads memory that
# nobody has written, and finds faces by chance. So inputs are padded to the next multiple.
SMALLEST_INPUT_PX = 64
LONGEST = 4  # times the shorter side: a narrow picture is scaled to fewer pixels
SAME_FACE = 0.3  # overlap of the boxes of one face in both scans
SMALL_FACE = 0.2  # of the picture's shorter side: the largest face that the second scan is for


class YunetDetector:
    """Finds faces with OpenCV's implementation of YuNet."""

    margin = -0.14  # the best one of benchmarks/crop_margin.py --detector yunet on val
    scan_every_s = 0.08  # of a video: a scan takes as long as following 15 faces

    def __init__(self, path: Path) -> None:
        """Load a face_detection_yunet_*.onnx file. Raises ModelError if it does not exist or is not a YuNet model."""
        if not path.is_file():
            raise ModelError(f"{path} does not exist: use haar, yunet or the path of {FILE} of OpenCV's model zoo")
        if path.stat().st_size > LARGEST_FILE:
            raise ModelError(f"{path} is larger than {LARGEST_FILE // 10**6} MB, so it is not YuNet: use {FILE}")
        weights = np.fromfile(path, np.uint8)
        try:
            self._network = cv2.FaceDetectorYN.create("onnx", weights, np.empty(0, np.uint8), (320, 320), SCORE)
            self._network.detect(np.zeros((320, 320, 3), np.uint8))  # a model with other outputs fails here
        except cv2.error as error:
            raise ModelError(f"{path} cannot be loaded as a YuNet model: use {FILE} of OpenCV's model zoo") from error
        self._lock = Lock()  # the network keeps the size of its input

    def detect(self, gray: Gray, *, smallest_px: int = 0, largest_px: int = 0) -> list[Box]:  # noqa: ARG002
        """Return the boxes of the faces. With a bound, the picture is scanned once, as a frame of a video."""
        shorter = min(gray.shape)
        if smallest_px:
            return self._scan(gray, VIDEO_PX)
        boxes = self._scan(gray, COARSE_PX)
        if shorter < LARGE_PICTURE:
            return boxes
        for box in self._scan(gray, min(round(FINE_SHARE * shorter), FINE_PX)):
            is_small = max(box.width, box.height) <= SMALL_FACE * shorter
            if is_small and all(box.overlap(known) < SAME_FACE for known in boxes):
                boxes.append(box)
        return boxes

    def _scan(self, gray: Gray, scan_px: int) -> list[Box]:
        """Search the picture, scaled so that its shorter side has scan_px."""
        height, width = gray.shape
        scale = min(scan_px / max(min(height, width), 1), LONGEST * scan_px / max(height, width, 1))
        size = (round(width * scale), round(height * scale))
        if min(size) < SMALLEST_PX:
            return []
        small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        below, beside = (max(SMALLEST_INPUT_PX - side, 0) for side in small.shape)
        small = cv2.copyMakeBorder(small, 0, below, 0, beside, cv2.BORDER_CONSTANT)
        with self._lock:
            self._network.setInputSize(small.shape[::-1])
            faces = self._network.detect(cv2.cvtColor(small, cv2.COLOR_GRAY2BGR))[1]
        return [] if faces is None else _boxes(faces / scale, width, height)


def _boxes(faces: NDArray[np.float32], width: int, height: int) -> list[Box]:
    """Round the boxes f32 (n, 4 or more). In pictures without structure the network also returns impossible boxes."""
    boxes = []
    for left, top, wide, high in faces[:, :4].tolist():
        inside = 0 <= left + wide / 2 <= width and 0 <= top + high / 2 <= height
        if inside and 1 <= wide <= 2 * width and 1 <= high <= 2 * height:
            boxes.append(Box(round(left), round(top), round(wide), round(high)))
    return boxes


def yunet_file() -> Path:
    """The published YuNet file in the user's cache folder. Downloads it on the first call.

    Raises ModelError if the download fails or the file differs from the published one.
    """
    path = platformdirs.user_cache_path("emotion-detection") / FILE
    try:
        if path.is_file() and _digest(path.read_bytes()) == SHA256:
            return path
        content = _download()
        with atomic_output(path) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:  # the errors of urllib are OSErrors too
        reason = getattr(error, "reason", None) or error.strerror or error
        raise ModelError(
            f"YuNet cannot be downloaded from {URL} to {path} ({reason}): connect to the internet and repeat the "
            f"command once, or pass the path of {FILE} instead of yunet"
        ) from error
    return path


def _download() -> bytes:
    with urllib.request.urlopen(URL, timeout=TIMEOUT_S) as response:
        content: bytes = response.read(LARGEST_FILE)
    if _digest(content) != SHA256:
        raise ModelError(
            f"the file at {URL} is not the published YuNet model (its SHA-256 differs): try again in another network, "
            f"or pass the path of {FILE} instead of yunet"
        )
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
