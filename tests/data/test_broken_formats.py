"""Reading an unsupported or damaged file raises DataError with a one-line message that names the file."""

import bz2
import gzip
import lzma
import pickle
import tarfile
import zipfile
import zlib
from dataclasses import replace

import numpy as np
import pytest
from tests.support.fer_files import (
    csv_table,
    jpeg,
    parquet,
    png,
    random_faces,
    write_file,
    write_folder,
    write_tar,
    write_zip,
)

from emotion_detection.data import archives
from emotion_detection.data.formats import read_raw
from emotion_detection.errors import DataError

FACES = random_faces()
TABLE = csv_table(FACES)
FERPLUS = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"


def with_cell(row: int, cell: int, value: str) -> str:
    """The table with another value in a cell; rows are counted from 1."""
    lines = TABLE.splitlines()
    cells = lines[row].split(",")
    cells[cell] = value
    lines[row] = ",".join(cells)
    return "\n".join(lines) + "\n"


def pixels(*values: object) -> str:
    return " ".join(map(str, values))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (with_cell(5, 1, pixels(*[7] * 2303)), r"row 5 \(line 6\) has 2,303 pixels instead of 2,304"),
        (with_cell(5, 1, pixels(*[7] * 2305)), "row 5 .* has 2,305 pixels"),
        (with_cell(5, 1, ""), "row 5 .* pixels"),
        (with_cell(63, 1, pixels(256, *[7] * 2303)), "row 63 .* has a pixel of 256"),
        (with_cell(5, 1, pixels(-1, *[7] * 2303)), "row 5 .* has a pixel of -1"),
        (with_cell(5, 1, pixels(10**30, *[7] * 2303)), "row 5 .* has a pixel of"),
        (with_cell(5, 1, pixels(65536 + 7, *[7] * 2303)), "row 5 .* has a pixel of 65543"),
        (with_cell(5, 1, pixels(1.5, *[7] * 2303)), "row 5 .* not a whole number"),
        (with_cell(5, 1, pixels(*[7] * 2303, "x")), "row 5 .* not a whole number"),
        (with_cell(5, 0, "7"), "row 5 .* has emotion '7'"),
        (with_cell(5, 0, "happy"), "row 5 .* has emotion 'happy'"),
        (with_cell(5, 2, "Test"), "row 5 .* has Usage 'Test'"),
        (TABLE[:-30], "row 63 .*, the last one, .* truncated"),
        (TABLE[:-5], "row 63 .*, the last one, has Usage 'Private'.* truncated"),
        ("emotion,pixels,Usage\n", "no rows"),
        ("emotion,pixels,Usage\n" + "7 " * 200_000, "row 1 .* columns"),
        (csv_table(FACES, "pixels"), r"no emotion column, like the competition's test\.csv"),
        (FERPLUS, r"fer2013new\.csv, which contains labels but no images: use fer2013\.csv"),
        (TABLE.replace(",", ";"), "semicolons or tabs: save it with commas"),
        (TABLE.replace(",", "\t"), "semicolons or tabs: save it with commas"),
        (TABLE.replace("\n", "\r"), r"line ends of old Macs \(CR\)"),
        ("a,b\n1,2\n", "text in an unknown format"),
        ("here are some notes\n", "text in an unknown format"),
        ("", "text in an unknown format"),
        ("\n\n<!DOCTYPE html><html><body>Sign in", "web page"),
        ("<html><head>", "web page"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (pickle.dumps({"a": 1}), "pickle"),
        (pickle.dumps({"a": 1}, protocol=2), "pickle"),
        (png(FACES.images[0]), "a single image, not a data set"),
        (b"Rar!\x1a\x07\x00rest", "RAR"),
        (bz2.compress(b"x"), "bzip2 file: unpack it"),
        (lzma.compress(b"x"), "xz file: unpack it"),
        (b"PAR1 and no more", "damaged parquet"),
        (b"PK\x05\x06 and no more", "cannot be read"),
        (b"\x01\x02\x00\xff" * 50, "a file in an unknown format"),
    ],
)  # fmt: skip
def test_broken_file_is_rejected(tmp_path, content, message):
    path = write_file(tmp_path / "fer2013.csv", content)
    with pytest.raises(DataError, match=message) as error:
        read_raw(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_empty_sources_are_rejected(tmp_path):
    with pytest.raises(DataError, match="gone does not exist"):
        read_raw(tmp_path / "gone")
    with pytest.raises(DataError, match="is empty"):
        read_raw(tmp_path)
    with pytest.raises(DataError, match="is empty"):
        read_raw(write_zip(tmp_path / "x", {}))
    with pytest.raises(DataError, match=r"contains only hidden files, such as \.fer2013\.csv: remove the dot"):
        read_raw(write_folder(tmp_path / "d", {".fer2013.csv": TABLE.encode()}))


# Broken archives, images and parquet files

FACE = png(FACES.images[0])
DAMAGED_PARQUET = parquet(FACES)[:5000] + bytes(5000) + parquet(FACES)[10_000:]
GOOD = {"happy/1.png": FACE}
SHIFTED = replace(FACES, labels=FACES.labels + np.uint8(1))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (GOOD | {"sad/2.jpg": jpeg(FACES.images[0])[:-300]}, r"sad/2\.jpg is damaged or truncated"),
        (GOOD | {"sad/2.png": FACE[:-12]}, r"sad/2\.png is damaged or truncated"),
        (GOOD | {"sad/2.png": FACE[:99] + b"?" + FACE[100:]}, r"sad/2\.png is damaged or truncated"),
        (GOOD | {"sad/2.png": b"text"}, r"sad/2\.png is not a readable image"),
        (GOOD | {"sad/2.png": png(np.zeros((47, 48), "u1"))}, r"sad/2\.png has 48x47 instead of 48x48 pixels"),
        (GOOD | {"bored/2.png": FACE}, r"bored/2\.png is not in a folder named after an emotion"),
        ({"1.png": FACE, "2.png": FACE}, r"1\.png is not in a folder named after an emotion"),
        (GOOD | {"sad/2.png": FACE + bytes(70_000)}, r"sad/2\.png is larger than 65,536 bytes"),
        ({"x/data.pkl": b"\x80\x02}.", "x/data/0": b"1"}, "pickle"),
        ({"fer2013.tar.gz": gzip.compress(b"x"), "README": b""}, "archive inside an archive"),
        ({"train-0.parquet": parquet(FACES), "test-0.parquet": b"PAR1 no"}, r"test-0\.parquet is a damaged"),
        ({"train-0.parquet": DAMAGED_PARQUET, "README": b""}, r"train-0\.parquet is a damaged parquet file"),
        ({"train-0.parquet": parquet(FACES, ["bored"])}, "class named 'bored'"),
        ({"train-0.parquet": parquet(SHIFTED)}, "row 7 has label 7"),
        ({"data.csv": b"a,b\n1,2\n", "b": b""}, "text in an unknown format"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_broken_member_is_rejected(tmp_path, members, message, write):
    with pytest.raises(DataError, match=message) as error:
        read_raw(write(tmp_path / "x", members))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../happy/1.png", "/happy/1.png", "C:\\happy\\1.png", "a/..\\..\\happy/1.png"])
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_member_name_outside_the_archive_is_rejected(tmp_path, name, write):
    with pytest.raises(DataError, match="points outside the archive"):
        read_raw(write(tmp_path / "x", {name: FACE}))


def test_zip_bomb_is_rejected_by_its_unpacked_size(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 100_000)
    blank = (",".join(["0", pixels(*[0] * 2304), "Training"]) + "\n").encode()
    bomb = {"fer2013.csv": b"emotion,pixels,Usage\n" + blank * 100}
    for path in (
        write_zip(tmp_path / "zip", bomb),
        write_tar(tmp_path / "tar.gz", bomb),
        write_file(tmp_path / "csv.gz", gzip.compress(bomb["fer2013.csv"])),
        write_folder(tmp_path / "folder", {"a.csv": bomb["fer2013.csv"], "b": b""}),
        write_zip(tmp_path / "many", {f"happy/{row}.png": FACE for row in range(100)}),
    ):
        with pytest.raises(DataError, match="zip bomb"):
            read_raw(path)
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 1_000_000)
    assert len(read_raw(tmp_path / "zip").faces) == 100


def test_member_with_a_wrong_size_in_its_header_is_rejected(tmp_path):
    path = write_zip(tmp_path / "x", {"happy/1.png": FACE + bytes(70_000), "sad/1.png": FACE})
    with zipfile.ZipFile(path) as archive:
        claimed = archive.getinfo("happy/1.png").file_size.to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(claimed, (100).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"happy/1\.png (cannot be read|is damaged or truncated)"):
        read_raw(path)


def test_huge_tar_header_is_rejected(tmp_path):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("happy/" + "1" * 3_000_000))
    with pytest.raises(DataError, match=r"has a header of 3,\d+,\d+ bytes and may be an archive bomb"):
        read_raw(tmp_path / "x.tar.gz")


