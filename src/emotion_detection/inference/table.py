"""Readings as a table: one row a face, written to a file as the rows come, and counted."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emotion_detection.atomic import atomic_output
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import InputError
from emotion_detection.inference.reading import Reading

Row = dict[str, Any]
Write = Callable[[Iterable[Row]], None]

PROBABILITIES = tuple(f"p_{emotion}" for emotion in EMOTIONS)
# frame, from 0, and time_s are empty for a picture, track wherever nobody is followed. The box is in px.
PLACE = ("source", "frame", "time_s", "track", "left", "top", "width", "height")
COLUMNS = (*PLACE, "emotion", "confidence", "unsure", *PROBABILITIES)
PEOPLE = 8  # told one by one
GROUP = 8192  # rows of a parquet file that are held until they are written


def rows(
    readings: Sequence[Reading], source: str, *, frame: int | None = None, time_s: float | None = None
) -> list[Row]:
    """One row a reading, its keys COLUMNS; seconds are rounded to 3 places, probabilities to 4."""
    name = source.encode("utf-8", "replace").decode()  # a file's name may be no text at all
    at: Row = {"source": name, "frame": frame, "time_s": None if time_s is None else round(time_s, 3)}
    return [at | _row(reading) for reading in readings]


def _row(reading: Reading) -> Row:
    box = reading.box
    row: Row = {"track": reading.track, "left": box.left, "top": box.top, "width": box.width, "height": box.height}
    row |= {"emotion": reading.emotion, "confidence": round(reading.confidence, 4), "unsure": bool(reading.unsure)}
    shares = (round(float(share), 4) for share in reading.probabilities)
    return row | dict(zip(PROBABILITIES, shares, strict=True))


@contextmanager
def table(path: Path) -> Iterator[Write]:
    """A function that appends rows to a file, whole under its name when the block ends well, else not there.

    The suffix decides: .csv (UTF-8, with a header), .json (one list, one row a line), .parquet (needs pyarrow).
    Memory does not grow with the rows. InputError for another suffix and for a missing pyarrow.
    """
    write_to = WRITERS.get(path.suffix.lower())
    if write_to is None:
        raise InputError(f"{path} ends in none of {', '.join(WRITERS)}: a table has one of these forms")
    with atomic_output(path) as written, write_to(written) as write:
        yield write


@contextmanager
def _csv(path: Path) -> Iterator[Write]:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        yield writer.writerows


@contextmanager
def _json(path: Path) -> Iterator[Write]:
    """A list, because a .json file of anything else is none to most readers; a row a line, so that it streams."""
    with path.open("w", encoding="utf-8") as stream:
        separator = "[\n"

        def write(rows: Iterable[Row]) -> None:
            nonlocal separator
            for row in rows:
                stream.write(separator + json.dumps(row, ensure_ascii=False))
                separator = ",\n"

        yield write
        stream.write("[]\n" if separator == "[\n" else "\n]\n")


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise InputError(f"{path.name} needs pyarrow: pip install 'emotion-detection[train]', or write .csv") from error
    types = dict.fromkeys(COLUMNS, pa.int32()) | dict.fromkeys(("confidence", *PROBABILITIES), pa.float32())
    types |= {"source": pa.string(), "emotion": pa.string(), "time_s": pa.float64(), "unsure": pa.bool_()}
    schema = pa.schema(list(types.items()))
    held: list[Row] = []
    with pq.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(held, schema))
            held.clear()

        def write(rows: Iterable[Row]) -> None:
            held.extend(rows)
            if len(held) >= GROUP:
                flush()

        yield write
        flush()


WRITERS = {".csv": _csv, ".json": _json, ".parquet": _parquet}


class Tally:
    """Counts rows as they come: of all, and of each person who is followed."""

    def __init__(self) -> None:
        self.emotions: Counter[str] = Counter()
        self.unsure: Counter[str] = Counter()
        self.tracks: dict[int, Counter[str]] = {}

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.emotions[row["emotion"]] += 1
            self.unsure[row["emotion"]] += row["unsure"]
            if row["track"] is not None:
                self.tracks.setdefault(row["track"], Counter())[row["emotion"]] += 1

    def summary(self, seen: int, unit: str) -> Iterator[str]:
        """Lines for a person: how much was read, then what each of those seen longest showed.

        seen counts the units, "frame" or "picture".
        """
        faces, unsure = sum(self.emotions.values()), sum(self.unsure.values())
        told = f": {_most(self.emotions)}" if faces else ""
        yield f"{_count(seen, unit)}, {_count(faces, 'face')}{told}" + f" ({unsure:,} unsure)" * bool(unsure)
        frames = {track: sum(emotions.values()) for track, emotions in self.tracks.items()}
        for track in sorted(sorted(frames, key=lambda track: -frames[track])[:PEOPLE]):
            yield f"  person {track}: {_count(frames[track], 'frame')}, {_most(self.tracks[track])}"
        if len(frames) > PEOPLE:
            yield f"  and {len(frames) - PEOPLE:,} more, seen for less long"


def _most(emotions: Counter[str]) -> str:
    total = sum(emotions.values())
    return ", ".join(f"{emotion} {count / total:.0%}" for emotion, count in emotions.most_common())


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"
