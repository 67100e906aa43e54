"""Read frames from folders of images, videos and cameras. A frame is RGB u8 (height, width, 3)."""

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_detection.arrays import Frame
from emotion_detection.decoding.containers import VideoTrack, is_damaged_matroska, read_track
from emotion_detection.decoding.images import UPRIGHT, is_picture_file
from emotion_detection.decoding.memory import memory_ceiling
from emotion_detection.errors import MediaError

SourceKind = Literal["image", "folder", "video", "camera"]

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".3gp"),
    *(".ogv", ".flv", ".mjpeg", ".mjpg", ".h264", ".h265"),
)
MAX_VIDEO_PIXELS = 8192 * 4320
# Of the memory that a decoder may reserve: for a frame, and for each of its pixels. With threads, it keeps 32 frames.
VIDEO_MEMORY = 1 << 28
VIDEO_PIXEL_MEMORY = 64
# The names of FFmpeg's readers. Playlists and descriptions of streams, which open other files, are not among them.
FFMPEG_READERS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,asf,flv,ogg,mjpeg,h264,hevc,ivf,dv,mxf"
FFMPEG_OPTIONS = f"protocol_whitelist;file|format_whitelist;{FFMPEG_READERS}"
ATTEMPTS = 30  # to read on where the container does not tell how many frames there are
MAX_ATTEMPTS = 20_000
HIDDEN_FRAMES = 2  # some encoders count frames at the start or end that no decoder shows
CAMERA = "camera:"
DEFAULT_FPS = 25.0  # for files and cameras that do not report their rate

_ffmpeg_lock = threading.Lock()


def source_kind(source: str) -> SourceKind:
    """Return what a source is: "camera:0", a folder, a video or an image. Raises MediaError for anything else."""
    if source.startswith(CAMERA):
        return "camera"
    path = Path(source)
    if path.is_dir():
        return "folder"
    if not path.exists():
        raise MediaError(f"{source} does not exist: use an image, a folder of images, a video or {CAMERA}0")
    # FFmpeg opens any text file as a video of a terminal, so a video is recognized by its suffix only.
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return "video"
    if is_picture_file(path):
        return "image"
    raise MediaError(f"{source} is not a known image or video format: convert it to .jpg, .png or .mp4")


def find_images(folder: Path) -> Iterator[Path]:
    """Yield the images in a folder and its subfolders by name: each file that `source_kind` calls an image.

    Skips hidden files and links to folders. Raises MediaError if there are no images.
    """
    count = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(parent, name) for name in sorted(files) if not name.startswith(".")):
            if path.suffix.lower() not in VIDEO_SUFFIXES and is_picture_file(path):
                count += 1
                yield path
    if not count:
        raise MediaError(f"{folder} contains no images (JPEG, PNG, WebP, ...): use another folder")


class Video:
    """An open video or camera. Iterate over it once for pairs (time_s, frame); time_s never decreases.

    `name` is the source, `fps` is None if unknown, and so is `frames`, the number of frames, which is wrong in some
    files. `live` marks a camera: its time is measured from the first frame, and it has no end. A damaged frame of a
    file is skipped. Iterating raises MediaError if a file contains no frames, after the last frame of a file that lacks
    some of its frames, and if a camera stops.
    """

    def __init__(self, capture: Any, name: str, *, live: bool = False, track: VideoTrack | None = None) -> None:
        fps, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.name, self.live = name, live
        self.fps: float | None = fps if 0 < fps < 1000 else None  # WebM: 1000 means a variable rate
        self.frames: int | None = int(frames) if frames > 0 and not live else None
        self._capture, self._track = capture, track or VideoTrack("other")
        width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        self._memory = (
            VIDEO_MEMORY + int(VIDEO_PIXEL_MEMORY * width * height) if width * height > 0 and not live else None
        )
        self._turn = UPRIGHT.get(self._track.orientation or 1)
        self._count = self._damaged = 0  # frames, of the current iteration
        self._pace = _Pace(self.fps)

    def __iter__(self) -> Iterator[tuple[float, Frame]]:
        clock = time.monotonic if self.live else self._position_s
        time_s, start_s = 0.0, 0.0
        self._count = self._damaged = 0
        while (frame := self._next_frame()) is not None:
            now_s = clock()
            if self._count == 0:
                start_s = now_s
            elif now_s - start_s > time_s:
                self._pace.add(now_s - start_s - time_s)
                time_s = now_s - start_s
            else:  # the file contains no times, or wrong ones
                time_s += 1 / (self.fps or DEFAULT_FPS)
            self._count += 1
            yield time_s, self._upright(frame)
        self._check_end()

    def _next_frame(self) -> NDArray[np.uint8] | None:
        """The next frame (BGR) that can be decoded. Reads on after a damaged one, as far as there may be frames."""
        expected = self.frames or 0
        rest = 0 if self.live else min(max(expected - self._count - self._damaged, 0) + ATTEMPTS, MAX_ATTEMPTS)
        for failures in range(rest + 1):
            with _silenced_opencv(), memory_ceiling(self._memory) if self._memory else nullcontext():
                success, frame = self._capture.read()
            if success:
                self._damaged += failures
                return frame
        return None

    def _upright(self, frame: NDArray[np.uint8]) -> Frame:
        frame = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=frame)
        return frame if self._turn is None else np.ascontiguousarray(self._turn(frame))

    def _position_s(self) -> float:
        seconds: float = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        return seconds

    def _check_end(self) -> None:
        if self.live:
            raise MediaError(f"{self.name} sends no more frames: check its cable and close other programs that use it")
        if self._count == 0:
            raise MediaError(f"{self.name} contains no readable frames: convert it to .mp4")
        lacking = self._lacking()
        if lacking:
            total = f" of {self._count + lacking:,}" if lacking > 0 else ""
            raise MediaError(
                f"{self.name}: {self._count:,}{total} frames could be read, the others are damaged or missing: "
                "use a complete copy"
            )

    def _lacking(self) -> int:
        """How many frames are damaged or missing at the end of a file; -1 if it is damaged and the number is unknown.

        A container may count frames that are not shown, or only estimate their number, and times may be irregular. So
        a difference alone is no damage, except where the container counts exactly.
        """
        if self._track.kind == "matroska":
            return self._lacking_in_matroska()
        is_exact = self._track.kind == "avi" or (self._track.kind == "iso" and self._track.frames == self.frames)
        if self.frames is None or not is_exact:
            return max(self._damaged, self._pace.missing(self._count, self.frames))
        missing = 0 if self._track.is_trimmed else self.frames - self._count
        return max(self._damaged, missing if missing > HIDDEN_FRAMES else 0)

    def _lacking_in_matroska(self) -> int:
        missing = (self.frames or 0) - self._count
        if not self._damaged and self._pace.is_regular and missing <= HIDDEN_FRAMES and self.frames:
            return 0
        if not is_damaged_matroska(Path(self.name)):
            return self._damaged
        return max(self._damaged, missing) if self._pace.is_regular and self.frames else self._damaged or -1


