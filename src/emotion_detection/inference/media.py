"""Where frames come from: pictures, folders of them, videos and cameras. A frame is RGB u8 (h,w,3)."""

import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_detection.errors import InputError

Frame = NDArray[np.uint8]
Kind = Literal["picture", "folder", "video", "camera"]

MAX_PIXELS = 1 << 27  # 134 megapixels, 400 MB as RGB: above the 108 of a telephone, below what fills a memory
MAX_BYTES = 1 << 30
# HEIC is no picture to OpenCV, but one to whoever put it into the folder: it is told, not passed over.
PICTURES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif")
VIDEOS: tuple[str, ...] = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".mts")
VIDEOS += (".wmv", ".3gp", ".ogv", ".flv", ".mjpeg", ".mjpg", ".h264", ".h265")
MP4_STARTS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # the older .mov has no ftyp
CAMERA = "camera:"
USUAL_FPS = 25.0  # where a file or a camera does not tell
# Start-of-frame markers, where a JPEG tells its size: all of C0 to CF but three that mean something else.
JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def kind_of(source: str) -> Kind:
    """What a person named: "camera:0", a folder, a video or a picture; InputError if it is none of them."""
    if source.startswith(CAMERA):
        return "camera"
    path = Path(source)
    if path.is_dir():
        return "folder"
    if not path.exists():
        raise InputError(f"{source} does not exist: name a picture, a folder of pictures, a video or camera:0")
    if path.suffix.lower() in VIDEOS:
        return "video"
    # By name alone a text would pass for a video: FFmpeg plays any .txt as a terminal's screen.
    if path.suffix.lower() in PICTURES or cv2.haveImageReader(str(path)):
        return "picture"
    raise InputError(f"{source} is neither a picture nor a video that is known: save it as .jpg, .png or .mp4")


def images(folder: Path) -> Iterator[Path]:
    """Picture files under the folder, by name, hidden ones and links to folders left out; InputError if none."""
    found = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(PICTURES) and not name.startswith("."):
                found += 1
                yield Path(parent, name)
    if not found:
        raise InputError(f"{folder} holds no picture ({', '.join(PICTURES[:4])} ...): name another folder")


def read_image(path: str | Path) -> Frame:
    """A picture file as RGB u8 (h,w,3); InputError if it cannot be read as one."""
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}): check its name and its permissions") from error
    if len(content) > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES >> 30} GiB: scale the picture down")
    return decode_image(content, str(path))


def decode_image(content: bytes, where: str) -> Frame:
    """An encoded picture as RGB u8 (h,w,3), turned upright by its EXIF tag; `where` names it in errors.

    Gray becomes RGB, 16 bits become 8, transparency is dropped, CMYK is converted, of an animation the first
    picture counts. InputError if it is empty, damaged, cut short, no picture, or larger than MAX_PIXELS.
    """
    if not content:
        raise InputError(f"{where} is empty: get it again")
    claimed = _claimed_size(content)
    if claimed is not None:  # before memory is taken for it
        _check_size(*claimed, where=where)
    try:
        with _hushed():
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):
            raise _too_large(where) from error
        image = None
    if image is None:
        raise InputError(
            f"{where} is damaged, cut short or no picture that can be read: get it again, or save it as JPEG or PNG"
        )
    _check_size(image.shape[1], image.shape[0], where=where)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _claimed_size(content: bytes) -> tuple[int, int] | None:
    """Width and height in px by the header of a PNG (its specification, 11.2.1) or a JPEG (ITU-T T.81, B.2.2)."""
    if content.startswith(b"\x89PNG") and len(content) >= 24:
        width, height = struct.unpack(">II", content[16:24])
        return width, height
    place = 2 if content.startswith(b"\xff\xd8") else len(content)
    while place + 9 <= len(content) and content[place] == 0xFF:
        marker, length, _, height, width = struct.unpack(">BHBHH", content[place + 1 : place + 9])
        if marker in JPEG_FRAMES:
            return width, height
        place += 1 if marker == 0xFF else 2 + length  # any number of FF may stand before a marker
    return None


def _check_size(width_px: int, height_px: int, *, where: str) -> None:
    if width_px * height_px > MAX_PIXELS:
        raise _too_large(where)


