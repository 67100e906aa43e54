"""The parquet files of a part: a row for each face, and a side table with the pictures that cannot be read."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emotion_detection.batch.pictures import Picture
from emotion_detection.batch.storage import Storage
from emotion_detection.inference.reading import Reading
from emotion_detection.inference.table import BOX, PROBABILITIES

BAD = "_bad"  # a folder that parquet readers skip, so that the folder above is a table of faces
ROW_GROUP = 8192  # rows in memory until they are written

PLACE: list[tuple[str, Any]] = [("source", pa.string()), ("name", pa.string()), ("index", pa.int64())]
FACES = pa.schema(
    [
        *PLACE,
        ("face", pa.int32()),  # from left to right, beginning with 0
        *((key, pa.int32()) for key in BOX),
        ("emotion", pa.string()),
        ("confidence", pa.float32()),
        ("unsure", pa.bool_()),
        *((key, pa.float32()) for key in PROBABILITIES),
        ("model", pa.string()),
        ("version", pa.int64()),  # null for a file
        ("sha256", pa.string()),  # of the model's ONNX file
    ]
)
BAD_PICTURES = pa.schema([*PLACE, ("reason", pa.string())])


@dataclass(frozen=True)
class ModelLabel:
    """What each row says about the model: its name, its version in the registry or None, and its file's SHA-256."""

    name: str
    version: int | None
    sha256: str


def part_name(number: int) -> str:
    return f"part-{number:07}.parquet"


class PartTables:
    """Collects the rows of a part and writes them in groups."""

    def __init__(self, faces: pq.ParquetWriter, bad: pq.ParquetWriter, model: ModelLabel) -> None:
        self._writers = ((faces, FACES, list[dict[str, Any]]()), (bad, BAD_PICTURES, list[dict[str, Any]]()))
        self._model = {"model": model.name, "version": model.version, "sha256": model.sha256}

    def add(self, picture: Picture, readings: Sequence[Reading]) -> None:
        """Add a row for each face of a picture."""
        for number, reading in enumerate(readings):
            self._append(0, _place(picture) | {"face": number} | _reading(reading) | self._model)

    def add_bad(self, picture: Picture, reason: str) -> None:
        """Add a picture that cannot be read."""
        self._append(1, _place(picture) | {"reason": reason})

    def _append(self, table: int, row: dict[str, Any]) -> None:
        rows = self._writers[table][2]
        rows.append(row)
        if len(rows) >= ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are in memory."""
        for writer, schema, rows in self._writers:
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema))
            rows.clear()


@contextmanager
def part_tables(out: Storage, number: int, model: ModelLabel) -> Iterator[PartTables]:
    """Write both tables of a part. The part is finished if its table of faces exists, which gets its name last."""
    with ExitStack() as stack:
        faces = _writer(stack.enter_context(out.writing(part_name(number))), FACES, stack)
        bad_path = stack.enter_context(out.writing(f"{BAD}/{part_name(number)}"))
        tables = PartTables(faces, _writer(bad_path, BAD_PICTURES, stack), model)
        yield tables
        tables.flush()


def _writer(path: Path, schema: pa.Schema, stack: ExitStack) -> pq.ParquetWriter:
    stream = stack.enter_context(path.open("wb"))  # pyarrow would take a path with a colon for an address
    return stack.enter_context(pq.ParquetWriter(stream, schema))


def finished_parts(out: Storage) -> set[int]:
    """The numbers of the parts whose tables are complete."""
    digits = (name[5:-8] for name in out.names() if name.startswith("part-") and name.endswith(".parquet"))
    return {int(number) for number in digits if number.isdigit()}


def _place(picture: Picture) -> dict[str, Any]:
    return {"source": _text(picture.source), "name": _text(picture.name), "index": picture.index}


def _text(name: str | None) -> str | None:
    """A name as text: a file name may contain bytes that are none."""
    return None if name is None else name.encode("utf-8", "replace").decode()


def _reading(reading: Reading) -> dict[str, Any]:
    values = reading.as_dict()
    row = dict(zip(BOX, values["box"], strict=True)) | dict(zip(PROBABILITIES, values["probabilities"], strict=True))
    return row | {key: values[key] for key in ("emotion", "confidence", "unsure")}
