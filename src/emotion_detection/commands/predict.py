"""Read the expressions of the faces in a picture, a folder of pictures, a video or a camera's view."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Literal

from cyclopts import Parameter
from tqdm import tqdm

from emotion_detection.atomic import atomic_output
from emotion_detection.errors import InputError
from emotion_detection.inference.annotate import draw, save
from emotion_detection.inference.detector import YunetDetector
from emotion_detection.inference.face_tracker import FaceTracker
from emotion_detection.inference.media import PICTURES, Frame, Video, images, kind_of, open_video, read_image
from emotion_detection.inference.reading import Reading
from emotion_detection.inference.recognizer import Recognizer
from emotion_detection.inference.table import Row, Tally, rows, table
from emotion_detection.inference.video_writer import CODECS, video_writer

JPEGS = (".jpg", ".jpeg", ".jfif")


@dataclass(frozen=True)
class Seen:
    """One frame and what was read on it; at_s is None for a picture."""

    path: Path
    frame_rgb: Frame
    readings: list[Reading]
    rows: list[Row]
    at_s: float | None = None


Sink = Callable[[Seen], None]


@dataclass
class Outcome:
    """What a run comes to, as it goes on: unit is "picture" or "frame", a failure is one sentence."""

    unit: str
    seen: int = 0
    tally: Tally = field(default_factory=Tally)
    failures: list[str] = field(default_factory=list)


@Parameter(name="*")
@dataclass(frozen=True)
class PredictOptions:
    """What to read, and what to write."""

    source: str
    """A picture, a folder (with all its subfolders), a video, or camera:0."""
    _: KW_ONLY
    faces: Literal["all", "largest"] = "all"
    """Which faces of a frame to read."""
    out: Path | None = None
    """Table to write, one row per face: .csv, .json or .parquet."""
    annotate: Path | None = None
    """Where to draw the readings: a folder for pictures, .mp4 or .webm for a video (browsers play .webm)."""
    figure: Path | None = None
    """Figure to write (.png): a timeline of every person in a video, bars for pictures."""
    model: str | None = None
    """An .onnx file or models:/<name>@<alias>; by default the shipped model."""
    detector: Path | None = None
    """YuNet's .onnx file, to detect faces with YuNet."""


def predict(options: PredictOptions) -> None:
    """Read the expressions of the faces in a picture, a folder of pictures, a video or a camera.

    Existing files are never overwritten. A picture that cannot be read is reported at the end, the other pictures are
    read, and the exit status is 1. Ctrl-C ends a camera and keeps what was read. Other sources write nothing then, and
    the exit status is 130.
    """
    try:
        _predict(options)
    except OSError as error:  # inputs raise InputError
        raise InputError(f"{error.filename or 'an output'} cannot be written: {error.strerror}") from error
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written", file=sys.stderr)
        sys.exit(130)


def _predict(options: PredictOptions) -> None:
    kind = kind_of(options.source)
    moving = kind in ("video", "camera")
    _check_outputs(options, moving=moving)
    detector = YunetDetector(options.detector) if options.detector else None
    recognizer = Recognizer.load(options.model, detector=detector, faces=options.faces)
    outcome = Outcome("frame" if moving else "picture")
    with ExitStack() as stack:
        video = stack.enter_context(open_video(options.source)) if moving else None
        everything = read_video(video, recognizer, outcome) if video else read_stills(options, recognizer, outcome)
        sinks = _sinks(options, stack, video=video)
        for seen in everything:
            outcome.seen += 1
            outcome.tally.add(seen.rows)
            for sink in sinks:
                sink(seen)
            if kind == "picture" and not options.out:
                _print_readings(seen.readings)
    print("\n".join(outcome.tally.summary(outcome.seen, outcome.unit)))
    for failure in outcome.failures:
        print(f"error: {failure}", file=sys.stderr)
    if outcome.failures:
        sys.exit(1)


def _check_outputs(options: PredictOptions, *, moving: bool) -> None:
    """InputError, before any work, for what must not be written."""
    for path in filter(None, (options.out, options.annotate, options.figure)):
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise InputError(f"{path} is there already: move it away, or give another name")
    if options.figure and options.figure.suffix.lower() != ".png":
        raise InputError(f"{options.figure} does not end in .png: name the figure so")
    if options.annotate and not moving and options.annotate.suffix.lower() in (*CODECS, *PICTURES):
        raise InputError(f"{options.annotate} is the name of a file, but pictures go into a folder: drop the suffix")


