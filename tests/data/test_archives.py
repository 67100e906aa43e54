"""A damaged or hostile archive is refused by name: no face is lost silently, and no limit is exceeded."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from tests.support.fer_files import (
    csv_table,
    kaggle_members,
    png,
    random_faces,
    write_file,
    write_folder,
    write_tar,
    write_zip,
)

from emotion_detection.data import archives, zip_files
from emotion_detection.data.formats import read_raw
from emotion_detection.errors import DataError

FACES = random_faces(40)
MEMBERS = kaggle_members(FACES)
FACE = png(FACES.images[0])


def tar_of(*entries: tuple[tarfile.TarInfo, bytes], fmt: int = tarfile.GNU_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=fmt) as archive:
        for entry, content in entries:
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return sink.getvalue()


def entry_of(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    return entry


def positions(path: Path) -> list[int]:
    """Where the headers of a tar file are."""
    with tarfile.open(path) as archive:
        return [entry.offset for entry in archive]


# Tar


@pytest.mark.parametrize("row", [0, 1, 20, 39])
@pytest.mark.parametrize("suffix", ["tar", "gz"])
def test_tar_with_a_flipped_header_bit_is_refused(tmp_path, row, suffix):
    path = write_tar(tmp_path / "x.tar", MEMBERS)
    content = bytearray(path.read_bytes())
    content[positions(path)[row] + 100] ^= 1
    path = write_file(tmp_path / f"y.{suffix}", gzip.compress(content) if suffix == "gz" else bytes(content))
    where = f"after {list(MEMBERS)[row - 1]}" if row else "at its start"
    with pytest.raises(DataError, match=f"has a damaged header {where}: download it again"):
        read_raw(path)


def test_tar_that_ends_at_a_file_is_refused(tmp_path):
    path = write_tar(tmp_path / "x.tar", MEMBERS)
    content = path.read_bytes()
    last = positions(path)[-1]
    for end in (last, last + 100, last + 512, last + 600):
        with pytest.raises(DataError, match=r"x\.tar is truncated after (train|test)/"):
            read_raw(write_file(path, content[:end]))
    end = len(content.rstrip(b"\0"))
    with pytest.raises(DataError, match=r"end marker: it is truncated"):
        read_raw(write_file(path, content[: -(-end // 512) * 512 + 512]))


@pytest.mark.parametrize("junk", [b"junk", bytes(512) + b"junk"])
def test_tar_with_other_data_after_its_end_is_refused(tmp_path, junk):
    path = write_tar(tmp_path / "x.tar", MEMBERS)
    with pytest.raises(DataError, match="has other data after its end marker"):
        read_raw(write_file(path, path.read_bytes() + junk))


def test_zeros_in_the_middle_of_a_tar_are_refused(tmp_path):
    path = write_tar(tmp_path / "x.tar", MEMBERS)
    content, start = bytearray(path.read_bytes()), positions(path)[20]
    content[start : start + 1024] = bytes(1024)
    with pytest.raises(DataError, match="has other data after its end marker"):
        read_raw(write_file(path, bytes(content)))


def test_checksum_of_gzip_is_verified_to_the_end(tmp_path):
    path = write_tar(tmp_path / "x.gz", MEMBERS)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # of the checksum
    with pytest.raises(DataError, match="CRC check failed"):
        read_raw(write_file(path, bytes(content)))
    for broken in (path.read_bytes()[:-8], path.read_bytes() + b"junk"):
        with pytest.raises(DataError, match="cannot be read"):
            read_raw(write_file(path, broken))


def test_long_names_and_attributes_are_read(tmp_path):
    name = "very-long-folder-" * 12 + "/happy/ü.png"
    for fmt in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        entries = ((entry_of(name), FACE), (entry_of("sad/2.png"), FACE))
        raw = read_raw(write_file(tmp_path / "x", tar_of(*entries, fmt=fmt)))
        assert raw.faces.labels.tolist() in ([3, 4], [4, 3])


def test_hard_link_is_read_as_its_file(tmp_path):
    link = entry_of("sad/2.png", tarfile.LNKTYPE, "happy/1.png")
    raw = read_raw(write_file(tmp_path / "x", tar_of((entry_of("happy/1.png"), FACE), (link, b""))))
    assert sorted(raw.faces.labels.tolist()) == [3, 4]


@pytest.mark.parametrize(
    ("kind", "link"),
    [(tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "gone"), (tarfile.FIFOTYPE, ""), (tarfile.GNUTYPE_SPARSE, "")],
)
def test_tar_with_a_link_device_or_sparse_file_is_refused(tmp_path, kind, link):
    content = tar_of((entry_of("happy/1.png"), FACE), (entry_of("sad/2.png", kind, link), b""))
    with pytest.raises(DataError, match=r"contains sad/2\.png, which is a link or no regular file"):
        read_raw(write_file(tmp_path / "x", content))


def header(name: str, size: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header with any size field and a correct checksum."""
    block = bytearray(entry_of(name, kind).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("happy/1.png", b"\xff" * 11 + b"\0"), "damaged header"),  # a negative size: tarfile never ends
        (header("happy/1.png", b"\x80" + bytes(5) + b"\xff" * 6), "zip bomb"),
        (header("x", b"%011o\0" % 60_000, b"x") + b"3 x" * 20_000 + bytes(1000), "damaged header of attributes"),
        (header("x", b"%011o\0" % 512, b"x") + b"9" * 512, "damaged header of attributes"),
        (header("x", b"%011o\0" % 22, b"x") + b"22 GNU.sparse.major=1\n".ljust(512, b"\0"), "sparse"),
        (header("x", b"%011o\0" % 11, b"x") + b"11 size=-9\n".ljust(512, b"\0") + header("a", b"1\0"), "damaged"),
        (header("x", b"%011o\0" % 100_000, b"x") + bytes(100_352), "archive bomb"),
    ],
)
def test_hostile_tar_header_is_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_raw(write_file(tmp_path / "x", content + bytes(1024)))


