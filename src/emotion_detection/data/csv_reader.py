"""Read fer2013.csv and similar tables, which have one line of text per face."""

import hashlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from emotion_detection.data.dataset import NO_SPLIT, Faces
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE
from emotion_detection.errors import DataError

PIXELS = IMAGE_SIZE * IMAGE_SIZE
# A row of 2,304 numbers has at most 9,300 bytes. The limit keeps a file without line ends from filling the memory.
MAX_LINE_BYTES = 1 << 16
MAX_ROWS = 100_000
# Some programs write an empty line after each row.
MAX_EMPTY_LINES = 1000  # more than the rows before them
LABEL_OF_TEXT = {str(label).encode(): label for label in range(len(EMOTIONS))}
SPLIT_OF_USAGE = {b"Training": 0, b"PublicTest": 1, b"PrivateTest": 2}
HEADLESS = re.compile(rb"[^\n]{0,40}?(\d{1,3}[ ]){64}")  # the start of a row with pixels
FERPLUS_COLUMNS = {"image name", "neutral", "happiness", "contempt"}  # some columns of FER+'s fer2013new.csv


@dataclass(frozen=True)
class Table:
    """The faces in the order of the file, its column names as returned by `column_names`, and its MD5 (hex)."""

    faces: Faces
    columns: tuple[str, ...]
    md5: str


def column_names(line: bytes) -> tuple[str, ...]:
    """The names in a header line, in lower case and without the spaces and quotes that some copies contain."""
    text = line.decode("utf-8-sig", errors="replace")
    return tuple(name.strip(' "\t\r\n').lower() for name in text.split(","))


def is_table(head: bytes) -> bool:
    """Whether a file that starts with these bytes is a table of the competition or of FER+, readable or not."""
    names = set(column_names(head.split(b"\n", 1)[0]))
    return "pixels" in names or names >= FERPLUS_COLUMNS


def has_labels(head: bytes) -> bool:
    """Whether a file that starts with these bytes is a table with pixels and emotions."""
    return {"pixels", "emotion"} <= set(column_names(head.split(b"\n", 1)[0]))


def is_headless(head: bytes) -> bool:
    """Whether a file starts with a row of pixels, like the second part of a table that was split."""
    return HEADLESS.match(head) is not None


def read_table(stream: BinaryIO, name: str) -> Table:
    """Read a table; error messages start with `name`. 35,887 rows take about 2.5 s and 100 MB of memory."""
    md5 = hashlib.md5(usedforsecurity=False)
    header = stream.readline(MAX_LINE_BYTES)
    md5.update(header)
    if b"\r" in header.strip():
        raise DataError(f"{name} has the line ends of old Macs (CR): save it with the line ends of Unix or Windows")
    rows = _Rows(name, column_names(header))
    for line in tqdm(_lines(stream), desc=name, unit=" rows", unit_scale=True, disable=None):
        md5.update(line)
        rows.add(line)
    return Table(rows.faces(), rows.columns, md5.hexdigest())


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: stream.readline(MAX_LINE_BYTES), b"")


class _Rows:
    """Collects the rows of a table in 2,304 bytes a face, without keeping the text."""

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        self.name, self.columns = name, names
        self._check_columns()
        self._emotion, self._pixels = names.index("emotion"), names.index("pixels")
        self._usage = names.index("usage") if "usage" in names else None
        self._row = self._empty = 0
        self._images, self._labels, self._splits = bytearray(), bytearray(), bytearray()

    def _check_columns(self) -> None:
        if set(self.columns) >= FERPLUS_COLUMNS:
            raise DataError(
                f"{self.name} is FER+'s fer2013new.csv, which contains labels but no images: use fer2013.csv, and pass "
                "this file as VOTES"
            )
        if "emotion" not in self.columns:
            raise DataError(
                f"{self.name} has no emotion column, like the competition's test.csv, "
                "so it cannot be used for training: use fer2013.csv"
            )
        repeated = [name for name in ("emotion", "pixels", "usage") if self.columns.count(name) > 1]
        if repeated:
            raise DataError(f"{self.name} has two columns {repeated[0]}: remove the wrong one")

    def add(self, line: bytes) -> None:
        self._row += 1
        if not line.strip():
            self._skip_empty_line()
            return
        if len(self._labels) == MAX_ROWS:
            raise DataError(
                f"{self.name} has more than {MAX_ROWS:,} rows, more than any copy of FER-2013: pass only the data set"
            )
        try:
            self._add(line)
        except ValueError as error:
            raise DataError(self._error_message(line, str(error))) from error

    def _skip_empty_line(self) -> None:
        self._empty += 1
        if self._empty > MAX_EMPTY_LINES + len(self._labels):
            raise DataError(f"{self.name} has more than {MAX_EMPTY_LINES:,} empty lines: download it again")

    def _add(self, line: bytes) -> None:
        fields = [field.strip(b' "\t\r\n') for field in line.split(b",")]
        if len(fields) != len(self.columns):
            raise ValueError(f"has {len(fields)} columns instead of {len(self.columns)}")
        if fields[self._emotion] not in LABEL_OF_TEXT:
            raise ValueError(f"has emotion {_quote(fields[self._emotion])} instead of 0 to 6")
        if self._usage is not None and fields[self._usage] not in SPLIT_OF_USAGE:
            raise ValueError(f"has Usage {_quote(fields[self._usage])} instead of Training, PublicTest or PrivateTest")
        self._images += _pixels(fields[self._pixels])
        self._labels.append(LABEL_OF_TEXT[fields[self._emotion]])
        self._splits.append(NO_SPLIT if self._usage is None else SPLIT_OF_USAGE[fields[self._usage]])

    def _error_message(self, line: bytes, problem: str) -> str:
        where = f"{self.name}: row {self._row} (line {self._row + 1})"
        if not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
            return f"{where}, the last one, {problem}: the file is truncated, so download it again"
        return f"{where} {problem}: the file is damaged, so download it again"

    def faces(self) -> Faces:
        rows = len(self._labels)
        if not rows:
            raise DataError(f"{self.name} has a header but no rows: the file is truncated, so download it again")
        images = np.frombuffer(self._images, np.uint8).reshape(rows, IMAGE_SIZE, IMAGE_SIZE)
        labels, splits = np.frombuffer(self._labels, np.uint8), np.frombuffer(self._splits, np.uint8)
        return Faces(images, labels, splits, np.zeros(rows, bool))


def _pixels(field: bytes) -> bytes:
    """One face as 2,304 bytes. The message of a ValueError states what is wrong with it."""
    try:
        # For text that is not a number, numpy < 2.3 only warns and returns the numbers before it.
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            values = np.fromstring(field, np.int64, sep=" ")
    except (ValueError, DeprecationWarning):
        raise ValueError("has a pixel that is not a whole number") from None
    if len(values) != PIXELS:
        raise ValueError(f"has {len(values):,} pixels instead of {PIXELS:,}")
    if values.view(np.uint64).max() > 255:  # as unsigned integers, negative numbers are large
        wrong = values[(values < 0) | (values > 255)][0]
        raise ValueError(f"has a pixel of {wrong} instead of 0 to 255")
    return values.astype(np.uint8).tobytes()


def _quote(field: bytes) -> str:
    return repr(field[:40].decode("utf-8", errors="replace"))
