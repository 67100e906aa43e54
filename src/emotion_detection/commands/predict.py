"""The `predict` command: read the expressions of the faces in a picture, a folder, a video or a camera."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

from cyclopts import Parameter
from tqdm import tqdm

from emotion_detection.arrays import Frame
from emotion_detection.atomic import atomic_output
from emotion_detection.decoding.images import SUFFIXES as IMAGE_SUFFIXES
from emotion_detection.decoding.images import read_image
from emotion_detection.errors import EmotionDetectionError, MediaError, StoreError, UsageError
from emotion_detection.experiments.store_location import store_exists
from emotion_detection.inference.annotate import draw, save_image
from emotion_detection.inference.detector import FaceDetector, load_detector
from emotion_detection.inference.face_tracker import FaceTracker
from emotion_detection.inference.media import (
    SourceKind,
    Video,
    find_images,
    open_video,
    source_kind,
)
from emotion_detection.inference.pretrained import CHAMPION
from emotion_detection.inference.reading import Reading
from emotion_detection.inference.recognizer import FaceCrops, Recognizer
from emotion_detection.inference.table import Row, Tally, rows, table
from emotion_detection.inference.video_writer import CODECS, video_writer

ANNOTATED_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png")  # of pictures that keep their format
LISTED_PICTURES = 20  # of those without a face
CROP_PX = 256  # a square picture up to this size is probably the crop of a face
SQUARE = 1.25  # the longer side divided by the shorter one
SHIPPED = "the shipped model"


@dataclass(frozen=True)
class FrameResult:
    """A picture or a frame of a video, with its readings and table rows; time_s is None for a picture."""

    path: Path
    frame_rgb: Frame
    readings: list[Reading]
    rows: list[Row]
    time_s: float | None = None


Output = Callable[[FrameResult], None]


@dataclass
class Totals:
    """What was read so far. A failure is an error message."""

    unit: Literal["picture", "frame"]
    count: int = 0
    tally: Tally = field(default_factory=Tally)
    failures: list[str] = field(default_factory=list)
    without_face: list[Path] = field(default_factory=list)  # pictures only
    like_crops: int = 0  # how many of them are small and about square

    def add(self, result: FrameResult) -> None:
        self.count += 1
        self.tally.add(result.rows)
        if result.time_s is None and not result.readings:
            self.without_face.append(result.path)
            self.like_crops += _looks_like_crop(result.frame_rgb)


@Parameter(name="*")
@dataclass(frozen=True)
class PredictOptions:
    """The source and the outputs."""

    source: str
    """A picture, a folder (with all its subfolders), a video, or camera:0."""
    _: KW_ONLY
    faces: Literal["all", "largest"] = "all"
    """Which faces of a frame to read."""
    out: Path | None = None
    """Table to write, one row per face: .csv, .json or .parquet."""
    annotate: Path | None = None
    """Where to draw the readings: a folder for pictures, .mp4 or .webm for a video (browsers play .webm). A picture
    keeps its name if it is a JPEG or PNG; otherwise .png is appended. If two names are equal, the second one gets a
    number: a.png, a-2.png."""
    figure: Path | None = None
    """Figure to write (.png): a timeline of every person in a video, bars for pictures."""
    model: str | None = None
    """An .onnx file or models:/NAME@ALIAS; by default the champion of the project's model registry, or the shipped
    model if there is no registry."""
    detector: str | None = None
    """haar (the default), yunet, or the path of YuNet's .onnx file."""
    crops: Annotated[bool, Parameter(negative=())] = False
    """The pictures are faces already, of any size: read each one as it is, and detect nothing."""


def predict(options: PredictOptions) -> None:
    """Read the expressions of the faces in a picture, a folder of pictures, a video or a camera.

    Existing files are never overwritten. A picture that cannot be read is reported at the end, the other pictures are
    read, and the exit status is 1. Pictures without a face are named on stderr; the exit status stays 0. Ctrl-C ends a
    camera and keeps what was read. Other sources write nothing then, and the exit status is 130.
    """
    try:
        _predict(options)
    except OSError as error:  # an unreadable input raises MediaError
        raise UsageError(
            f"{error.filename or 'an output'} cannot be written ({error.strerror}): use another path"
        ) from error
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written", file=sys.stderr)
        sys.exit(130)


def _predict(options: PredictOptions) -> None:
    kind = source_kind(options.source)
    _check_outputs(options, kind)
    recognizer, model = _load_recognizer(options, _detector(options, kind))
    with ExitStack() as stack:
        if kind in ("video", "camera"):
            totals = Totals("frame")
            video = stack.enter_context(open_video(options.source))
            results, outputs = _read_video(video, recognizer, totals), _video_outputs(options, stack, video)
        else:
            totals = Totals("picture")
            source = Path(options.source)
            paths = list(find_images(source)) if kind == "folder" else [source]
            results = _read_pictures(paths, recognizer, totals, stop_at_error=kind == "image")
            outputs = _picture_outputs(options, stack, paths)
        for result in results:
            if not totals.count:
                print(f"model: {model}", file=sys.stderr)
            totals.add(result)
            for output in outputs:
                output(result)
            if kind == "image" and not options.out:
                _print_readings(result.readings)
    _report(totals)


