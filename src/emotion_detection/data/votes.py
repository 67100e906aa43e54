"""FER+'s votes: which emotions ten people saw in each face. Read them, join them to the faces and check the join.

FER+ (Barsoum et al. 2016, arXiv 1608.01041) is a file of labels without images. Its raters answered another question
than those of FER-2013, so their most frequent choice is FER-2013's label for only 63 % of the faces.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from emotion_detection.arrays import Labels
from emotion_detection.data.archives import Member, open_container
from emotion_detection.data.csv_reader import column_names
from emotion_detection.data.dataset import TEST, VOTE_CLASSES, Votes, has_votes
from emotion_detection.data.formats import HEADER_BYTES, UNSUPPORTED, RawData
from emotion_detection.data.image_reader import LABEL_OF_NAME
from emotion_detection.emotions import SPLITS
from emotion_detection.errors import DataError, shorten

ROW, FILE = "image name", "file"  # the columns that tell which face a row belongs to
SUPPORTED = f"FER+'s fer2013new.csv for tables, or a table with the columns file,{','.join(VOTE_CLASSES)} for images"
IMAGE_NAME = re.compile(r"fer(\d{7})\.png")
MAX_TABLE_BYTES = 8 << 20  # fer2013new.csv has 1.6 MB
MAX_TABLES = 100
MAX_ROWS = 100_000
MAX_VOTES = 255  # of one class for one face; FER+ has ten raters
MAX_DEPTH = 8  # names in the path of an image, for the comparison of its end

# The raters' most frequent choice is the label of 63 % of the faces; of 18 % if faces and votes are mixed up.
MIN_AGREEMENT = 0.4
MIN_PART = 100  # faces with votes, so that the agreement in a part of the data set is no accident
BLOCK = 1000  # rows of a table
NO_LABEL = 255  # contempt, unknown and NF are no labels of FER-2013
LABEL_OF_CLASS = np.array([LABEL_OF_NAME.get(name, NO_LABEL) for name in VOTE_CLASSES], np.uint8)


@dataclass
class VoteTable:
    """The votes by the row of the face in fer2013.csv (from 0), or by the name of its image file.

    A face without votes is left out. `where` names the source in messages, `files` are the names of the tables.
    """

    where: str
    files: list[str] = field(default_factory=list)
    by_row: dict[int, list[int]] = field(default_factory=dict)
    by_file: dict[str, list[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.by_row) + len(self.by_file)


@dataclass(frozen=True)
class JoinedVotes:
    """Votes u8 (n,10) for each face of a source, zeros for faces without votes and for those of the test split.

    agreement: the share of the faces with votes whose label is the raters' most frequent choice.
    unused: the number of rows of the vote table that belong to no face or to the test split. files: the names of the
    tables.
    """

    votes: Votes
    agreement: float
    unused: int
    files: tuple[str, ...]


def read_votes(path: Path) -> VoteTable:
    """Read a table of votes, or all of them in a folder or archive. Raise DataError if one is damaged or there is none.

    FER+'s fer2013new.csv names a face by its row in fer2013.csv ("fer0000012.png"), in the column `Image name`. The
    order of its own lines means nothing: after a line without a name, it is another one. Other tables name a face by
    its image file, in the column `file`.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist: pass {SUPPORTED}")
    table = VoteTable(str(path))
    with open_container(path) as container:
        for member in _vote_members(container.members, path):
            table.files.append(PurePosixPath(member.name).name)
            where = str(path) if container.kind == "file" else f"{path}: {member.name}"
            _read_table(member, where, table)
    if not table:
        raise DataError(f"{path} has a header but no votes: download it again")
    return table


def copy_tables(source: Path, folder: Path) -> None:
    """Copy the tables of votes of one folder into another. Raises FileExistsError if two get the same name."""
    with open_container(source) as container:
        for member in _vote_members(container.members, source):
            with (folder / member.name.replace("/", "_")).open("xb") as stream:
                stream.write(member.read(MAX_TABLE_BYTES))


