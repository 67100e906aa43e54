"""Read an uploaded video, step by step, and write what the page offers: a table, a timeline and an annotated copy."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from emotion_detection.arrays import Frame
from emotion_detection.errors import MediaError
from emotion_detection.inference.annotate import draw
from emotion_detection.inference.face_tracker import FaceTracker
from emotion_detection.inference.media import open_video
from emotion_detection.inference.reading import Reading
from emotion_detection.inference.recognizer import Recognizer
from emotion_detection.inference.table import Row, Tally, rows, table
from emotion_detection.inference.timeline import Timeline
from emotion_detection.inference.video_writer import video_writer

SHOWN_ROWS = 200


@dataclass(frozen=True)
class VideoOutputs:
    """The files that are made from a video."""

    timeline: Path
    table: Path
    annotated: Path | None

    @classmethod
    def in_folder(cls, folder: Path, *, annotated: bool) -> "VideoOutputs":
        return cls(folder / "timeline.png", folder / "readings.csv", folder / "annotated.webm" if annotated else None)


@dataclass
class VideoReport:
    """What was read so far. `total` is None if the file does not tell; `warning` says what is damaged."""

    total: int | None = None
    frames: int = 0
    tally: Tally = field(default_factory=Tally)
    first_rows: list[Row] = field(default_factory=list)
    warning: str = ""
    finished: bool = False
    started_s: float = field(default_factory=time.monotonic)


def read_video(path: Path, recognizer: Recognizer, outputs: VideoOutputs) -> Generator[VideoReport, None, None]:
    """Yield the same report after each frame, and once more when the outputs are written.

    The frames of a damaged video are kept, and the report has a warning. Raises MediaError if there is no frame.
    Closing the generator leaves no outputs.
    """
    tracker, timeline = FaceTracker(recognizer), Timeline()
    with (
        open_video(path) as video,
        table(outputs.table) as write_rows,
        _annotated_video(outputs.annotated, video.fps) as write_frame,
    ):
        report = VideoReport(total=video.frames)
        try:
            for number, (time_s, frame) in enumerate(video):
                readings = tracker.recognize(frame, time_s)
                frame_rows = rows(readings, path.name, frame=number, time_s=time_s)
                write_rows(frame_rows)
                write_frame(time_s, frame, readings)
                timeline.add(frame_rows, until_s=time_s)
                report.tally.add(frame_rows)
                report.first_rows += frame_rows[: SHOWN_ROWS - len(report.first_rows)]
                report.frames = number + 1
                yield report
        except MediaError as error:
            if not report.frames:
                raise
            report.warning = str(error).replace(str(path), path.name)
    timeline.draw(outputs.timeline)
    report.finished = True
    yield report


@contextmanager
def _annotated_video(
    path: Path | None, fps: float | None
) -> Iterator[Callable[[float, Frame, Sequence[Reading]], None]]:
    """A function that draws the readings of a frame into the video at `path`; without a path it does nothing."""
    if path is None:
        yield lambda *_: None
        return
    with video_writer(path, fps) as writer:
        yield lambda time_s, frame, readings: writer.add(time_s, draw(frame, readings))