def _report(totals: Totals) -> None:
    """Print the totals, the pictures without a face and the failures; exit with status 1 if there are failures."""
    print("\n".join(totals.tally.summary(totals.count, totals.unit)))
    for note in _notes_without_face(totals):
        print(note, file=sys.stderr)
    for failure in totals.failures:
        print(f"error: {failure}", file=sys.stderr)
    if totals.failures:
        sys.exit(1)


def _detector(options: PredictOptions, kind: SourceKind) -> FaceDetector:
    if not options.crops:
        return load_detector(options.detector or "haar")
    if kind in ("video", "camera"):
        raise UsageError(f"--crops reads pictures of one face each, but {options.source} is a {kind}: omit --crops")
    if options.detector:
        raise UsageError("--crops detects no faces, so it takes no --detector: omit one of the two")
    return FaceCrops()


def _load_recognizer(options: PredictOptions, detector: FaceDetector) -> tuple[Recognizer, str]:
    """The recognizer and what to call its model: by default the champion, or the shipped model without a registry."""
    if options.model or not store_exists():
        return Recognizer.load(options.model, detector=detector, faces=options.faces), options.model or SHIPPED
    try:
        champion = _champion()
        recognizer = Recognizer.load(champion, detector=detector, faces=options.faces)
    except EmotionDetectionError as error:
        reason = " ".join(str(error).split())
        return Recognizer.load(detector=detector, faces=options.faces), f"{SHIPPED}, because {reason}"
    return recognizer, f"{champion}, the champion of the registry"


def _champion() -> str:
    """The version that is the registry's champion now, as models:/NAME/NUMBER. Raises StoreError without one."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    try:
        from emotion_detection.experiments.registry import resolve  # MLflow takes seconds to import
    except ModuleNotFoundError as error:
        raise StoreError(f"the model registry needs the package {error.name}: pip install {error.name}") from error
    version = resolve(CHAMPION)
    return f"models:/{version.name}/{version.number}"


def _looks_like_crop(frame: Frame) -> bool:
    shorter_px, longer_px = sorted(frame.shape[:2])
    return longer_px <= min(CROP_PX, SQUARE * shorter_px)


def _notes_without_face(totals: Totals) -> Iterator[str]:
    """Name the pictures without a face, and suggest --crops if most of them look like faces already."""
    missed = totals.without_face
    if not missed:
        return
    names = ", ".join(map(str, missed[:LISTED_PICTURES]))
    more = f" and {len(missed) - LISTED_PICTURES:,} more" if len(missed) > LISTED_PICTURES else ""
    yield f"no face was found in {len(missed):,} of {totals.count:,} pictures: {names}{more}"
    if 2 * totals.like_crops > len(missed):
        yield "These pictures are small and about square. If each one is a face already, use --crops."


def _check_outputs(options: PredictOptions, kind: SourceKind) -> None:
    """Raise UsageError before any work if an output exists or has a wrong suffix."""
    for path in filter(None, (options.out, options.annotate, options.figure)):
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise UsageError(f"{path} already exists: move it, or use another name")
    if options.figure and options.figure.suffix.lower() != ".png":
        raise UsageError(f"{options.figure} is not a .png file: use this suffix for the figure")
    is_file_name = options.annotate and options.annotate.suffix.lower() in (*CODECS, *IMAGE_SUFFIXES)
    if is_file_name and kind in ("image", "folder"):
        raise UsageError(f"{options.annotate} has the suffix of a file, but pictures are written to a folder: omit it")


def _read_pictures(
    paths: Sequence[Path], recognizer: Recognizer, totals: Totals, *, stop_at_error: bool
) -> Iterator[FrameResult]:
    """Read the faces of each picture. A picture that cannot be read is a failure, or an error with stop_at_error."""
    for path in tqdm(paths, unit=" pictures", disable=True if stop_at_error else None):
        try:
            frame = read_image(path)
        except MediaError as error:
            if stop_at_error:
                raise
            totals.failures.append(str(error))
            continue
        readings = recognizer.recognize(frame)
        yield FrameResult(path, frame, readings, rows(readings, str(path)))


def _read_video(video: Video, recognizer: Recognizer, totals: Totals) -> Iterator[FrameResult]:
    """Read the faces of each frame. An error after the first frame is a failure. Ctrl-C ends a camera."""
    tracker = FaceTracker(recognizer)
    with _interrupt_event(video.live) as interrupted:
        progress = tqdm(video, total=video.frames, unit=" frames", disable=None)
        try:
            for number, (time_s, frame) in enumerate(progress):
                readings = tracker.recognize(frame, time_s)
                progress.set_postfix_str(", ".join(reading.emotion for reading in readings), refresh=False)
                frame_rows = rows(readings, video.name, frame=number, time_s=time_s)
                yield FrameResult(Path(video.name), frame, readings, frame_rows, time_s)
                if interrupted.is_set():
                    return
        except MediaError as error:
            if not totals.count:
                raise
            totals.failures.append(str(error))


@contextmanager
def _interrupt_event(enabled: bool) -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets, if enabled, so that the current frame is finished.

    The second Ctrl-C raises KeyboardInterrupt.
    """
    event = threading.Event()

    def interrupt(*_: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, interrupt) if enabled else None
    try:
        yield event
    finally:
        if enabled:
            signal.signal(signal.SIGINT, previous)


