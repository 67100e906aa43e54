"""A changed label, pixel or face of a source is named as such, in every form of the data."""

from dataclasses import replace

import numpy as np
import pytest
from tests.support.fer_files import csv_table, kaggle_members, random_faces, write_zip

from emotion_detection.reporting.data_changes import describe_changes

ROW = 40  # a face of val; labels are the row modulo 7


@pytest.fixture
def faces():
    return random_faces()


def relabeled(faces):
    labels = faces.labels.copy()
    labels[ROW] = 0  # was 5
    return replace(faces, labels=labels)


def redrawn(faces):
    images = faces.images.copy()
    images[ROW, 3, 3] ^= 1
    return replace(faces, images=images)


def write_table(faces, folder):
    folder.mkdir()
    (folder / "fer2013.csv").write_text(csv_table(faces))
    return folder


def write_pictures(faces, folder):
    for name, content in kaggle_members(faces).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_archive(faces, folder):
    folder.mkdir()
    write_zip(folder / "archive.zip", kaggle_members(faces))
    return folder


@pytest.fixture(params=[write_table, write_pictures, write_archive])
def write(request):
    return request.param


def test_equal_sources_have_no_changes(faces, write, tmp_path):
    assert describe_changes(write(faces, tmp_path / "a"), write(faces, tmp_path / "b")) == ""


def test_changed_label_is_named(faces, write, tmp_path):
    text = describe_changes(write(faces, tmp_path / "a"), write(relabeled(faces), tmp_path / "b"))
    assert text.startswith("1 label has changed (")
    assert text.endswith(": surprise is now angry)")
    assert ("row 41" if write is write_table else "PublicTest_5") in text


def test_changed_pixel_is_named(faces, write, tmp_path):
    text = describe_changes(write(faces, tmp_path / "a"), write(redrawn(faces), tmp_path / "b"))
    assert text.startswith("1 face has other pixels (")


def test_missing_and_new_faces_are_named(faces, write, tmp_path):
    fewer = faces[np.arange(len(faces)) < len(faces) - 5]
    full, short = write(faces, tmp_path / "a"), write(fewer, tmp_path / "b")
    assert describe_changes(full, short).startswith("5 faces are missing (")
    assert describe_changes(short, full).startswith("5 faces are new (")
    assert describe_changes(short, full).endswith(", ...)")


def test_face_in_another_split_is_named(faces, write, tmp_path):
    splits = faces.splits.copy()
    splits[ROW] = 0
    moved = replace(faces, splits=splits)
    text = describe_changes(write(faces, tmp_path / "a"), write(moved, tmp_path / "b"))
    assert "1 face is in another split (" in text


def test_copies_of_a_face_are_counted(faces, tmp_path):
    twice = faces[np.r_[np.arange(len(faces)), ROW]]
    text = describe_changes(write_table(faces, tmp_path / "a"), write_table(twice, tmp_path / "b"))
    assert text == f"1 face is new (row {len(twice)})"


def test_damaged_source_is_no_error(faces, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "archive.zip").write_bytes(b"PK\x03\x04 cut")
    assert describe_changes(write_archive(faces, tmp_path / "a"), tmp_path / "b") == ""