def _too_large(where: str) -> InputError:
    return InputError(f"{where} has more than {MAX_PIXELS / 1e6:.0f} megapixels: scale the picture down")


class Video:
    """A video or camera that is open: iterate over it once, for (at_s, frame), at_s in seconds, never falling.

    name is what a person called it; fps may be None, as may frames, their number, which some files misstate.
    live says that it is a camera: its time is the clock's, counted from the first frame, and it has no end.
    Iterating raises InputError where a file holds no frame, after the last frame of an mp4, mov or avi that is cut
    short, and where a camera falls silent.
    """

    def __init__(self, capture: Any, name: str, *, live: bool = False) -> None:
        fps, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.name, self.live = name, live
        self.fps: float | None = fps if 0 < fps < 1000 else None  # 1000 stands for "varies" in WebM
        self.frames: int | None = int(frames) if frames > 0 and not live else None
        self._capture = capture

    def __iter__(self) -> Iterator[tuple[float, Frame]]:
        clock = self._clock_s if self.live else self._container_s
        read, at_s, started_s = 0, 0.0, 0.0
        while True:
            there, frame = self._capture.read()
            if not there:
                break
            now_s = clock()
            if read == 0:
                started_s = now_s
            elif now_s - started_s > at_s:
                at_s = now_s - started_s
            else:  # the container has no times, or wrong ones
                at_s += 1 / (self.fps or USUAL_FPS)
            read += 1
            yield at_s, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=frame)
        self._check_end(read)

    def _clock_s(self) -> float:
        return time.monotonic()

    def _container_s(self) -> float:
        seconds: float = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        return seconds

    def _check_end(self, read: int) -> None:
        if self.live:
            raise InputError(f"{self.name} sends no more frames: check its cable, and that no other program took it")
        if read == 0:
            raise InputError(f"{self.name} holds no frame that can be read: get it again, or convert it to .mp4")
        if _is_cut_short(Path(self.name)):
            raise InputError(f"{self.name} is cut short, these were its first {read:,} frames: get it again")


def _is_cut_short(path: Path) -> bool:
    """Whether an mp4, mov or avi claims more bytes than there are (ISO/IEC 14496-12, 4.2; RIFF's header).

    Their number of frames would not tell: a trimmed mp4 holds frames that it does not show.
    """
    size, place = path.stat().st_size, 0
    with path.open("rb") as stream:
        while place + 16 <= size:
            stream.seek(place)
            head = stream.read(16)
            if head.startswith(b"RIFF"):
                return 8 + int.from_bytes(head[4:8], "little") > size
            if place == 0 and head[4:8] not in MP4_STARTS:
                return False
            length = int.from_bytes(head[:4], "big")
            length = int.from_bytes(head[8:], "big") if length == 1 else length
            if length < 8:  # 0: to the file's end
                return False
            place += length
    return place > size


@contextmanager
def open_video(source: str | Path) -> Iterator[Video]:
    """A video file or "camera:0", the first camera, open inside the block; InputError if it cannot be opened."""
    camera = isinstance(source, str) and source.startswith(CAMERA)
    capture = _open_camera(str(source)) if camera else _open_file(Path(source))
    try:
        yield Video(capture, str(source), live=camera)
    finally:
        capture.release()


def _open_camera(source: str) -> Any:
    number = source.removeprefix(CAMERA)
    if not number.isdecimal():
        raise InputError(f"{source} names no camera: write {CAMERA}0 for the first, {CAMERA}1 for the second")
    with _hushed():
        capture = cv2.VideoCapture(int(number))
    if not capture.isOpened():
        raise InputError(f"{source} cannot be opened: connect the camera, or close the program that uses it")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, not the oldest of a queue
    return capture


def _open_file(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path} is no file: name a video")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when FFmpeg is first used; errors are told by us
    with _hushed():
        # Absolute, so that no name is taken for an address; FFmpeg alone, so that none is for a row of pictures.
        capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise InputError(f"{path} is damaged, cut short or no video that can be read: get it again, or convert it")
    return capture


@contextmanager
def _hushed() -> Iterator[None]:
    """OpenCV's own lines on stderr are held back: what they say is told as an InputError."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
