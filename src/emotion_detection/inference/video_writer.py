"""Write frames and their times to a video file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from emotion_detection.arrays import Frame
from emotion_detection.atomic import atomic_output
from emotion_detection.errors import MediaError, UsageError
from emotion_detection.inference.media import DEFAULT_FPS

# Codecs that OpenCV's FFmpeg can write. Browsers play VP8; MPEG-4 is ten times faster to write, and for players only.
CODECS = {".mp4": "mp4v", ".webm": "VP80"}
MAX_FPS = 60.0
MAX_PAUSE_S = 60.0


class VideoWriter:
    """A video file without sound, with the timing of its source.

    A file has a constant frame rate, a source may not. A frame is repeated until the time of the next one, and dropped
    if the next one has the same time. Pauses longer than MAX_PAUSE_S, which are mostly wrong times, are removed.
    """

    def __init__(self, path: Path, fps: float | None) -> None:
        """fps: frames per second, at most MAX_FPS; None if unknown."""
        self.fps = min(fps or DEFAULT_FPS, MAX_FPS)
        self._path = path
        self._writer: Any = None
        self._size = (0, 0)
        self._last: Frame = np.empty(0, np.uint8)
        self._count = 0
        self._removed_s = 0.0

    def add(self, time_s: float, frame_rgb: Frame) -> None:
        """Append a frame shown `time_s` seconds after the first one, scaled to the size of the first one.

        Raises MediaError if the file cannot be opened.
        """
        if self._writer is None:
            self._open(frame_rgb)
        frame = cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2BGR)
        if (frame.shape[1], frame.shape[0]) != self._size:
            frame = cv2.resize(frame, self._size)
        pause_s = time_s - self._removed_s - self._count / self.fps
        self._removed_s += pause_s if pause_s > MAX_PAUSE_S else 0
        place = round((time_s - self._removed_s) * self.fps)
        while self._count < place:
            self._write(self._last)
        if self._count == place:
            self._write(frame)
        self._last = frame

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()

    def _write(self, frame: Frame) -> None:
        self._writer.write(frame)
        self._count += 1

    def _open(self, frame: Frame) -> None:
        self._size = (frame.shape[1], frame.shape[0])
        codec = cv2.VideoWriter.fourcc(*CODECS[self._path.suffix.lower()])
        with _silenced_stderr():
            self._writer = cv2.VideoWriter(str(self._path), cv2.CAP_FFMPEG, codec, self.fps, self._size)
        if not self._writer.isOpened():
            raise MediaError(f"{self._path} cannot be written as a video: check its folder and the free disk space")


@contextmanager
def video_writer(path: Path, fps: float | None) -> Iterator[VideoWriter]:
    """Yield a writer. The file gets its name if the block succeeds; otherwise no file is left.

    Raises UsageError if the suffix is not one of CODECS.
    """
    if path.suffix.lower() not in CODECS:
        raise UsageError(f"{path} is not an .mp4 (for players) or .webm (also for browsers): use one of these suffixes")
    with atomic_output(path) as temporary:
        writer = VideoWriter(temporary, fps)
        try:
            yield writer
        finally:
            writer.close()


@contextmanager
def _silenced_stderr() -> Iterator[None]:
    """Suppress the output of C libraries. OpenCV prints a complaint for every WebM file, but writes it correctly."""
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)
