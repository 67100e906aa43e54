"""Read all faces of a part. Each engine maps this one function over the parts."""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from emotion_detection.arrays import Images
from emotion_detection.batch.pictures import Picture, read_pictures
from emotion_detection.batch.plan import read_part
from emotion_detection.batch.storage import Storage
from emotion_detection.batch.tables import ModelLabel, part_tables
from emotion_detection.decoding.images import decode
from emotion_detection.emotions import IMAGE_SIZE
from emotion_detection.errors import DataError, MediaError, ModelError, shorten
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.inference.detector import FaceDetector, HaarDetector, YunetDetector, to_gray, to_model_input
from emotion_detection.inference.reading import Box, Reading
from emotion_detection.inference.recognizer import FaceCrops, Recognizer

PLAN = "_plan.jsonl"
PICTURES_AT_ONCE = 64  # whose faces the network reads together; only their crops are in memory
NO_FACES = np.empty((0, IMAGE_SIZE, IMAGE_SIZE), np.uint8)


@dataclass(frozen=True)
class Job:
    """What a worker needs, on this or on another machine. The files of the models travel as their bytes."""

    source: str
    folder: str  # of the source: what the names in the plan are relative to
    out: str
    label: ModelLabel
    model: bytes = field(repr=False)
    detector: Literal["haar", "yunet", "crops"] = "haar"
    yunet: bytes = field(default=b"", repr=False)
    faces: Literal["all", "largest"] = "all"


@dataclass(frozen=True)
class Counts:
    """What a part contains."""

    part: int
    pictures: int = 0
    faces: int = 0
    without_face: int = 0
    bad: int = 0


def score_part(job: Job, number: int, offset: int) -> Counts:
    """Read the part at this position of the plan and write its tables. A bad picture is a row of the side table.

    Raises ModelError if the model is damaged, and StoreError if the source or the output cannot be reached.
    """
    recognizer, out, source = load_recognizer(job), Storage(job.out), Storage(job.source).at(job.folder)
    if source.is_local and not Path(source.path).is_dir():
        raise DataError(f"{source} does not exist any more: connect the disk, and repeat the command")
    with out.open(PLAN) as stream:
        part = read_part(stream, offset)
    pictures = faces = without_face = bad = 0
    with _one_thread(), part_tables(out, number, job.label) as tables:
        for picture, readings, reason in _read(recognizer, read_pictures(source, part)):
            pictures += 1
            if reason:
                bad += 1
                tables.add_bad(picture, reason)
                continue
            faces += len(readings)
            without_face += not readings
            tables.add(picture, readings)
    return Counts(number, pictures, faces, without_face, bad)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let OpenCV use one thread, because there is a process for each core."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@lru_cache(maxsize=1)
def load_recognizer(job: Job) -> Recognizer:
    """The recognizer of a job, loaded once in each process. Raises ModelError if a file is not a usable model."""
    if hashlib.sha256(job.model).hexdigest() != job.label.sha256:
        raise ModelError(f"the file of {job.label.name} was changed on its way to a worker: repeat the command")
    with tempfile.TemporaryDirectory() as folder:
        model, yunet = Path(folder, "model.onnx"), Path(folder, "yunet.onnx")
        model.write_bytes(job.model)
        classifier = EmotionClassifier(model, name=job.label.name, threads=1)
        yunet.write_bytes(job.yunet)
        detector = _detector(job, yunet)
    return Recognizer(classifier, detector, faces=job.faces)


def _detector(job: Job, yunet: Path) -> FaceDetector:
    if job.detector == "yunet":
        return YunetDetector(yunet)
    return FaceCrops() if job.detector == "crops" else HaarDetector()


@dataclass(frozen=True)
class _Found:
    """The faces that the detector has found in a picture."""

    picture: Picture  # without its content
    boxes: Sequence[Box]
    faces: Images
    reason: str


def _read(recognizer: Recognizer, pictures: Iterator[Picture]) -> Iterator[tuple[Picture, list[Reading], str]]:
    """Yield the readings of each picture, or the reason why it has none, in the order of the pictures."""
    found: list[_Found] = []
    for picture in pictures:
        found.append(_find(recognizer, picture))
        if len(found) == PICTURES_AT_ONCE:
            yield from _classify(recognizer, found)
            found = []
    yield from _classify(recognizer, found)


def _find(recognizer: Recognizer, picture: Picture) -> _Found:
    boxes, faces, reason = list[Box](), NO_FACES, picture.reason
    if picture.content is not None:
        try:
            gray = to_gray(decode(picture.content))
            boxes = recognizer.select(recognizer.detector.detect(gray))
            faces = to_model_input(gray, boxes, margin=recognizer.detector.margin)
        except MediaError as error:
            reason = str(error)
        except Exception as error:  # whatever a library does with one picture, it must not stop a job of millions
            boxes, faces, reason = (
                [],
                NO_FACES,
                f"the picture cannot be read ({shorten(error) or type(error).__name__})",
            )
    place = Picture(picture.source, None, picture.index, picture.name)
    return _Found(place, boxes, faces, reason)


def _classify(recognizer: Recognizer, found: Sequence[_Found]) -> Iterator[tuple[Picture, list[Reading], str]]:
    rows = iter(recognizer.classifier.probabilities(np.concatenate([NO_FACES, *(one.faces for one in found)])))
    for one in found:
        yield one.picture, [Reading(box, next(rows)) for box in one.boxes], one.reason