def join_votes(table: VoteTable, raw: RawData) -> JoinedVotes:
    """Find the votes of each face: by the row in a table, by the file name of an image.

    Raise DataError if the table has the other form, or if the labels show that votes and faces do not fit together.
    """
    votes = np.zeros((len(raw.faces), len(VOTE_CLASSES)), np.uint8)
    found = _by_file(table, raw.files) if raw.files else _by_row(table, len(raw.faces))
    for row, counts in found.items():
        votes[row] = counts
    votes[raw.faces.splits == TEST] = 0
    voted = has_votes(votes)
    if not voted.any():
        raise DataError(f"{table.where} has no votes for the training and val faces of this data set: pass {SUPPORTED}")
    for part, mask in _parts(raw, voted):
        _check_agreement(votes[mask], raw.faces.labels[mask], f"{table.where} does not fit the data set", part)
    agreement = plurality_agreement(votes[voted], raw.faces.labels[voted])
    return JoinedVotes(votes, agreement, len(table) - int(voted.sum()), tuple(table.files))


def plurality_agreement(votes: Votes, labels: Labels) -> float:
    """The share of faces whose label is the most frequent choice of the raters. NaN without faces."""
    return float((LABEL_OF_CLASS[votes.argmax(axis=1)] == labels).mean()) if len(votes) else float("nan")


def _vote_members(members: Sequence[Member], path: Path) -> list[Member]:
    """The tables of votes. Raise DataError with the reason if there are none."""
    if not members:
        raise DataError(f"{path} is empty: pass {SUPPORTED}")
    heads = [(member, _head(member)) for member in members]
    tables = [member for member, head in heads if not _missing(head)]
    if len(tables) > MAX_TABLES:
        raise DataError(f"{path} contains more than {MAX_TABLES} tables: pass only the votes")
    if not tables:
        raise DataError(_no_table(str(path), max(heads, key=lambda pair: pair[0].size)[1]))
    return tables


def _head(member: Member) -> bytes:
    with member.open() as stream:
        return stream.read(HEADER_BYTES)


def _missing(head: bytes) -> list[str]:
    """The columns that a table of votes needs and a file that starts with these bytes does not have."""
    names = column_names(head.split(b"\n", 1)[0])
    missing = [name for name in VOTE_CLASSES if name.lower() not in names]
    return missing if ROW in names or FILE in names else [FILE, *missing]