class _Pace:
    """Whether the frames of a file come at a constant rate, and how many are missing between them."""

    def __init__(self, fps: float | None) -> None:
        self._period_s = 1 / fps if fps else math.inf
        self._intervals = self._regular = self._missing = 0

    def add(self, interval_s: float) -> None:
        """Count the time from one frame to the next."""
        periods = interval_s / self._period_s
        self._intervals += 1
        self._regular += 0.75 < periods < 1.25
        self._missing += max(round(periods) - 1, 0)

    @property
    def is_regular(self) -> bool:
        """Whether at least 90 % of the intervals are one period long."""
        return self._regular >= 0.9 * max(self._intervals, 1)

    def missing(self, count: int, expected: int | None) -> int:
        """The frames missing between `count` regular ones, and at the end if more than 10 % are.

        Fewer may be missing at the end because the sound is longer than the video.
        """
        if not self.is_regular:
            return 0
        at_end = (expected or 0) - count - self._missing
        missing = self._missing + (at_end if at_end > 0.1 * (expected or 0) else 0)
        return missing if missing > HIDDEN_FRAMES else 0


@contextmanager
def open_video(source: str | Path) -> Iterator[Video]:
    """Open a video file or a camera ("camera:0") for the block. Raises MediaError if that fails."""
    live = isinstance(source, str) and source.startswith(CAMERA)
    capture, track = (_open_camera(str(source)), None) if live else _open_file(Path(source))
    try:
        yield Video(capture, str(source), live=live, track=track)
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


def _open_file(path: Path) -> tuple[Any, VideoTrack]:
    if not path.is_file():
        raise MediaError(f"{path} is not a file: use a video file")
    track = read_track(path)
    # The absolute path cannot be mistaken for a URL, and other backends would accept a series of images.
    with _silenced_opencv(), _restricted_ffmpeg(), memory_ceiling(VIDEO_MEMORY):
        capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise MediaError(f"{path} is damaged or not a readable video: convert it to .mp4")
    width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > MAX_VIDEO_PIXELS:
        capture.release()
        raise MediaError(f"{path} has frames of {width}x{height} pixels: scale it down to at most 8192x4320")
    if track.orientation is not None:  # OpenCV turns videos, but it does not mirror them
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    return capture, track


@contextmanager
def _restricted_ffmpeg() -> Iterator[None]:
    """Let OpenCV open only the file itself, and no playlist. FFmpeg reads the variables when it opens a file."""
    variables = {"OPENCV_FFMPEG_CAPTURE_OPTIONS": FFMPEG_OPTIONS, "OPENCV_FFMPEG_LOGLEVEL": "-8"}
    with _ffmpeg_lock:
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextmanager
def _silenced_opencv() -> Iterator[None]:
    """Suppress OpenCV's messages on stderr. A MediaError reports the failure."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