def test_image_with_a_huge_size_in_its_header_is_rejected(tmp_path):
    size = (70_000).to_bytes(4, "big")
    head = FACE[:16] + size + size + FACE[24:29]
    path = write_zip(tmp_path / "x", {"happy/1.png": head + zlib.crc32(head[12:29]).to_bytes(4, "big") + FACE[33:]})
    with pytest.raises(DataError, match=r"happy/1\.png has 70000x70000 instead of 48x48 pixels"):
        read_raw(path)


def test_folder_with_a_pickled_checkpoint_is_rejected(tmp_path):
    folder = write_folder(tmp_path / "x", {"train.pt": b"PK\x03\x04" + bytes(999), "a.parquet": b"PAR1"})
    with pytest.raises(DataError, match="is a pickle"):
        read_raw(folder)


def test_damaged_archive_is_rejected(tmp_path):
    for name, write in (("x.zip", write_zip), ("x.gz", write_tar)):
        path = write(tmp_path / name, {"fer2013.csv": TABLE.encode()})
        content = path.read_bytes()
        middle = len(content) // 2
        for broken in (content[:middle] + bytes(200) + content[middle + 200 :], content[:middle]):
            with pytest.raises(DataError, match=f"{name}.* (cannot be read|file is damaged)"):
                read_raw(write_file(path, broken))
