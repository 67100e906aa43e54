"""Read all CSV tables of a source as one data set: a table in several parts, or one table for each split."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from emotion_detection.data.archives import Container, Member
from emotion_detection.data.csv_reader import MAX_ROWS, Table, column_names, read_table
from emotion_detection.data.dataset import ARRAYS, NO_SPLIT, Faces
from emotion_detection.data.image_reader import split_of
from emotion_detection.data.splits import image_hashes
from emotion_detection.errors import DataError, shorten

# Where the split of a table's rows is: in its column Usage, in its name, such as train.csv, or nowhere.
USAGE, NAME, NOWHERE = range(3)
MAX_TABLES = 100


@dataclass(frozen=True)
class Candidate:
    """A file and its first bytes, which are those of a table with pixels and emotions if `read_tables` gets it."""

    member: Member
    head: bytes

    @property
    def split(self) -> int:
        """The split that the name tells, or NO_SPLIT."""
        return split_of(re.split("[^a-z]+", PurePosixPath(self.member.name).name.lower()))

    @property
    def rank(self) -> int:
        """USAGE, NAME or NOWHERE."""
        if "usage" in column_names(self.head.split(b"\n", 1)[0]):
            return USAGE
        return NOWHERE if self.split == NO_SPLIT else NAME


def read_tables(
    candidates: Sequence[Candidate], container: Container, source: Path
) -> tuple[Faces, list[Table], tuple[str, ...]]:
    """Read tables. Return their faces, the tables that were used, and notes about those that were left out.

    A table without Usage gets its split from its name, if there are several tables. A table all of whose rows are in
    another one is left out: the competition offers the same rows as icml_face_data.csv and train.csv.
    """
    if len(candidates) > MAX_TABLES:
        raise DataError(f"{source} contains {len(candidates):,} tables: pass only the data set")
    used: list[tuple[Candidate, Table]] = []
    notes = []
    for candidate in sorted(candidates, key=lambda each: (each.rank, -each.member.size, each.member.name)):
        where = str(source) if container.kind == "file" else f"{source}: {candidate.member.name}"
        table = _read(candidate, where, several=len(candidates) > 1)
        original = _original(candidate, table, used)
        if original:
            notes.append(f"{candidate.member.name} repeats rows of {original} and was left out")
            continue
        used.append((candidate, table))
        if sum(len(table.faces) for _, table in used) > MAX_ROWS:
            raise DataError(f"{source} contains more than {MAX_ROWS:,} rows: pass only the data set")
    used.sort(key=lambda pair: (_first_split(pair[1]), pair[0].member.name))
    tables = [table for _, table in used]
    return _concatenate([table.faces for table in tables]), tables, tuple(map(shorten, notes))


def _read(candidate: Candidate, where: str, *, several: bool) -> Table:
    with candidate.member.open() as stream:
        table = read_table(stream, where)
    if several and candidate.rank == NAME:
        splits = np.full(len(table.faces), candidate.split, np.uint8)
        return replace(table, faces=replace(table.faces, splits=splits))
    return table


def _original(candidate: Candidate, table: Table, used: Sequence[tuple[Candidate, Table]]) -> str:
    """The names of the tables that contain all rows of this one, or "".

    Tables for different splits are no copies of each other: a row in both is a leak, which `drop_leaks` counts.
    """
    with_split = candidate.rank == USAGE
    others = [pair for pair in used if candidate.rank == NOWHERE or pair[0].rank == USAGE]
    known = [_keys(other.faces, with_split=with_split) for _, other in others]
    if known and np.isin(_keys(table.faces, with_split=with_split), np.concatenate(known)).all():
        return ", ".join(other.member.name for other, _ in others)
    return ""


def _keys(faces: Faces, *, with_split: bool) -> NDArray[np.uint64]:
    """A number for the pixels, the label and perhaps the split of each row."""
    keys = image_hashes(faces.images) * np.uint64(8) + faces.labels
    return keys * np.uint64(256) + faces.splits if with_split else keys


def _concatenate(parts: Sequence[Faces]) -> Faces:
    """Return the rows of all parts, in their order."""
    if len(parts) == 1:
        return parts[0]
    return Faces(*(np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS))


def _first_split(table: Table) -> int:
    return int(table.faces.splits[0])