@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archive_with_a_name_twice_is_refused(tmp_path, write):
    class Twice(dict[str, bytes]):
        def items(self):
            return [("happy/1.png", FACE), ("sad/2.png", FACE), ("happy/1.png", FACE)]

    with pytest.raises(DataError, match=r"contains happy/1\.png twice"):
        read_raw(write(tmp_path / "x", Twice()))


# Zip


def test_damaged_member_of_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, content in MEMBERS.items():
            archive.writestr(name, content)
    damaged = bytearray((tmp_path / "x.zip").read_bytes())
    damaged[damaged.index(b"IDAT") + 99] ^= 1
    with pytest.raises(DataError, match="Bad CRC-32"):
        read_raw(write_file(tmp_path / "x.zip", bytes(damaged)))


def directory_entry(name: str) -> bytes:
    """The start of a name's entry in the directory of a zip file, up to the name."""
    return b"PK\x01\x02.{42}" + name.encode()


def test_file_that_the_directory_does_not_list_is_refused(tmp_path):
    """The directory of the 40 files is shortened by its last entry."""
    path = write_zip(tmp_path / "x.zip", MEMBERS)
    content = path.read_bytes()
    end = content.rindex(b"PK\x05\x06")
    last = content.rindex(b"PK\x01\x02")
    fields = list(struct.unpack("<4s4H2IH", content[end:]))
    fields[5] = last - fields[6]
    shortened = content[:last] + struct.pack("<4s4H2IH", *fields)
    with pytest.raises(DataError, match="contains data that its directory does not list"):
        read_raw(write_file(path, shortened))


@pytest.mark.parametrize("name", ["train/happy/", ".rain/happy/x", "train/sad/x"])
def test_zip_whose_directory_has_another_name_is_refused(tmp_path, name):
    first = next(iter(MEMBERS))
    content = write_zip(tmp_path / "x.zip", MEMBERS).read_bytes()
    listed = content.rindex(first.encode())
    other = name.encode().ljust(len(first), b"/" if name.endswith("/") else b"x")
    with pytest.raises(DataError, match="that has another name"):
        read_raw(write_file(tmp_path / "x.zip", content[:listed] + other + content[listed + len(first) :]))


