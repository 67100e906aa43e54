"""Read faces from Hugging Face parquet files, within limits that hold before a column is decoded."""

import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from emotion_detection.data.archives import Member
from emotion_detection.data.dataset import Faces
from emotion_detection.data.image_reader import LABEL_OF_NAME, MAX_IMAGE_BYTES, EncodedFace, decode_faces, split_of
from emotion_detection.decoding.memory import memory_ceiling
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import DataError, shorten

MAX_ROWS = 100_000
BATCH = 1024
# The training split of FER-2013 has about 60 MB. Arrow decodes a file in an archive from memory.
MAX_FILE_BYTES = 96 << 20
MAX_FOOTER_BYTES = 1 << 20  # the metadata; Arrow needs about 30 times as much memory for them
MAX_METADATA_BYTES = 1 << 18
# One page or one repeated value of a few bytes can expand to gigabytes, whatever the metadata say.
CEILING = 192 << 20
SHARD = re.compile(r"(?P<before>.*?)(?P<number>\d{5})-of-(?P<total>\d{5})(?P<after>\.parquet)", re.IGNORECASE)
NUMBERED = re.compile(
    r"(?P<before>(.*/)?)(?P<number>\d{4})(?P<after>\.parquet)", re.IGNORECASE
)  # of the hub's converter


def from_parquet(members: Sequence[Member], source: str) -> tuple[Faces, str]:
    """Read parquet files with images and labels. Return the faces in the order of the rows, and the layout.

    Raises DataError if a file is damaged, too large, of another kind, or missing in a numbered series.
    """
    _check_series([member.name for member in members], source)
    tables = []
    for member in members:
        where = f"{source}: {member.name}"
        table = _open(member, where)
        tables.append((where, table, split_of(re.split("[^a-z]+", member.name.lower()))))
    rows = sum(table.metadata.num_rows for _, table, _ in tables)
    if rows > MAX_ROWS:
        raise DataError(f"{source} has {rows:,} rows, more than any copy of FER-2013: pass only the data set")
    tables.sort(key=lambda table: table[2])  # train, val, test, as in fer2013.csv; the sort is stable
    encoded = (face for where, table, split in tables for face in _rows(table, where, split))
    faces = decode_faces(encoded, rows)
    if len(faces) != rows:
        raise DataError(f"{source} contains {len(faces):,} of its {rows:,} rows: download it again")
    return faces, " and ".join(_column_names(tables[0][1], tables[0][0]))


def _check_series(names: Sequence[str], source: str) -> None:
    """Raise DataError if a file of a numbered series is missing, such as train-00001-of-00002.parquet."""
    present: dict[tuple[str, str, str], set[int]] = {}
    for name in names:
        if match := SHARD.fullmatch(name):
            key = (match["before"], match["total"], match["after"])
        elif match := NUMBERED.fullmatch(name):
            key = (match["before"], "", match["after"])
        else:
            continue
        present.setdefault(key, set()).add(int(match["number"]))
    for (before, total, after), numbers in sorted(present.items()):
        missing = next((number for number in range(int(total or max(numbers) + 1)) if number not in numbers), None)
        if missing is not None:
            name = f"{before}{missing:05}-of-{total}{after}" if total else f"{before}{missing:04}{after}"
            raise DataError(
                f"{source}: {name} is missing: download it too, and pass the folder that contains all files"
            )


def _open(member: Member, where: str) -> Any:
    """Open a file after a look at its size and that of its metadata."""
    import pyarrow.parquet as pq

    if member.size > MAX_FILE_BYTES:
        raise DataError(f"{where} is larger than {MAX_FILE_BYTES >> 20} MiB: pass only FER-2013")
    stream: BinaryIO = member.file.open("rb") if member.file else io.BytesIO(member.read(MAX_FILE_BYTES))
    _check_footer(stream, where)
    with _translate_errors(where):
        # A file is read sequentially, and the memory map would count as memory.
        table = pq.ParquetFile(stream, pre_buffer=False, memory_map=False)
        _check_types(table, where)
    return table


def _check_footer(stream: BinaryIO, where: str) -> None:
    stream.seek(0, io.SEEK_END)
    size = stream.tell()
    stream.seek(max(0, size - 8))
    end = stream.read(8)
    stream.seek(0)
    footer = int.from_bytes(end[:4], "little")
    if len(end) < 8 or end[4:] != b"PAR1" or not 0 < footer <= min(size - 12, MAX_FOOTER_BYTES):
        raise DataError(f"{where} is a damaged parquet file: download it again")


