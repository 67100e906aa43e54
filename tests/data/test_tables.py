"""Several tables of a source are read together, and their split is kept."""

from dataclasses import replace

import numpy as np
import pytest
from tests.support.fer_files import csv_table, parquet, random_faces, write_file, write_folder, write_zip

from emotion_detection.data import csv_reader
from emotion_detection.data.dataset import NO_SPLIT, Faces
from emotion_detection.data.formats import RawData, read_raw
from emotion_detection.errors import DataError

FACES = random_faces()
ROWS = np.arange(len(FACES))
UNSPLIT = "emotion,pixels"


def read(tmp_path, tables: dict[str, str]) -> RawData:
    """Read a folder with these tables, and compare it with a zip file of them."""
    members = {name: content.encode() for name, content in tables.items()}
    raw = read_raw(write_folder(tmp_path / "d", members))
    zipped = read_raw(write_zip(tmp_path / "x.zip", members))
    assert_rows(zipped.faces, raw.faces)
    assert zipped.notes == raw.notes
    return raw


def assert_rows(faces: Faces, expected: Faces) -> None:
    np.testing.assert_array_equal(faces.images, expected.images)
    np.testing.assert_array_equal(faces.labels, expected.labels)
    np.testing.assert_array_equal(faces.splits, expected.splits)


@pytest.mark.parametrize("names", [("train.csv", "val.csv", "test.csv"), ("Training.csv", "valid.csv", "my_test.csv")])
def test_split_is_the_name_of_the_table(tmp_path, names):
    raw = read(
        tmp_path, dict(zip(names, (csv_table(FACES.of(s), UNSPLIT) for s in ("train", "val", "test")), strict=True))
    )
    assert_rows(raw.faces, FACES)
    assert raw.form.startswith("3 CSV tables emotion,pixels in a ")
    assert not any("split" in note for note in raw.notes)


def test_parts_of_a_table_are_joined(tmp_path):
    half = ROWS < 30
    for header in ("emotion,pixels,Usage", UNSPLIT):
        raw = read(
            tmp_path, {"part1.csv": csv_table(FACES[half], header), "part2.csv": csv_table(FACES[~half], header)}
        )
        splits = FACES.splits if "Usage" in header else np.full(len(FACES), NO_SPLIT, np.uint8)
        assert_rows(raw.faces, replace(FACES, splits=splits))


def test_part_without_a_header_is_refused(tmp_path):
    first, second = csv_table(FACES[ROWS < 30]), csv_table(FACES[ROWS >= 30]).split("\n", 1)[1]
    with pytest.raises(DataError, match=r"b\.csv has no header line: .* join the parts of the table"):
        read(tmp_path, {"a.csv": first, "b.csv": second})
    table = csv_table(FACES)
    for place in (len(first), len(first) + 1000):  # as `split -l` and `split -b` write them
        with pytest.raises(DataError, match=r"xab has no header line"):
            read_raw(write_folder(tmp_path / "split", {"xaa": table[:place].encode(), "xab": table[place:].encode()}))
    with pytest.raises(DataError, match="has no header line"):
        read_raw(write_file(tmp_path / "x", second))


def test_table_that_repeats_another_is_left_out(tmp_path):
    """The competition offers icml_face_data.csv, train.csv and, without labels, test.csv."""
    raw = read(
        tmp_path,
        {
            "icml_face_data.csv": csv_table(FACES, "emotion, Usage, pixels"),
            "train.csv": csv_table(FACES.of("train"), UNSPLIT),
            "test.csv": csv_table(FACES.of("test"), "pixels"),
        },
    )
    assert_rows(raw.faces, FACES)
    assert "train.csv repeats rows of icml_face_data.csv and was left out" in raw.notes
    assert "1 other file was not read: test.csv" in raw.notes


def test_complete_table_next_to_its_splits_is_left_out(tmp_path):
    parts = {f"{split}.csv": csv_table(FACES.of(split), UNSPLIT) for split in ("train", "val", "test")}
    assert_rows(read(tmp_path, {"all.csv": csv_table(FACES[ROWS[::-1]], UNSPLIT)} | parts).faces, FACES)


def test_copies_between_train_and_test_are_kept(tmp_path):
    train, test = FACES.of("train"), FACES.of("train")[ROWS[:5]]
    raw = read(tmp_path, {"train.csv": csv_table(train, UNSPLIT), "test.csv": csv_table(test, UNSPLIT)})
    assert np.bincount(raw.faces.splits).tolist() == [len(train), 0, 5]


def test_table_whose_name_is_no_split_is_noted(tmp_path):
    parts = {split: csv_table(FACES.of(split), UNSPLIT) for split in ("train", "val", "test")}
    raw = read(tmp_path, {"train.csv": parts["train"], "test.csv": parts["test"], "extra.csv": parts["val"]})
    assert np.sum(raw.faces.splits == NO_SPLIT) == 12
    assert any("12 faces are in no folder or file named after a split" in note for note in raw.notes)


def test_smaller_format_is_named_and_not_read(tmp_path):
    members = {"fer2013.csv": csv_table(FACES).encode(), "old.parquet": parquet(FACES[ROWS < 5])}
    raw = read_raw(write_folder(tmp_path / "d", members))
    assert len(raw.faces) == len(FACES)
    assert "1 other file was not read: old.parquet" in raw.notes


def test_too_many_rows_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_reader, "MAX_ROWS", 50)
    with pytest.raises(DataError, match="has more than 50 rows, more than any copy of FER-2013"):
        read_raw(write_file(tmp_path / "x", csv_table(FACES)))
    monkeypatch.setattr("emotion_detection.data.tables.MAX_ROWS", 50)
    parts = {f"{split}.csv": csv_table(FACES.of(split), UNSPLIT) for split in ("train", "val", "test")}
    with pytest.raises(DataError, match="contains more than 50 rows"):
        read(tmp_path, parts)


def test_repeated_column_is_refused(tmp_path):
    table = csv_table(FACES, "emotion,pixels,emotion")
    with pytest.raises(DataError, match="has two columns emotion: remove the wrong one"):
        read_raw(write_file(tmp_path / "x", table))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_table_in_utf_16_is_refused(tmp_path, encoding):
    content = csv_table(FACES[ROWS < 3]).encode(encoding)
    with pytest.raises(DataError, match="is text in UTF-16: save it as UTF-8"):
        read_raw(write_file(tmp_path / "x", content))
