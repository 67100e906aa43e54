"""Write frames with their times to a video file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from emotion_detection.atomic import atomic_output
from emotion_detection.errors import InputError
from emotion_detection.inference.detector import Frame

# The codecs that OpenCV's own FFmpeg can write. Browsers play VP8; MPEG-4 is ten times faster to write, for players.
CODECS = {".mp4": "mp4v", ".webm": "VP80"}


MOST_FPS = 60.0


LONGEST_PAUSE_S = 60.0


class VideoWriter:
    """A video file without sound, of frames that come with their times; it plays at the speed of its source.

    Files keep one rate, sources do not: a frame is repeated until the next one's time, or left out where two
    have the same. Pauses beyond LONGEST_PAUSE_S, mostly broken times, are cut out. InputError if the file cannot
    be opened.
    """

    def __init__(self, path: Path, fps: float | None) -> None:
        self.fps = min(fps or 25.0, MOST_FPS)
        self._path = path
        self._writer: Any = None
        self._size = (0, 0)
        self._last: Frame = np.empty(0, np.uint8)
        self._count = 0
        self._cut_s = 0.0

    def add(self, at_s: float, frame_rgb: Frame) -> None:
        """Append RGB u8 (h,w,3), seen at_s seconds after the first; all later ones are scaled to the first's size."""
        if self._writer is None:
            self._open(frame_rgb)
        frame = cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2BGR)
        if (frame.shape[1], frame.shape[0]) != self._size:
            frame = cv2.resize(frame, self._size)
        pause_s = at_s - self._cut_s - self._count / self.fps
        self._cut_s += pause_s if pause_s > LONGEST_PAUSE_S else 0
        place = round((at_s - self._cut_s) * self.fps)
        while self._count < place:
            self._put(self._last)
        if self._count == place:
            self._put(frame)
        self._last = frame

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()

    def _put(self, frame: Frame) -> None:
        self._writer.write(frame)
        self._count += 1

    def _open(self, frame: Frame) -> None:
        self._size = (frame.shape[1], frame.shape[0])
        codec = cv2.VideoWriter.fourcc(*CODECS[self._path.suffix.lower()])
        with _silenced():
            self._writer = cv2.VideoWriter(str(self._path), cv2.CAP_FFMPEG, codec, self.fps, self._size)
        if not self._writer.isOpened():
            raise InputError(f"{self._path} cannot be written as a video: check its folder, and that the disk has room")


@contextmanager
def video_writer(path: Path, fps: float | None) -> Iterator[VideoWriter]:
    """A Film, whole under its name when the block ends well, else not there; its suffix is one of CODECS.

    InputError for any other suffix.
    """
    if path.suffix.lower() not in CODECS:
        raise InputError(f"{path} ends in neither .mp4 (for players) nor .webm (for browsers, too): name the video so")
    with atomic_output(path) as written:
        writer = VideoWriter(written, fps)
        try:
            yield writer
        finally:
            writer.close()


@contextmanager
def _silenced() -> Iterator[None]:
    """Hold back what C libraries write to stderr: OpenCV complains of every WebM file, which it then writes well."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
