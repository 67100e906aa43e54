"""fer2013.csv and its siblings: one line of text per face, read straight into pixels."""

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from emotion_detection.data.dataset import NO_SPLIT, Faces
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE
from emotion_detection.errors import InputError

PIXELS = IMAGE_SIZE * IMAGE_SIZE
LINE_BYTES = 1 << 16  # a row of 2,304 numbers has at most 9,300; a file without line ends must not fill memory
LABELS = {str(label).encode(): label for label in range(len(EMOTIONS))}
SPLIT_OF_USAGE = {b"Training": 0, b"PublicTest": 1, b"PrivateTest": 2}
RATERS = {"image name", "neutral", "happiness", "contempt"}  # columns of fer2013new.csv


@dataclass(frozen=True)
class Table:
    """faces in the order of the file, its columns (in the file's order, stripped) and its md5 (hex)."""

    faces: Faces
    columns: tuple[str, ...]
    md5: str


def columns(line: bytes) -> tuple[str, ...]:
    """The names of a header line: lower case, without the spaces and quotes that some copies carry."""
    text = line.decode("utf-8-sig", errors="replace")
    return tuple(name.strip(' "\t\r\n').lower() for name in text.split(","))


def is_table(head: bytes) -> bool:
    """Whether a file that starts with these bytes is one of the competition's tables, readable or not."""
    names = set(columns(head.split(b"\n", 1)[0]))
    return "pixels" in names or names >= RATERS


def read_table(stream: BinaryIO, name: str) -> Table:
    """Read a whole table, about 2.5 s and 100 MB for 35,887 rows; `name` opens every InputError."""
    md5 = hashlib.md5(usedforsecurity=False)
    header = stream.readline(LINE_BYTES)
    md5.update(header)
    rows = _Rows(name, columns(header))
    for line in tqdm(_lines(stream), desc=name, unit=" rows", unit_scale=True, disable=None):
        md5.update(line)
        rows.add(line)
    return Table(rows.faces(), rows.columns, md5.hexdigest())


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: stream.readline(LINE_BYTES), b"")


class _Rows:
    """Grows while lines come in: 2,304 bytes a face and nothing beside."""

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        self.name, self.columns = name, names
        self._refuse_unlabelled()
        self._emotion, self._pixels = names.index("emotion"), names.index("pixels")
        self._usage = names.index("usage") if "usage" in names else None
        self._seen = 0
        self._images, self._labels, self._splits = bytearray(), bytearray(), bytearray()

    def _refuse_unlabelled(self) -> None:
        if set(self.columns) >= RATERS:
            raise InputError(
                f"{self.name} is FER+'s fer2013new.csv, which holds labels and no pictures: give fer2013.csv"
            )
        if "emotion" not in self.columns:
            raise InputError(
                f"{self.name} has pixels and no emotion column, like the competition's test.csv, "
                "so nothing can be learnt from it: give fer2013.csv"
            )

    def add(self, line: bytes) -> None:
        self._seen += 1
        if not line.strip():
            return
        try:
            self._add(line)
        except ValueError as error:
            raise InputError(self._told(line, str(error))) from error

    def _add(self, line: bytes) -> None:
        fields = [field.strip(b' "\t\r\n') for field in line.split(b",")]
        if len(fields) != len(self.columns):
            raise ValueError(f"has {len(fields)} columns instead of {len(self.columns)}")
        if fields[self._emotion] not in LABELS:
            raise ValueError(f"has emotion {_shown(fields[self._emotion])}, which is not one of 0 to 6")
        if self._usage is not None and fields[self._usage] not in SPLIT_OF_USAGE:
            raise ValueError(
                f"has Usage {_shown(fields[self._usage])}, which is not Training, PublicTest or PrivateTest"
            )
        self._images += _pixels(fields[self._pixels])
        self._labels.append(LABELS[fields[self._emotion]])
        self._splits.append(NO_SPLIT if self._usage is None else SPLIT_OF_USAGE[fields[self._usage]])

    def _told(self, line: bytes, problem: str) -> str:
        row = f"{self.name}: row {self._seen} (line {self._seen + 1})"
        if not line.endswith(b"\n") and len(line) < LINE_BYTES:
            return f"{row}, the last, {problem}: the file is cut short, so get it again"
        return f"{row} {problem}: the file is damaged, so get it again"

    def faces(self) -> Faces:
        rows = len(self._labels)
        if not rows:
            raise InputError(f"{self.name} has a header and no rows: the file is cut short, so get it again")
        images = np.frombuffer(self._images, np.uint8).reshape(rows, IMAGE_SIZE, IMAGE_SIZE)
        labels, splits = np.frombuffer(self._labels, np.uint8), np.frombuffer(self._splits, np.uint8)
        return Faces(images, labels, splits, np.zeros(rows, bool))


def _pixels(field: bytes) -> bytes:
    """One face as 2,304 bytes; ValueError says what is wrong with it."""
    try:
        # numpy < 2.3 only warns of text that is no number, and returns what it read before it.
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            values = np.fromstring(field, np.int64, sep=" ")
    except (ValueError, DeprecationWarning):
        raise ValueError("has a pixel that is not a whole number") from None
    if len(values) != PIXELS:
        raise ValueError(f"has {len(values):,} pixels instead of {PIXELS:,}")
    if values.view(np.uint64).max() > 255:  # a negative number is huge when seen unsigned
        wrong = values[(values < 0) | (values > 255)][0]
        raise ValueError(f"has a pixel of {wrong}, which is not one of 0 to 255")
    return values.astype(np.uint8).tobytes()


def _shown(field: bytes) -> str:
    return repr(field[:40].decode("utf-8", errors="replace"))
