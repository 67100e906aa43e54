"""Write small videos with OpenCV's FFmpeg."""

import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read once, when the first video is written or read

CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".avi": "MJPG", ".webm": "VP80", ".mkv": "VP80", ".ts": "mp4v"}
CODECS |= {".mpg": "mpg1", ".flv": "FLV1"}
BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts")  # each is inside the previous one


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], *, fps: float = 25.0) -> Path:
    """Write RGB frames u8 (height, width, 3) of the same size."""
    writer = None
    for frame in frames:
        if writer is None:
            codec = cv2.VideoWriter.fourcc(*CODECS[path.suffix])
            writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, fps, frame.shape[1::-1])
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    assert writer is not None
    writer.release()
    return path


def set_matrix(path: Path, *values: int) -> None:
    """Write the first four values (a, b, c, d) of the matrix of an mp4's track (ISO/IEC 14496-12, 8.3.2)."""
    content = bytearray(path.read_bytes())
    place = content.rindex(b"tkhd") + 4 + 40
    for offset, value in zip((0, 4, 12, 16), values, strict=True):
        content[place + offset : place + offset + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(content)


def slow_down(path: Path, start: int, factor: int, *, trimmed: bool = False) -> None:
    """Multiply the duration of the frames from `start` on, with a second entry in the mp4's table of durations.

    With `trimmed`, the total duration stays the same, so the last frames are not shown.
    """
    content = bytearray(path.read_bytes() if trimmed else path.read_bytes().replace(b"edts", b"free"))
    places = [content.rindex(name) for name in BOXES]
    table = places[-1] + 8
    assert int.from_bytes(content[table : table + 4], "big") == 1  # all frames have the same duration
    frames, duration = (int.from_bytes(content[table + at : table + at + 4], "big") for at in (4, 8))
    entries = (2, start, duration, frames - start, factor * duration)
    content[table : table + 12] = b"".join(number.to_bytes(4, "big") for number in entries)
    for place in places:
        size = int.from_bytes(content[place - 4 : place], "big") + 8
        content[place - 4 : place] = size.to_bytes(4, "big")
    path.write_bytes(content)