def _check_types(table: Any, where: str) -> None:
    """Raise DataError unless the images are bytes and the labels integers; a list could have any length."""
    import pyarrow as pa

    image_column, label_column = _column_names(table, where)
    schema = table.schema_arrow
    image, label = schema.field(image_column).type, schema.field(label_column).type
    if pa.types.is_struct(image):
        field = image.get_field_index("bytes")
        image = image.field(field).type if field >= 0 else pa.null()
    if image not in (pa.binary(), pa.large_binary()) or not pa.types.is_integer(label):
        raise DataError(
            f"{where} has the types {shorten(image, 40)} and {shorten(label, 40)} in {image_column} and {label_column} "
            "instead of bytes and numbers: use a file with encoded images"
        )


@contextmanager
def _translate_errors(where: str) -> Iterator[None]:
    """Raise DataError for what Arrow raises, or if it needs more memory than the ceiling."""
    import pyarrow as pa

    try:
        with memory_ceiling(CEILING):
            yield
    except MemoryError as error:  # also pa.ArrowMemoryError
        raise DataError(f"{where} unpacks to far more than FER-2013: use a copy from a trusted source") from error
    except (pa.ArrowException, OSError, ValueError, LookupError, ArithmeticError, RuntimeError, TypeError) as error:
        raise DataError(f"{where} is a damaged parquet file: download it again") from error


def _rows(table: Any, where: str, split: int) -> Iterator[EncodedFace]:
    image_column, label_column = _column_names(table, where)
    label_of = _label_mapping(table, label_column, where)
    for row, (content, label) in enumerate(_cells(table, where, (image_column, label_column)), 1):
        if not isinstance(content, bytes):
            raise DataError(f"{where}: row {row} contains no image: download the file again")
        if label not in label_of:
            raise DataError(f"{where}: row {row} has label {label!r} instead of 0 to 6: download the file again")
        yield EncodedFace(f"{where}: row {row}", split, label_of[label], content)


def _cells(table: Any, where: str, names: tuple[str, str]) -> Iterator[tuple[bytes | None, int | None]]:
    with _translate_errors(where):
        nested = f"{names[0]}.bytes" in _leaves(table)
        columns = [f"{names[0]}.bytes" if nested else names[0], names[1]]  # the paths in the struct are not read
        batches = table.iter_batches(BATCH, columns=columns, use_threads=False)
    while True:
        with _translate_errors(where):
            batch = next(batches, None)
        if batch is None:
            return
        if batch.nbytes > BATCH * MAX_IMAGE_BYTES:
            raise DataError(f"{where} contains images of more than {MAX_IMAGE_BYTES:,} bytes: use 48x48 pixels")
        images = batch[names[0]]
        if nested:
            images = images.field("bytes")
        for image, label in zip(images, batch[names[1]], strict=True):
            yield image.as_py(), label.as_py()


def _leaves(table: Any) -> list[str]:
    return [table.schema.column(number).path for number in range(len(table.schema))]


def _column_names(table: Any, where: str) -> tuple[str, str]:
    """The names of the image and label columns."""
    names = table.schema_arrow.names
    for pair in (("image", "label"), ("img_bytes", "labels")):
        if all(names.count(name) == 1 for name in pair):
            return pair
    found = shorten(", ".join(map(str, names[:10])))
    raise DataError(f"{where} has the columns {found}: use a file with the columns image and label")


def _label_mapping(table: Any, column: str, where: str) -> dict[int, int]:
    """Labels by the numbers in the file: by its class names if it contains them, else in the order of fer2013.csv."""
    names = _class_names(table, column, where) or list(EMOTIONS)
    unknown = [name for name in names if name.lower() not in LABEL_OF_NAME]
    if unknown:
        raise DataError(f"{where} has a class named {unknown[0][:40]!r}: use the classes {', '.join(EMOTIONS)}")
    return {number: LABEL_OF_NAME[name.lower()] for number, name in enumerate(names)}


def _class_names(table: Any, column: str, where: str) -> list[str]:
    """The class names that Hugging Face writes into the metadata; an empty list if there are none."""
    text = (table.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    try:
        if len(text) > MAX_METADATA_BYTES:
            raise ValueError("too long")
        value = json.loads(text)
        for key in ("info", "features", column, "names"):
            value = value.get(key) or {}
        names = value or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError("no list of names")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{where} has damaged metadata of Hugging Face: download it again") from error
    return names
