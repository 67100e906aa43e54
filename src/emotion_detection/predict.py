"""Read the expressions of the faces in a picture, a folder of pictures, a video or a camera's view."""

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

from emotion_detection.drawing import CODECS, draw, film, save
from emotion_detection.errors import InputError, one_line
from emotion_detection.faces import YunetDetector
from emotion_detection.following import Follower
from emotion_detection.readings import Row, Tally, rows, table
from emotion_detection.recognition import Reading, Recognizer
from emotion_detection.replacing import replacing
from emotion_detection.sources import PICTURES, Frame, Video, images, kind_of, open_video, read_image

EPILOG = """
Nothing that exists is overwritten. A picture that cannot be read is told at the end, the others are done, and the
exit status is 1. Ctrl-C ends a camera and keeps what was read; elsewhere it leaves nothing behind (status 130).
"""
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_detection.predict", description=__doc__, epilog=EPILOG)
    parser.add_argument("source", help="a picture, a folder (with all below it), a video, or camera:0")
    parser.add_argument("--faces", choices=("all", "largest"), default="all", help="which faces of a frame are read")
    parser.add_argument("--out", type=Path, help="table to write, one row a face: .csv, .json or .parquet")
    parser.add_argument(
        "--annotate", type=Path, help="drawn frames: a folder, for a video .mp4 or .webm (for browsers)"
    )
    parser.add_argument("--figure", type=Path, help=".png to write: a timeline of every person; bars for pictures")
    parser.add_argument("--model", help="an .onnx file or models:/<name>@<alias>; left out: the one that ships")
    parser.add_argument("--detector", type=Path, help="YuNet's .onnx file, to find faces with it")
    asked = parser.parse_args(arguments)
    with one_line():
        try:
            predict(asked)
        except OSError as error:  # inputs tell their own
            raise InputError(f"{error.filename or 'an output'} cannot be written: {error.strerror}") from error
        except KeyboardInterrupt:
            print("\ninterrupted; nothing was written", file=sys.stderr)
            sys.exit(130)


def predict(asked: argparse.Namespace) -> None:
    """Read the source, write what is asked for, print a summary; exit status 1 if a part could not be read."""
    kind = kind_of(asked.source)
    moving = kind in ("video", "camera")
    _check_outputs(asked, moving=moving)
    detector = YunetDetector(asked.detector) if asked.detector else None
    recognizer = Recognizer.load(asked.model, detector=detector, faces=asked.faces)
    outcome = Outcome("frame" if moving else "picture")
    with ExitStack() as stack:
        video = stack.enter_context(open_video(asked.source)) if moving else None
        everything = read_video(video, recognizer, outcome) if video else read_stills(asked, recognizer, outcome)
        sinks = _sinks(asked, stack, video=video)
        for seen in everything:
            outcome.seen += 1
            outcome.tally.add(seen.rows)
            for sink in sinks:
                sink(seen)
            if kind == "picture" and not asked.out:
                _print_readings(seen.readings)
    print("\n".join(outcome.tally.summary(outcome.seen, outcome.unit)))
    for failure in outcome.failures:
        print(f"error: {failure}", file=sys.stderr)
    if outcome.failures:
        sys.exit(1)


def _check_outputs(asked: argparse.Namespace, *, moving: bool) -> None:
    """InputError, before any work, for what must not be written."""
    for path in filter(None, (asked.out, asked.annotate, asked.figure)):
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise InputError(f"{path} is there already: move it away, or give another name")
    if asked.figure and asked.figure.suffix.lower() != ".png":
        raise InputError(f"{asked.figure} does not end in .png: name the figure so")
    if asked.annotate and not moving and asked.annotate.suffix.lower() in (*CODECS, *PICTURES):
        raise InputError(f"{asked.annotate} is the name of a file, but pictures go into a folder: drop the suffix")


def read_stills(asked: argparse.Namespace, recognizer: Recognizer, outcome: Outcome) -> Iterator[Seen]:
    """A picture, or all of a folder; one that cannot be read is a failure, the only one an InputError."""
    source = Path(asked.source)
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
    follower = Follower(recognizer)
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


def _sinks(asked: argparse.Namespace, stack: ExitStack, *, video: Video | None) -> list[Sink]:
    """What takes the frames. The table, opened last, is the first that is whole: a figure that fails costs no row."""
    sinks: list[Sink] = []
    if asked.figure:
        sinks.append(stack.enter_context(_timeline(asked.figure) if video else _bars(asked.figure)))
    if asked.annotate and video:
        drawn = stack.enter_context(film(asked.annotate, video.fps))
        sinks.append(lambda seen: drawn.add(seen.at_s or 0.0, draw(seen.frame_rgb, seen.readings)))
    elif asked.annotate:
        sinks.append(stack.enter_context(_pictures(asked.annotate, Path(asked.source))))
    if asked.out:
        write = stack.enter_context(table(asked.out))
        sinks.append(lambda seen: write(seen.rows))
    return sinks


@contextmanager
def _pictures(folder: Path, source: Path) -> Iterator[Sink]:
    """Drawn pictures under the names of theirs; PNG, with .png appended, where the original is neither JPEG nor PNG."""
    with replacing(folder) as written:

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
    timelines, tally = _timelines(), Tally()
    yield lambda seen: tally.add(seen.rows)
    timelines.shares(tally.emotions, tally.unsure, path=path)


def _timelines() -> ModuleType:
    """Imported when a figure is asked for: half a second, and matplotlib is no part of the light core."""
    try:
        from emotion_detection import timelines
    except ModuleNotFoundError as error:
        raise InputError("--figure needs matplotlib: pip install 'emotion-detection[train]'") from error
    return timelines


def _print_readings(readings: Sequence[Reading]) -> None:
    for reading in readings:
        box, emotion = reading.box, reading.emotion + "?" * reading.unsure
        print(f"{emotion:10} {reading.confidence:4.0%}  at {box.left},{box.top}, {box.width}x{box.height} px")


if __name__ == "__main__":
    main()
