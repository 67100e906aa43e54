"""Read frames from images, folders of images, videos and cameras. A frame is RGB u8 (height, width, 3)."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from emotion_detection.arrays import Frame
from emotion_detection.errors import MediaError
from emotion_detection.inference.image_header import header_pixels

SourceKind = Literal["image", "folder", "video", "camera"]

MAX_PIXELS = 1 << 27  # 134 megapixels or 400 MB as RGB: more than phones take (108 megapixels), less than the memory
MAX_BYTES = 1 << 30
# OpenCV cannot read HEIC. It is listed so that such a file is reported instead of skipped.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif")
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".3gp"),
    *(".ogv", ".flv", ".mjpeg", ".mjpg", ".h264", ".h265"),
)
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # the first one; older .mov files have no ftyp
CAMERA = "camera:"
DEFAULT_FPS = 25.0  # for files and cameras that do not report their rate


def source_kind(source: str) -> SourceKind:
    """Return what a source is: "camera:0", a folder, a video or an image. Raises MediaError for anything else."""
    if source.startswith(CAMERA):
        return "camera"
    path = Path(source)
    if path.is_dir():
        return "folder"
    if not path.exists():
        raise MediaError(f"{source} does not exist: use an image, a folder of images, a video or {CAMERA}0")
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return "video"
    # FFmpeg opens any text file as a video of a terminal, so a video is recognized by its suffix only.
    if path.suffix.lower() in IMAGE_SUFFIXES or cv2.haveImageReader(str(path)):
        return "image"
    raise MediaError(f"{source} is not a known image or video format: convert it to .jpg, .png or .mp4")


def find_images(folder: Path) -> Iterator[Path]:
    """Yield the image files in a folder and its subfolders by name. Skips hidden files and links to folders.

    Raises MediaError if there are no images.
    """
    count = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                count += 1
                yield Path(parent, name)
    if not count:
        raise MediaError(f"{folder} contains no images ({', '.join(IMAGE_SUFFIXES[:4])}, ...): use another folder")


def read_image(path: str | Path) -> Frame:
    """Read an image file as RGB u8 (height, width, 3). Raises MediaError as `decode_image` does."""
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise MediaError(f"{path} cannot be opened ({error.strerror}): check its name and permissions") from error
    if len(content) > MAX_BYTES:
        raise MediaError(f"{path} is larger than {MAX_BYTES >> 30} GiB: scale the image down")
    return decode_image(content, str(path))


def decode_image(content: bytes, where: str, *, max_pixels: int = MAX_PIXELS) -> Frame:
    """Decode an image to RGB u8 (height, width, 3), rotated by its EXIF orientation.

    Gray and CMYK are converted to RGB, 16 bits to 8; transparency is dropped. Of an animation, the first frame is
    returned. `where` names the image in error messages. Raises MediaError if the image cannot be decoded, or if its
    header declares more than `max_pixels`; then no memory is reserved for it.
    """
    if not content:
        raise MediaError(f"{where} is empty: use a JPEG or PNG")
    _check_size(header_pixels(content), max_pixels, where=where)
    try:
        with _silenced_opencv():
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):  # one side is too long
            raise _too_large(max_pixels, where=where) from error
        image = None
    if image is None:
        raise _unreadable(where)
    _check_size(image.shape[0] * image.shape[1], max_pixels, where=where)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _check_size(pixels: int | None, max_pixels: int, *, where: str) -> None:
    if pixels is None:
        raise _unreadable(where)
    if pixels > max_pixels:
        raise _too_large(max_pixels, where=where)


def _unreadable(where: str) -> MediaError:
    return MediaError(f"{where} is damaged or not a readable image: use a JPEG or PNG")


def _too_large(max_pixels: int, *, where: str) -> MediaError:
    return MediaError(f"{where} has more than {max_pixels / 1e6:.3g} megapixels: scale the image down")


class Video:
    """An open video or camera. Iterate over it once for pairs (time_s, frame); time_s never decreases.

    `name` is the source, `fps` is None if unknown, and so is `frames`, the number of frames, which is wrong in some
    files. `live` marks a camera: its time is measured from the first frame, and it has no end. Iterating raises
    MediaError if a file contains no frames, after the last frame of a truncated mp4, mov or avi file, and if a camera
    stops.
    """

    def __init__(self, capture: Any, name: str, *, live: bool = False) -> None:
        fps, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.name, self.live = name, live
        self.fps: float | None = fps if 0 < fps < 1000 else None  # WebM: 1000 means a variable rate
        self.frames: int | None = int(frames) if frames > 0 and not live else None
        self._capture = capture

    def __iter__(self) -> Iterator[tuple[float, Frame]]:
        clock = time.monotonic if self.live else self._position_s
        count, time_s, start_s = 0, 0.0, 0.0
        while True:
            success, frame = self._capture.read()
            if not success:
                break
            now_s = clock()
            if count == 0:
                start_s = now_s
            elif now_s - start_s > time_s:
                time_s = now_s - start_s
            else:  # the file contains no times, or wrong ones
                time_s += 1 / (self.fps or DEFAULT_FPS)
            count += 1
            yield time_s, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=frame)
        self._check_end(count)

    def _position_s(self) -> float:
        seconds: float = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        return seconds

    def _check_end(self, count: int) -> None:
        if self.live:
            raise MediaError(f"{self.name} sends no more frames: check its cable and close other programs that use it")
        if count == 0:
            raise MediaError(f"{self.name} contains no readable frames: convert it to .mp4")
        if _is_truncated(Path(self.name)):
            raise MediaError(f"{self.name} is truncated after {count:,} readable frames: use the complete file")


def _is_truncated(path: Path) -> bool:
    """Whether the header of an mp4, mov or avi declares more bytes than the file has.

    ISO/IEC 14496-12, 4.2, and the header of RIFF. The number of frames is no criterion: a trimmed mp4 contains frames
    that are not shown.
    """
    size, place = path.stat().st_size, 0
    with path.open("rb") as stream:
        while place + 16 <= size:
            stream.seek(place)
            head = stream.read(16)
            if head.startswith(b"RIFF"):
                return 8 + int.from_bytes(head[4:8], "little") > size
            if place == 0 and head[4:8] not in MP4_BOXES:
                return False
            length = int.from_bytes(head[:4], "big")
            length = int.from_bytes(head[8:], "big") if length == 1 else length
            if length < 8:  # 0: up to the end of the file
                return False
            place += length
    return place > size


@contextmanager
def open_video(source: str | Path) -> Iterator[Video]:
    """Open a video file or a camera ("camera:0") for the block. Raises MediaError if that fails."""
    live = isinstance(source, str) and source.startswith(CAMERA)
    capture = _open_camera(str(source)) if live else _open_file(Path(source))
    try:
        yield Video(capture, str(source), live=live)
    finally:
        capture.release()


def _open_camera(source: str) -> Any:
    number = source.removeprefix(CAMERA)
    if not number.isdecimal():
        raise MediaError(f"{source} is not a camera: use {CAMERA}0 for the first, {CAMERA}1 for the second")
    with _silenced_opencv():
        capture = cv2.VideoCapture(int(number))
    if not capture.isOpened():
        raise MediaError(f"{source} cannot be opened: connect the camera, or close the program that uses it")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame instead of the oldest in a queue
    return capture


def _open_file(path: Path) -> Any:
    if not path.is_file():
        raise MediaError(f"{path} is not a file: use a video file")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # silent; read when FFmpeg is first used
    with _silenced_opencv():
        # The absolute path cannot be mistaken for a URL, and other backends would accept a series of images.
        capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise MediaError(f"{path} is damaged or not a readable video: convert it to .mp4")
    return capture


@contextmanager
def _silenced_opencv() -> Iterator[None]:
    """Suppress OpenCV's messages on stderr. A MediaError reports the failure."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
