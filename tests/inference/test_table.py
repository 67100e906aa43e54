"""Every table format contains the same rows, and a table is either complete or absent."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import UsageError
from emotion_detection.inference.reading import Box, Reading
from emotion_detection.inference.table import COLUMNS, PROBABILITIES, ROW_GROUP, Tally, rows, table

SUFFIXES = (".csv", ".json", ".parquet")


def reading(emotion="happy", share=0.9, *, track=None):
    probabilities = np.full(len(EMOTIONS), (1 - share) / 6, np.float32)
    probabilities[EMOTIONS.index(emotion)] = share
    return Reading(Box(1, 2, 30, 40), probabilities, track)


STILL = rows([reading(), reading("sad", 0.25)], 'a,b "ü".jpg')
VIDEO = [
    row
    for number in range(5)
    for row in rows([reading(track=1), reading("fear", track=2)], "v.mp4", frame=number, time_s=number / 30)
]


def as_csv(row):
    return {key: "" if value is None else str(value) for key, value in row.items()}


def read(path):
    """The rows of a table; those of a csv contain text."""
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def written(path, *parts):
    with table(path) as write:
        for part in parts:
            write(part)
    return read(path)


def test_row_contains_all_values_of_a_reading():
    row = VIDEO[3]
    assert tuple(row) == COLUMNS
    assert (row["source"], row["frame"], row["time_s"], row["track"]) == ("v.mp4", 1, 0.033, 2)
    assert (row["left"], row["top"], row["width"], row["height"]) == (1, 2, 30, 40)
    assert (row["emotion"], row["confidence"], row["unsure"]) == ("fear", 0.9, False)
    assert sum(row[name] for name in PROBABILITIES) == pytest.approx(1, abs=1e-3)
    still = STILL[1]
    assert (still["frame"], still["time_s"], still["track"], still["unsure"]) == (None, None, None, True)


def test_rows_are_written_as_csv(tmp_path):
    assert written(tmp_path / "t.csv", STILL, VIDEO) == [as_csv(row) for row in STILL + VIDEO]
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)


def test_rows_are_written_as_json(tmp_path):
    assert written(tmp_path / "t.json", STILL, VIDEO) == STILL + VIDEO
    assert len((tmp_path / "t.json").read_text(encoding="utf-8").splitlines()) == len(STILL + VIDEO) + 2


def test_rows_are_written_as_parquet(tmp_path):
    table_rows = written(tmp_path / "t.parquet", STILL, VIDEO)
    assert [tuple(row) for row in table_rows] == [COLUMNS] * 12
    for row, expected in zip(table_rows, STILL + VIDEO, strict=True):
        assert row == {
            key: pytest.approx(value, abs=1e-6) if key in PROBABILITIES or key == "confidence" else value
            for key, value in expected.items()
        }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_table_is_valid(suffix, tmp_path):
    assert written(tmp_path / f"t{suffix}", [], []) == []
    if suffix == ".parquet":
        assert tuple(pq.read_schema(tmp_path / "t.parquet").names) == COLUMNS


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_failure_leaves_no_table(suffix, tmp_path):
    path = tmp_path / f"t{suffix}"

    def fail():
        with table(path) as write:
            write(VIDEO)
            assert not path.exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())


def test_rows_are_not_kept_in_memory(tmp_path):
    with table(tmp_path / "t.parquet") as write:
        for _ in range(3 * ROW_GROUP // len(VIDEO)):
            write(VIDEO)
    metadata = pq.ParquetFile(tmp_path / "t.parquet").metadata
    assert metadata.num_rows == 3 * ROW_GROUP // len(VIDEO) * len(VIDEO)
    assert metadata.num_row_groups >= 3
    with table(tmp_path / "t.csv") as write:
        for _ in range(3 * ROW_GROUP // len(VIDEO)):
            write(VIDEO)
        assert (tmp_path / "unfinished-t.csv").stat().st_size > 1_000_000


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_name_with_a_colon_is_no_address(suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with table(Path(f"10:30{suffix}")) as write:
        write(STILL)
    assert (tmp_path / f"10:30{suffix}").is_file()


def test_unknown_suffix_is_reported(tmp_path):
    with (
        pytest.raises(UsageError, match=r"suffixes \.csv, \.json, \.parquet"),
        table(tmp_path / "t.xlsx"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_missing_pyarrow_is_reported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="pip install pyarrow"), table(tmp_path / "t.parquet"):
        pass
    assert not list(tmp_path.iterdir())
    assert written(tmp_path / "t.csv", STILL)


def test_file_name_with_invalid_bytes_is_written(tmp_path):
    assert written(tmp_path / "t.csv", rows([reading()], "a\udcff.jpg"))[0]["source"] == "a?.jpg"


def summarize(*parts, count, unit):
    tally = Tally()
    for part in parts:
        tally.add(part)
    return list(tally.summary(count, unit))


def test_summary_contains_counts_and_percentages():
    assert summarize(count=1, unit="picture") == ["1 picture, 0 faces"]
    assert summarize(STILL, count=1, unit="picture") == ["1 picture, 2 faces: happy 50%, sad 50% (1 unsure)"]
    assert summarize(VIDEO, count=5, unit="frame") == [
        "5 frames, 10 faces: happy 50%, fear 50%",
        "  person 1: 5 frames, happy 100%",
        "  person 2: 5 frames, fear 100%",
    ]


def test_summary_lists_the_people_with_the_most_frames():
    crowd = [rows([reading(track=track)], "v.mp4", frame=0, time_s=0.0) for track in (*range(1, 20), 19)]
    lines = summarize(*crowd, count=1, unit="frame")
    assert len(lines) == 10
    assert lines[-2:] == ["  person 19: 2 frames, happy 100%", "  and 11 more people with fewer frames"]
