"""Write readings to a table with one row per face, and count them."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emotion_detection.atomic import atomic_output
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import UsageError
from emotion_detection.inference.reading import Reading

Row = dict[str, Any]
Write = Callable[[Iterable[Row]], None]

# frame, which starts with 0, and time_s are empty for an image; track is empty without tracking. The box is in px.
BOX = ("left", "top", "width", "height")
PROBABILITIES = tuple(f"p_{emotion}" for emotion in EMOTIONS)
COLUMNS = ("source", "frame", "time_s", "track", *BOX, "emotion", "confidence", "unsure", *PROBABILITIES)
MAX_LISTED_PEOPLE = 8
ROW_GROUP = 8192  # rows of a parquet file that are kept in memory until they are written


def rows(
    readings: Sequence[Reading], source: str, *, frame: int | None = None, time_s: float | None = None
) -> list[Row]:
    """Return a row for each reading, with the keys COLUMNS. Seconds are rounded to 3 places, probabilities to 4."""
    name = source.encode("utf-8", "replace").decode()  # a file name may contain bytes that are not text
    position: Row = {"source": name, "frame": frame, "time_s": None if time_s is None else round(time_s, 3)}
    return [position | _row(reading) for reading in readings]


def _row(reading: Reading) -> Row:
    values = reading.as_dict()
    row: Row = {"track": values["track"], **dict(zip(BOX, values["box"], strict=True))}
    row |= {key: values[key] for key in ("emotion", "confidence", "unsure")}
    return row | dict(zip(PROBABILITIES, values["probabilities"], strict=True))


@contextmanager
def table(path: Path) -> Iterator[Write]:
    """Yield a function that appends rows. The file gets its name if the block succeeds; otherwise no file is left.

    The suffix selects the format: .csv (UTF-8, with a header), .json (a list with one row per line), .parquet (needs
    pyarrow). Rows are not kept in memory. Raises UsageError for another suffix or if pyarrow is missing.
    """
    write_to = WRITERS.get(path.suffix.lower())
    if write_to is None:
        raise UsageError(f"{path} is not a known table format: use one of the suffixes {', '.join(WRITERS)}")
    with atomic_output(path) as temporary, write_to(temporary) as write:
        yield write


@contextmanager
def _csv(path: Path) -> Iterator[Write]:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        yield writer.writerows


@contextmanager
def _json(path: Path) -> Iterator[Write]:
    """Write a list, because most programs expect one in a .json file, with a row per line."""
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
        raise UsageError(f"{path.suffix} needs pyarrow: pip install pyarrow, or write .csv") from error
    types = dict.fromkeys(COLUMNS, pa.int32()) | dict.fromkeys(("confidence", *PROBABILITIES), pa.float32())
    types |= {"source": pa.string(), "emotion": pa.string(), "time_s": pa.float64(), "unsure": pa.bool_()}
    schema = pa.schema(list(types.items()))
    pending: list[Row] = []
    # pyarrow would take a path with a colon, such as 10:30.parquet, for an address.
    with path.open("wb") as stream, pq.ParquetWriter(stream, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(pending, schema))
            pending.clear()

        def write(rows: Iterable[Row]) -> None:
            pending.extend(rows)
            if len(pending) >= ROW_GROUP:
                flush()

        yield write
        flush()


WRITERS = {".csv": _csv, ".json": _json, ".parquet": _parquet}


class Tally:
    """Counts the emotions of rows, in total and for each person."""

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

    def summary(self, count: int, unit: str) -> Iterator[str]:
        """Yield lines of text: the totals, then the people with the most frames.

        count: how many units ("frame" or "picture") were read.
        """
        faces, unsure = sum(self.emotions.values()), sum(self.unsure.values())
        emotions = f": {_percentages(self.emotions)}" if faces else ""
        yield f"{_plural(count, unit)}, {_plural(faces, 'face')}{emotions}" + f" ({unsure:,} unsure)" * bool(unsure)
        frames = {track: sum(emotions.values()) for track, emotions in self.tracks.items()}
        for track in sorted(sorted(frames, key=lambda track: -frames[track])[:MAX_LISTED_PEOPLE]):
            yield f"  person {track}: {_plural(frames[track], 'frame')}, {_percentages(self.tracks[track])}"
        if len(frames) > MAX_LISTED_PEOPLE:
            yield f"  and {len(frames) - MAX_LISTED_PEOPLE:,} more people with fewer frames"


def _percentages(emotions: Counter[str]) -> str:
    total = sum(emotions.values())
    return ", ".join(f"{emotion} {count / total:.0%}" for emotion, count in emotions.most_common())


def _plural(count: int, unit: str) -> str:
    return f"{count:,} {unit}{'' if count == 1 else 's'}"