def read_stills(options: PredictOptions, recognizer: Recognizer, outcome: Outcome) -> Iterator[Seen]:
    """A picture, or all of a folder; one that cannot be read is a failure, the only one an InputError."""
    source = Path(options.source)
    paths = list(images(source)) if source.is_dir() else [source]  # now: annotated ones may come to lie below
    for path in tqdm(paths, unit=" pictures", disable=None if source.is_dir() else True):
        try:
            frame = read_image(path)
        except InputError as error:
            if not source.is_dir():
                raise
            outcome.failures.append(str(error))
            continue
        readings = recognizer.recognize(frame)
        yield Seen(path, frame, readings, rows(readings, str(path)))


def read_video(video: Video, recognizer: Recognizer, outcome: Outcome) -> Iterator[Seen]:
    """Frame by frame; an error after the first frame ends it as a failure, Ctrl-C ends a camera well."""
    follower = FaceTracker(recognizer)
    with _interrupts(video.live) as interrupted:
        progress = tqdm(video, total=video.frames, unit=" frames", disable=None)
        try:
            for number, (at_s, frame) in enumerate(progress):
                readings = follower.recognize(frame, at_s)
                progress.set_postfix_str(", ".join(reading.emotion for reading in readings), refresh=False)
                yield Seen(
                    Path(video.name), frame, readings, rows(readings, video.name, frame=number, time_s=at_s), at_s
                )
                if interrupted.is_set():
                    return
        except InputError as error:
            if not outcome.seen:
                raise
            outcome.failures.append(str(error))


@contextmanager
def _interrupts(wanted: bool) -> Iterator[threading.Event]:
    """Where it is wanted, the first Ctrl-C only sets the event, so that no row is cut in two; the second is as ever."""
    event = threading.Event()

    def interrupt(*_: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, interrupt) if wanted else None
    try:
        yield event
    finally:
        if wanted:
            signal.signal(signal.SIGINT, before)


def _sinks(options: PredictOptions, stack: ExitStack, *, video: Video | None) -> list[Sink]:
    """What takes the frames. The table, opened last, is the first that is whole: a figure that fails costs no row."""
    sinks: list[Sink] = []
    if options.figure:
        sinks.append(stack.enter_context(_timeline(options.figure) if video else _bars(options.figure)))
    if options.annotate and video:
        drawn = stack.enter_context(video_writer(options.annotate, video.fps))
        sinks.append(lambda seen: drawn.add(seen.at_s or 0.0, draw(seen.frame_rgb, seen.readings)))
    elif options.annotate:
        sinks.append(stack.enter_context(_pictures(options.annotate, Path(options.source))))
    if options.out:
        write = stack.enter_context(table(options.out))
        sinks.append(lambda seen: write(seen.rows))
    return sinks


@contextmanager
def _pictures(folder: Path, source: Path) -> Iterator[Sink]:
    """Drawn pictures under the names of theirs; PNG, with .png appended, where the original is neither JPEG nor PNG."""
    with atomic_output(folder) as written:

        def save_drawn(seen: Seen) -> None:
            name = seen.path.relative_to(source) if source.is_dir() else Path(seen.path.name)
            if name.suffix.lower() not in (*JPEGS, ".png"):
                name = name.with_name(f"{name.name}.png")
            save(draw(seen.frame_rgb, seen.readings), written / name)

        written.mkdir()
        yield save_drawn


@contextmanager
def _timeline(path: Path) -> Iterator[Sink]:
    timeline = _timelines().Timeline()
    yield lambda seen: timeline.add(seen.rows, until_s=seen.at_s)
    timeline.draw(path)


@contextmanager
def _bars(path: Path) -> Iterator[Sink]:
    timeline, tally = _timelines(), Tally()
    yield lambda seen: tally.add(seen.rows)
    timeline.shares(tally.emotions, tally.unsure, path=path)


def _timelines() -> ModuleType:
    """Imported when a figure is options for: half a second, and matplotlib is no part of the light core."""
    try:
        from emotion_detection.inference import timeline
    except ModuleNotFoundError as error:
        raise InputError("--figure needs matplotlib: pip install 'emotion-detection[train]'") from error
    return timeline


def _print_readings(readings: Sequence[Reading]) -> None:
    for reading in readings:
        box, emotion = reading.box, reading.emotion + "?" * reading.unsure
        print(f"{emotion:10} {reading.confidence:4.0%}  at {box.left},{box.top}, {box.width}x{box.height} px")
