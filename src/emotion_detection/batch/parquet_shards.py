"""Read encoded pictures from a parquet file, within limits that hold before a column is decoded."""

import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emotion_detection.decoding.memory import memory_ceiling
from emotion_detection.errors import DataError, shorten

# The names of the column with the pictures, in this order; if there is none of them, the only column of bytes.
COLUMNS = ("image", "picture", "photo", "face", "content", "bytes", "img", "img_bytes", "jpg", "jpeg", "png", "webp")
ROWS = 16  # decoded at once
MAX_FOOTER_BYTES = 1 << 26  # the metadata
BUFFER_BYTES = 1 << 20
CEILING = 1 << 30  # of the memory that Arrow may reserve: a page of a few bytes can expand to gigabytes


def open_parquet(stream: Any) -> pq.ParquetFile:
    """Open a parquet file after a look at the size of its metadata. Raises DataError or an exception of Arrow."""
    stream.seek(0, io.SEEK_END)
    size = stream.tell()
    stream.seek(max(0, size - 8))
    end = stream.read(8)
    stream.seek(0)
    footer = int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or not 0 < footer <= min(size - 12, MAX_FOOTER_BYTES):
        raise DataError("it is a damaged parquet file: download it again")
    with memory_ceiling(CEILING):
        return pq.ParquetFile(stream, pre_buffer=False, buffer_size=BUFFER_BYTES, memory_map=False)


def read_rows(stream: Any, start: int, stop: int | None) -> Iterator[tuple[int, bytes | None]]:
    """Yield the number and the picture of each row in [start, stop). Raises as `open_parquet` does."""
    table = open_parquet(stream)
    column, leaf = _picture_column(table.schema_arrow)
    groups, row = _row_groups(table, start, stop)
    batches = table.iter_batches(ROWS, row_groups=groups, columns=[leaf], use_threads=False)
    while True:
        with memory_ceiling(CEILING):
            batch = next(batches, None)
        if batch is None:
            return
        cells = batch[column]
        for cell in cells.field("bytes") if pa.types.is_struct(cells.type) else cells:
            if stop is not None and row >= stop:
                return
            if row >= start:
                yield row, cell.as_py()
            row += 1


def _row_groups(table: pq.ParquetFile, start: int, stop: int | None) -> tuple[list[int], int]:
    """The row groups that contain the rows [start, stop), and the number of the first row of the first group."""
    groups: list[int] = []
    first = row = 0
    for group in range(table.num_row_groups):
        end = row + table.metadata.row_group(group).num_rows
        if end > start and (stop is None or row < stop):
            first = first if groups else row
            groups.append(group)
        row = end
    return groups, first


def _picture_column(schema: pa.Schema) -> tuple[str, str]:
    """The name of the column with the pictures, and the path of its bytes in the file."""
    leaves = {field.name: leaf for field in schema if (leaf := _leaf(field)) and schema.names.count(field.name) == 1}
    lower = {name.lower(): name for name in leaves}
    known = [lower[name] for name in COLUMNS if name in lower]
    if not known and len(leaves) != 1:
        found = shorten(", ".join(map(str, schema.names[:10])))
        raise DataError(f"it has no column of pictures among {found}: name the column of bytes {COLUMNS[0]}")
    name = (known or list(leaves))[0]
    return name, leaves[name]


def _leaf(field: pa.Field) -> str | None:
    """The path of a column of bytes, which may be in a struct as Hugging Face writes it; None for another type."""
    if field.type in (pa.binary(), pa.large_binary()):
        return str(field.name)
    if pa.types.is_struct(field.type):
        place = field.type.get_field_index("bytes")
        if place >= 0 and field.type.field(place).type in (pa.binary(), pa.large_binary()):
            return f"{field.name}.bytes"
    return None