# An exit stack completes the outputs in reverse order. The table is the last one here, so a figure that fails does not
# delete it.


def _video_outputs(options: PredictOptions, stack: ExitStack, video: Video) -> list[Output]:
    outputs: list[Output] = []
    if options.figure:
        outputs.append(stack.enter_context(_timeline_figure(options.figure)))
    if options.annotate:
        writer = stack.enter_context(video_writer(options.annotate, video.fps))
        outputs.append(lambda result: writer.add(result.time_s or 0.0, draw(result.frame_rgb, result.readings)))
    return outputs + _table_output(options, stack)


def _picture_outputs(options: PredictOptions, stack: ExitStack, paths: Sequence[Path]) -> list[Output]:
    outputs: list[Output] = []
    if options.figure:
        outputs.append(stack.enter_context(_counts_figure(options.figure)))
    if options.annotate:
        source = Path(options.source)
        folder = source if source.is_dir() else source.parent
        names = annotated_names([path.relative_to(folder) for path in paths])
        outputs.append(stack.enter_context(_annotated_pictures(options.annotate, dict(zip(paths, names, strict=True)))))
    return outputs + _table_output(options, stack)


def _table_output(options: PredictOptions, stack: ExitStack) -> list[Output]:
    if not options.out:
        return []
    write = stack.enter_context(table(options.out))
    return [lambda result: write(result.rows)]


@contextmanager
def _annotated_pictures(folder: Path, names: Mapping[Path, Path]) -> Iterator[Output]:
    """Yield a function that writes an annotated picture. `names` contains a path in the folder for each picture."""
    with atomic_output(folder) as temporary:
        temporary.mkdir()
        yield lambda result: save_image(draw(result.frame_rgb, result.readings), temporary / names[result.path])


def annotated_names(names: Sequence[Path]) -> list[Path]:
    """Return a different name for the annotated version of each picture.

    A JPEG or PNG keeps its name; .png is appended to other names. If the name is in use, a number is inserted: a-2.png.
    Names that differ only in case count as equal, because many file systems do not distinguish them.
    """
    used = {str(folder).casefold() for name in names for folder in name.parents}
    unique = {}
    for name in sorted(names, key=_is_converted):  # the names that are kept come first
        preferred = name.with_name(f"{name.name}.png") if _is_converted(name) else name
        unique[name], number = preferred, 1
        while str(unique[name]).casefold() in used:
            number += 1
            unique[name] = preferred.with_stem(f"{preferred.stem}-{number}")
        used.add(str(unique[name]).casefold())
    return [unique[name] for name in names]


def _is_converted(name: Path) -> bool:
    return name.suffix.lower() not in ANNOTATED_SUFFIXES


@contextmanager
def _timeline_figure(path: Path) -> Iterator[Output]:
    timeline = _import_timeline().Timeline()
    yield lambda result: timeline.add(result.rows, until_s=result.time_s)
    timeline.draw(path)


@contextmanager
def _counts_figure(path: Path) -> Iterator[Output]:
    timeline, tally = _import_timeline(), Tally()
    yield lambda result: tally.add(result.rows)
    timeline.draw_emotion_counts(tally.emotions, tally.unsure, path=path)


def _import_timeline() -> ModuleType:
    """Import the figures only if one is requested: it takes half a second and needs matplotlib."""
    try:
        from emotion_detection.inference import timeline
    except ModuleNotFoundError as error:
        raise UsageError("--figure needs matplotlib: pip install matplotlib") from error
    return timeline


def _print_readings(readings: Sequence[Reading]) -> None:
    for reading in readings:
        box, emotion = reading.box, reading.emotion + "?" * reading.unsure
        print(f"{emotion:10} {reading.confidence:4.0%}  at {box.left},{box.top}, {box.width}x{box.height} px")
