"""FER+'s votes are joined to the right faces, a wrong join is refused, and so is each damaged table."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from tests.support.fer_files import csv_table, png, random_faces, write_file, write_folder, write_zip
from tests.support.paths import ARCHIVE
from tests.support.vote_files import FILE_HEADER, HEADER, USAGES, by_file, fer_plus, known_votes, random_votes

from emotion_detection.data.dataset import TEST, Faces, has_votes
from emotion_detection.data.formats import RawData, read_raw
from emotion_detection.data.votes import JoinedVotes, copy_tables, join_votes, plurality_agreement, read_votes
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import DataError

FACES = random_faces(700)
VOTES = random_votes(FACES)
FILES = tuple(f"archive/train/happy/Training_{row:04}.jpg" for row in range(len(FACES)))  # in the order of the faces
FER_PLUS = ARCHIVE.parents[1] / "ferplus"
ROW = ",".join(["1"] * 10)


def raw_data(faces: Faces = FACES, files: tuple[str, ...] = ()) -> RawData:
    return RawData(faces, "a form", "custom", (), files)


def joined(folder: Path, text: str, raw: RawData) -> JoinedVotes:
    return join_votes(read_votes(write_file(folder / "fer2013new.csv", text)), raw)


def test_image_names_and_not_lines_tell_the_row(tmp_path):
    header, *lines = fer_plus(FACES, VOTES).splitlines()
    for order in (lines, lines[::-1]):
        result = joined(tmp_path, "\n".join([header, *order]), raw_data())
        np.testing.assert_array_equal(result.votes, known_votes(FACES, VOTES))
    assert result.votes.dtype == np.uint8
    assert 0.6 < result.agreement < 0.8
    assert result.unused == (FACES.splits == TEST).sum()
    assert result.files == ("fer2013new.csv",)


def test_face_without_a_line_has_no_votes(tmp_path):
    lines = fer_plus(FACES, VOTES).splitlines()
    del lines[5]  # the row 3
    votes = joined(tmp_path, "\n".join(lines), raw_data()).votes
    assert not votes[3].any()
    np.testing.assert_array_equal(votes[4], VOTES[4])


def test_columns_are_found_by_name(tmp_path):
    table = [line.split(",") for line in fer_plus(FACES, VOTES).splitlines()]
    text = "\r\n".join(",".join(reversed(cells)) for cells in table).replace("sadness", ' "Sadness"')
    np.testing.assert_array_equal(joined(tmp_path, text, raw_data()).votes, known_votes(FACES, VOTES))


def test_votes_of_test_faces_are_never_joined(tmp_path):
    assert not joined(tmp_path, fer_plus(FACES, VOTES), raw_data()).votes[FACES.splits == TEST].any()
    only_test, of_others = by_file(FILES[-100:], VOTES[-100:]), by_file(["other.jpg"], VOTES[:1])
    for text in (only_test, of_others):
        with pytest.raises(DataError, match="no votes for the training and val faces of this data set"):
            joined(tmp_path, text, raw_data(files=FILES))


@pytest.mark.parametrize("names", [FILES, [file.removeprefix("archive/") for file in FILES]])
def test_images_are_found_by_their_path_or_its_end(tmp_path, names):
    result = joined(
        tmp_path, by_file([*names, "train/sad/other.jpg"], np.concatenate([VOTES, VOTES[:1]])), raw_data(files=FILES)
    )
    np.testing.assert_array_equal(result.votes, known_votes(FACES, VOTES))
    assert result.unused == (FACES.splits == TEST).sum() + 1


def test_names_of_image_files_are_in_the_order_of_the_faces(tmp_path):
    members = {f"b/sad/{row}.png": png(image) for row, image in enumerate(FACES.images[:12])}
    raw = read_raw(write_zip(tmp_path / "faces.zip", members))
    for file, image in zip(raw.files, raw.faces.images, strict=True):
        np.testing.assert_array_equal(image, FACES.images[int(Path(file).stem)])
    assert read_raw(write_file(tmp_path / "fer2013.csv", csv_table(FACES[np.arange(7)]))).files == ()


def test_name_of_two_images_is_refused(tmp_path):
    files = ("train/angry/Training_8.jpg", "train/sad/Training_8.jpg")
    with pytest.raises(DataError, match=r"Training_8\.jpg and train/angry/Training_8\.jpg are not one to one"):
        joined(tmp_path, by_file(["Training_8.jpg"], VOTES[:1]), raw_data(FACES[np.arange(2)], files))
    with pytest.raises(DataError, match="are not one to one"):
        joined(tmp_path, by_file(["angry/Training_8.jpg", files[0]], VOTES[:2]), raw_data(FACES[np.arange(2)], files))


def test_votes_of_other_faces_are_refused_with_their_agreement(tmp_path):
    shifted = fer_plus(FACES, np.roll(VOTES, 1, axis=0))
    message = r"does not fit the data set: .*is the label of \d+ % of the faces instead of about 63 %: pass the copy"
    with pytest.raises(DataError, match=message) as error:
        joined(tmp_path, shifted, raw_data())
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=message):
        joined(tmp_path, by_file(FILES, np.roll(VOTES, 1, axis=0)), raw_data(files=FILES))


def test_row_that_the_table_of_faces_lacks_is_noticed(tmp_path):
    """All later rows get the votes of their neighbors, but most faces still agree."""
    faces = random_faces(3000)
    votes = random_votes(faces)
    shorter = np.delete(np.arange(len(faces)), 1990)
    assert plurality_agreement(votes[:-1], faces.labels[shorter]) > 0.4
    with pytest.raises(DataError, match=r"in the rows 2,000 to 2,999|in the (val|test) split"):
        joined(tmp_path, fer_plus(faces, votes), raw_data(faces[shorter]))


def test_each_form_of_data_needs_its_form_of_votes(tmp_path):
    with pytest.raises(DataError, match=r"names the rows of fer2013\.csv, but SOURCE contains images"):
        joined(tmp_path, fer_plus(FACES, VOTES), raw_data(files=FILES))
    with pytest.raises(DataError, match="names image files, but SOURCE is a table"):
        joined(tmp_path, by_file(FILES, VOTES), raw_data())


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "a missing column": (HEADER.replace(",contempt", "") + "\n", "has no column contempt: pass FER"),
    "no name column": (HEADER.replace("Image name", "Name") + "\n", "has no column file: pass FER"),
    "a repeated column": (f"{HEADER},fear\n", "line 1 has 2 columns fear instead of one"),
    "columns in quotes": (f'"{HEADER}"\n', "line 1 has 0 columns neutral instead of one"),
    "both names": (f"file,{HEADER}\n", "line 1 has several columns with names of faces (image name, file)"),
    "negative votes": (f"{FILE_HEADER}\na.jpg,-1,{ROW[2:]}\n", "line 2 has '-1' votes for neutral instead of 0 to 255"),
    "text": (f"{FILE_HEADER}\na.jpg,many,{ROW[2:]}\n", "line 2 has 'many' votes for neutral"),
    "a share": (f"{FILE_HEADER}\na.jpg,{ROW[:-1]}0.5\n", "line 2 has '0.5' votes for NF"),
    "no number": (f"{FILE_HEADER}\na.jpg,nan,{ROW[2:]}\n", "line 2 has 'nan' votes"),
    "a huge number": (f"{FILE_HEADER}\na.jpg,{'9' * 5000},{ROW[2:]}\n", "line 2 has '999"),
    "another digit": (f"{FILE_HEADER}\na.jpg,³,{ROW[2:]}\n", "line 2 has '³' votes"),
    "a short line": (f"{FILE_HEADER}\na.jpg,{ROW}\nb.jpg,1,2\n", "line 3 has 3 columns instead of 11"),
    "a long line": (f"{FILE_HEADER}\na.jpg,{ROW},7\n", "line 2 has 12 columns instead of 11"),
    "an unknown image name": (
        f"{HEADER}\nTraining,12.png,{ROW}\n",
        "line 2 has the image name '12.png' instead of one",
    ),
    "a repeated name": (f"{FILE_HEADER}\na.jpg,{ROW}\na.jpg,{ROW}\n", "line 3 names a.jpg a second time"),
    "no lines": (f"{HEADER}\n", "has a header but no votes"),
    "no votes": (f"{HEADER}\nTraining,,{ROW}\n", "has a header but no votes"),
    "a long field": (f'{FILE_HEADER}\n"{"a" * 200_000}",{ROW}\n', "line 2 cannot be read"),
    "Latin-1": (f"{FILE_HEADER}\nä.jpg,{ROW}\n".encode("latin-1"), "is no text in UTF-8"),
    "UTF-16": (f"{FILE_HEADER}\n".encode("utf-16"), "is text in UTF-16"),
    "a web page": ("<!DOCTYPE html><html>", "is a web page"),
    "a Git LFS pointer": ("version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    "faces": (csv_table(random_faces(7)), "contains images instead of votes"),
    "words": ("words\n", "is no table of votes"),
    "bytes": (bytes(range(256)), "is no table of votes"),
    "nothing": ("", "is no table of votes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_table_is_refused_in_one_sentence(tmp_path, case):
    content, message = BROKEN[case]
    path = write_file(tmp_path / "votes.csv", content)
    with pytest.raises(DataError) as error:
        read_votes(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400 + len(str(path))


def test_missing_file_and_empty_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv does not exist: pass FER\+'s fer2013new\.csv"):
        read_votes(tmp_path / "gone.csv")
    with pytest.raises(DataError, match="is empty"):
        read_votes(tmp_path)
    with pytest.raises(DataError, match="is no table of votes"):
        read_votes(write_zip(tmp_path / "archive.zip", {"train/sad/1.jpg": b"picture"}))


def test_huge_table_is_refused(tmp_path, monkeypatch):
    path = write_file(tmp_path / "votes.csv", by_file(FILES, VOTES))
    monkeypatch.setattr("emotion_detection.data.votes.MAX_ROWS", 10)
    with pytest.raises(DataError, match="line 12 is behind 10 rows"):
        read_votes(path)
    monkeypatch.setattr("emotion_detection.data.votes.MAX_TABLE_BYTES", 1000)
    with pytest.raises(DataError, match="so it is no table of votes"):
        read_votes(path)


def test_all_tables_of_a_folder_or_archive_are_read(tmp_path):
    members = {
        "votes_train.csv": by_file(FILES[:400], VOTES[:400]).encode(),
        "more/votes_val.csv": by_file(FILES[400:], VOTES[400:]).encode(),
        "README.md": b"words",
    }
    folder = write_folder(tmp_path / "ferplus", members)
    (tmp_path / "copy").mkdir()
    copy_tables(folder, tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {"votes_train.csv", "more_votes_val.csv"}
    for path in (folder, tmp_path / "copy", write_zip(tmp_path / "ferplus.zip", members)):
        result = join_votes(read_votes(path), raw_data(files=FILES))
        np.testing.assert_array_equal(result.votes, known_votes(FACES, VOTES))


@pytest.mark.skipif(not (ARCHIVE.exists() and FER_PLUS.exists()), reason="needs FER-2013 and FER+")
def test_fer_plus_fits_the_real_archive():
    with zipfile.ZipFile(ARCHIVE) as archive:
        files = tuple(sorted(archive.namelist()))
    labels = np.array([EMOTIONS.index(file.split("/")[1]) for file in files], np.uint8)
    splits = np.array([USAGES.index(file.split("/")[2].split("_")[0]) for file in files], np.uint8)
    faces = Faces(np.zeros((len(files), 1, 1), np.uint8), labels, splits, np.zeros(len(files), bool))
    result = join_votes(read_votes(FER_PLUS), raw_data(faces, files))
    voted = has_votes(result.votes)
    assert [int(voted[splits == split].sum()) for split in range(3)] == [28_560, 3_579, 0]
    assert result.agreement == pytest.approx(0.626, abs=0.001)
    assert result.unused == 0