def test_zip_of_overlapping_files_is_refused(tmp_path):
    """Each entry of the directory points to the same few bytes, which together would unpack to gigabytes."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("happy/1.png", bytes(60_000))
        archive.infolist().extend(archive.infolist() * 99)
    with pytest.raises(DataError, match="files that overlap and may be a zip bomb"):
        read_raw(tmp_path / "x.zip")


def test_zip_with_an_endless_directory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_files, "MAX_DIRECTORY_BYTES", 1000)
    with pytest.raises(DataError, match="lists far more files than any copy of FER-2013"):
        read_raw(write_zip(tmp_path / "x.zip", MEMBERS))


def test_two_joined_zip_files_are_refused(tmp_path):
    content = write_zip(tmp_path / "x.zip", MEMBERS).read_bytes()
    with pytest.raises(DataError, match="contains data that its directory does not list"):
        read_raw(write_file(tmp_path / "x.zip", content + content))


def test_name_that_is_not_text_is_refused(tmp_path):
    content = write_zip(tmp_path / "x.zip", {"happy/ü.png": FACE}).read_bytes()
    with pytest.raises(DataError, match="cannot be read"):
        read_raw(write_file(tmp_path / "x.zip", content.replace("ü".encode(), b"\xff\xff")))


def test_zip_that_was_written_as_a_stream_is_read(tmp_path):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def tell(self):
            raise OSError

    sink = Pipe()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in MEMBERS.items():
            archive.writestr(name, content)
        archive.mkdir("train/empty")
    assert len(read_raw(write_file(tmp_path / "x.zip", sink.getvalue())).faces) == 40


# Gzip and folders


def test_empty_lines_are_refused_at_once(tmp_path):
    content = b"emotion,pixels,Usage\n" + b"\n" * 10_000_000
    for path in (write_zip(tmp_path / "zip", {"x.csv": content}), write_file(tmp_path / "gz", gzip.compress(content))):
        with pytest.raises(DataError, match="has more than 1,000 empty lines"):
            read_raw(path)


def test_table_with_an_empty_line_after_each_row_is_read(tmp_path):
    table = csv_table(random_faces(63)).replace("\n", "\n\n")
    assert len(read_raw(write_file(tmp_path / "x", table)).faces) == 63


def test_linked_folders_are_read(tmp_path):
    write_folder(tmp_path / "elsewhere", MEMBERS)
    (tmp_path / "d").mkdir()
    for name in ("train", "test"):
        (tmp_path / "d" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "d" / "train" / "again").symlink_to(tmp_path / "d")
    assert len(read_raw(tmp_path / "d").faces) == 40


def test_broken_link_and_pipe_are_refused(tmp_path):
    folder = write_folder(tmp_path / "d", MEMBERS)
    (folder / "train" / "happy" / "x.png").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"happy/x\.png is a broken link or no regular file"):
        read_raw(folder)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is a pipe or a device"):
        read_raw(tmp_path / "pipe")


def test_folder_with_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 10)
    with pytest.raises(DataError, match="contains more than 10 files"):
        read_raw(write_folder(tmp_path / "d", MEMBERS))


def test_bomb_in_a_picture_of_an_archive_is_refused(tmp_path):
    packer = zlib.compressobj()
    bomb = packer.compress(bytes(1 << 20)) + packer.flush()
    path = write_zip(tmp_path / "x", {"happy/1.png": FACE[:-12] + bomb + FACE[-12:], "happy/2.png": bytes(1 << 20)})
    with pytest.raises(DataError, match=r"happy/[12]\.png"):
        read_raw(path)


@pytest.mark.parametrize("name", ["happy/a\nb.png", "happy/\x1b[2J.png", "happy/" + "x" * 300 + ".png"])
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_unusual_name_is_refused_in_one_line(tmp_path, name, write):
    with pytest.raises(DataError, match=r"contains a file with the unusual name .*: rename it") as error:
        read_raw(write(tmp_path / "x", {name: FACE}))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


def test_file_name_that_is_not_utf_8_is_refused(tmp_path):
    folder = write_folder(tmp_path / "d", MEMBERS)
    (folder / os.fsdecode(b"\xff.png")).write_bytes(FACE)
    with pytest.raises(DataError, match="contains a file with the unusual name"):
        read_raw(folder)