def _no_table(where: str, head: bytes) -> str:
    """The error message for a source without a table of votes, whose largest file starts with these bytes."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for magic, problem in UNSUPPORTED.items():
        if start.startswith(magic):
            return f"{where} {problem}"
    missing = _missing(head)
    if "pixels" in column_names(head.split(b"\n", 1)[0]):
        return f"{where} contains images instead of votes: pass it as SOURCE, and {SUPPORTED} as VOTES"
    if len(missing) > len(VOTE_CLASSES) // 2:
        return f"{where} is no table of votes: pass {SUPPORTED}"
    return f"{where} has no column {missing[0]}: pass {SUPPORTED}"


def _read_table(member: Member, where: str, table: VoteTable) -> None:
    """Add the rows of one table. Raise DataError for the first row that is wrong."""
    if member.size > MAX_TABLE_BYTES:
        raise DataError(f"{where} is larger than {MAX_TABLE_BYTES >> 20} MB, so it is no table of votes")
    try:
        text = member.read(MAX_TABLE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is no text in UTF-8: save it as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        names = [name.strip(' "\t\r\n').lower() for name in next(reader)]
        _check_columns(names)
        for row in reader:
            _add_row(row, names, table)
    except csv.Error as error:
        raise DataError(f"{where}: line {reader.line_num} cannot be read ({error}): download it again") from error
    except ValueError as error:
        raise DataError(f"{where}: line {reader.line_num} {error}: correct it or download the file again") from error


def _check_columns(names: Sequence[str]) -> None:
    required = [name.lower() for name in VOTE_CLASSES]
    wrong = [name for name in required if names.count(name) != 1]
    if wrong:
        raise ValueError(f"has {names.count(wrong[0])} columns {wrong[0]} instead of one")
    if names.count(ROW) + names.count(FILE) != 1:
        raise ValueError(f"has several columns with names of faces ({ROW}, {FILE}) instead of one")


def _add_row(row: Sequence[str], names: Sequence[str], table: VoteTable) -> None:
    if not row:
        return
    if len(row) != len(names):
        raise ValueError(f"has {len(row)} columns instead of {len(names)}")
    cells = dict(zip(names, map(str.strip, row), strict=True))
    counts = [_count(cells[name.lower()], name) for name in VOTE_CLASSES]
    name = cells[ROW] if ROW in cells else cells[FILE]
    if not name or not any(counts):
        return
    if len(table) >= MAX_ROWS:
        raise ValueError(f"is behind {MAX_ROWS:,} rows, more than FER-2013 has")
    if ROW in cells:
        known = table.by_row.setdefault(_row(name), counts)
    else:
        known = table.by_file.setdefault(name.replace("\\", "/").removeprefix("./"), counts)
    if known is not counts:
        raise ValueError(f"names {shorten(name, 80)} a second time")


def _count(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) > MAX_VOTES:
        raise ValueError(f"has {shorten(repr(text), 40)} votes for {name} instead of 0 to {MAX_VOTES}")
    return int(text)


def _row(name: str) -> int:
    match = IMAGE_NAME.fullmatch(name)
    if not match:
        raise ValueError(f"has the image name {shorten(repr(name), 40)} instead of one such as fer0000012.png")
    return int(match[1])


def _by_row(table: VoteTable, faces: int) -> dict[int, list[int]]:
    """The votes by the row of the face."""
    if not table.by_row:
        raise DataError(
            f"{table.where} names image files, but SOURCE is a table: pass FER+'s fer2013new.csv, or SOURCE as images"
        )
    return {row: counts for row, counts in table.by_row.items() if row < faces}


def _by_file(table: VoteTable, files: Sequence[str]) -> dict[int, list[int]]:
    """The votes by the row of the face. The end of a path is enough, if only one image has it."""
    if not table.by_file:
        raise DataError(
            f"{table.where} names the rows of fer2013.csv, but SOURCE contains images: pass fer2013.csv as SOURCE, or "
            f"a table with the columns file,{','.join(VOTE_CLASSES)}"
        )
    ends: dict[str, list[int]] = {}
    for row, file in enumerate(files):
        for end in _ends(file):
            ends.setdefault(end, []).append(row)
    found: dict[int, list[int]] = {}
    for name, counts in table.by_file.items():
        rows = ends.get(name, [])
        if len(rows) > 1 or found.keys() & rows:
            raise DataError(
                f"{table.where}: {shorten(name, 80)} and {shorten(files[rows[0]], 80)} are not one to one: write the "
                "complete names of the image files"
            )
        found.update((row, counts) for row in rows)
    return found


def _ends(file: str) -> Iterator[str]:
    """A path and its ends, such as train/fear/1.jpg, fear/1.jpg and 1.jpg."""
    names = file.split("/")
    if len(names) > MAX_DEPTH:
        yield file
    for start in range(max(0, len(names) - MAX_DEPTH), len(names)):
        yield "/".join(names[start:])


def _parts(raw: RawData, voted: NDArray[np.bool_]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """The parts of a data set whose agreement is checked, with masks of their faces with votes.

    A row that a table lacks moves all later rows, so its parts are also blocks of rows.
    """
    yield "all faces", voted
    for number, split in enumerate(SPLITS):
        yield f"the {split} split", voted & (raw.faces.splits == number)
    if not raw.files:
        rows = np.arange(len(voted))
        for start in range(0, len(voted), BLOCK):
            end = min(start + BLOCK, len(voted))
            yield f"the rows {start:,} to {end:,}", voted & (rows >= start) & (rows < end)


def _check_agreement(votes: Votes, labels: Labels, problem: str, part: str) -> None:
    if part != "all faces" and len(votes) < MIN_PART:
        return
    agreement = plurality_agreement(votes, labels)
    if agreement < MIN_AGREEMENT:
        raise DataError(
            f"{problem}: in {part}, the raters' most frequent choice is the label of {100 * agreement:.0f} % of the "
            "faces instead of about 63 %: pass the copy of the data set that the votes were made for"
        )
