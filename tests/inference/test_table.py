"""A table holds each reading once, in every form alike, and is whole or not there."""

import csv
import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import InputError
from emotion_detection.inference.reading import Box, Reading
from emotion_detection.inference.table import COLUMNS, GROUP, PROBABILITIES, Tally, rows, table

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
    """The rows of a table in any of its forms, a csv's as they were before they became text."""
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


def test_a_row_tells_all_of_a_reading():
    row = VIDEO[3]
    assert tuple(row) == COLUMNS
    assert (row["source"], row["frame"], row["time_s"], row["track"]) == ("v.mp4", 1, 0.033, 2)
    assert (row["left"], row["top"], row["width"], row["height"]) == (1, 2, 30, 40)
    assert (row["emotion"], row["confidence"], row["unsure"]) == ("fear", 0.9, False)
    assert sum(row[name] for name in PROBABILITIES) == pytest.approx(1, abs=1e-3)
    still = STILL[1]
    assert (still["frame"], still["time_s"], still["track"], still["unsure"]) == (None, None, None, True)


def test_a_table_is_csv(tmp_path):
    assert written(tmp_path / "t.csv", STILL, VIDEO) == [as_csv(row) for row in STILL + VIDEO]
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)


def test_a_table_is_json(tmp_path):
    assert written(tmp_path / "t.json", STILL, VIDEO) == STILL + VIDEO
    assert len((tmp_path / "t.json").read_text(encoding="utf-8").splitlines()) == len(STILL + VIDEO) + 2


def test_a_table_is_parquet(tmp_path):
    found = written(tmp_path / "t.parquet", STILL, VIDEO)
    assert [tuple(row) for row in found] == [COLUMNS] * 12
    for row, expected in zip(found, STILL + VIDEO, strict=True):
        assert row == {
            key: pytest.approx(value, abs=1e-6) if key in PROBABILITIES or key == "confidence" else value
            for key, value in expected.items()
        }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_without_rows_has_its_form(suffix, tmp_path):
    assert written(tmp_path / f"t{suffix}", [], []) == []
    if suffix == ".parquet":
        assert tuple(pq.read_schema(tmp_path / "t.parquet").names) == COLUMNS


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_is_whole_or_not_there(suffix, tmp_path):
    path = tmp_path / f"t{suffix}"

    def fail():
        with table(path) as write:
            write(VIDEO)
            assert not path.exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())


def test_rows_are_not_gathered_but_written(tmp_path):
    with table(tmp_path / "t.parquet") as write:
        for _ in range(3 * GROUP // len(VIDEO)):
            write(VIDEO)
    found = pq.ParquetFile(tmp_path / "t.parquet").metadata
    assert found.num_rows == 3 * GROUP // len(VIDEO) * len(VIDEO)
    assert found.num_row_groups >= 3
    with table(tmp_path / "t.csv") as write:
        for _ in range(3 * GROUP // len(VIDEO)):
            write(VIDEO)
        assert (tmp_path / "unfinished-t.csv").stat().st_size > 1_000_000


def test_another_form_is_told(tmp_path):
    with pytest.raises(InputError, match=r"ends in none of .csv, .json, .parquet"), table(tmp_path / "t.xlsx"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_missing_pyarrow_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'emotion-detection\[train\]'"), table(tmp_path / "t.parquet"):
        pass
    assert not list(tmp_path.iterdir())
    assert written(tmp_path / "t.csv", STILL)


def test_a_name_that_is_no_text_is_written_all_the_same(tmp_path):
    assert written(tmp_path / "t.csv", rows([reading()], "a\udcff.jpg"))[0]["source"] == "a?.jpg"


def told(*parts, seen, unit):
    tally = Tally()
    for part in parts:
        tally.add(part)
    return list(tally.summary(seen, unit))


def test_a_summary_counts():
    assert told(seen=1, unit="picture") == ["1 picture, 0 faces"]
    assert told(STILL, seen=1, unit="picture") == ["1 picture, 2 faces: happy 50%, sad 50% (1 unsure)"]
    assert told(VIDEO, seen=5, unit="frame") == [
        "5 frames, 10 faces: happy 50%, fear 50%",
        "  person 1: 5 frames, happy 100%",
        "  person 2: 5 frames, fear 100%",
    ]


def test_of_many_people_a_summary_names_those_seen_longest():
    crowd = [rows([reading(track=track)], "v.mp4", frame=0, time_s=0.0) for track in (*range(1, 20), 19)]
    lines = told(*crowd, seen=1, unit="frame")
    assert len(lines) == 10
    assert lines[-2:] == ["  person 19: 2 frames, happy 100%", "  and 11 more, seen for less long"]
