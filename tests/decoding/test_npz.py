"""An npz file is compared with its headers before memory is allocated, and damage is one kind of error."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from emotion_detection.decoding import npz
from emotion_detection.decoding.npz import Header, NpzError, open_npz

GIGABYTES = (1_000_000, 48, 48)


def npy_header(shape, dtype="|u1", version=(1, 0)):
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode() + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text


def write(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def read_all(path):
    with open_npz(path) as arrays:
        return {name: arrays.read(name) for name in arrays.headers}


def assert_refused(path):
    tracemalloc.start()
    with pytest.raises(NpzError):
        read_all(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_headers_come_before_the_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.ones((3, 2), np.uint8), name=np.array("text"))
    with open_npz(tmp_path / "a.npz") as arrays:
        assert arrays.headers == {
            "images": Header(np.dtype(np.uint8), (3, 2)),
            "name": Header(np.dtype("<U4"), ()),
        }
        np.testing.assert_array_equal(arrays.read("images"), np.ones((3, 2)))


def test_compressed_bomb_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((20_000, 48, 48), np.uint8))
    assert (tmp_path / "bomb.npz").stat().st_size < 100_000
    assert_refused(tmp_path / "bomb.npz")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(npy_header(GIGABYTES), id="header of gigabytes without data"),
        pytest.param(npy_header((10**30,)), id="header of more than any memory"),
        pytest.param(npy_header((-2, -3)) + bytes(6), id="negative shape"),
        pytest.param(npy_header((2,), "|O") + bytes(16), id="objects"),
        pytest.param(npy_header((2,), [("a", "|O")]) + bytes(16), id="objects in a structure"),
        pytest.param(npy_header((2,)) + bytes(3), id="data after the array"),
        pytest.param(npy_header((2,), "nonsense") + bytes(2), id="unknown type"),
        pytest.param(b"\x93NUMPY\x09\x00" + bytes(80), id="unknown version"),
        pytest.param(b"\x93NUMPY\x01\x00\xff\xff{", id="cut header"),
        pytest.param(npy_header("[" * 5000), id="shape that is text"),
        pytest.param(npy_header((2,)).replace(b"'shape'", b"'shape:") + bytes(2), id="open quote in the header"),
        pytest.param(b"", id="empty"),
        pytest.param(b"no array", id="text"),
    ],
)
def test_member_that_is_not_the_array_of_its_header_is_refused(tmp_path, content):
    assert_refused(write(tmp_path / "a.npz", [("a.npy", content)]))


def test_flipped_byte_is_noticed(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(5000, np.uint8))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[2000] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    assert_refused(tmp_path / "a.npz")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_truncated_file_is_refused(tmp_path, part):
    np.savez(tmp_path / "a.npz", a=np.zeros(5000, np.uint8), b=np.zeros(5000, np.uint8))
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: int(part * len(content))])
    assert_refused(tmp_path / "a.npz")


def test_one_array_under_two_names_is_refused(tmp_path):
    """Two entries of the directory that point to the same bytes: a zip bomb without compression."""
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(1000, np.uint8))
    content = stream.getvalue()
    start = content.index(b"PK\x01\x02")
    directory, end = content[start:-22], content[-22:]
    count = 50
    copies = b"".join(directory.replace(b"a.npy", b"%c.npy" % (65 + number)) for number in range(count))
    end = end[:8] + struct.pack("<HHI", count, count, len(copies)) + end[16:]
    (tmp_path / "a.npz").write_bytes(content[:start] + copies + end)
    assert_refused(tmp_path / "a.npz")


def test_repeated_name_and_too_many_arrays_are_refused(tmp_path, monkeypatch):
    array = npy_header((1,)) + bytes(1)
    with pytest.warns(UserWarning, match="Duplicate name"):
        assert_refused(write(tmp_path / "a.npz", [("a.npy", array)] * 2))
    monkeypatch.setattr(npz, "MAX_ARRAYS", 3)
    assert_refused(write(tmp_path / "b.npz", [(f"{number}.npy", array) for number in range(4)]))


def test_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError), open_npz(tmp_path / "absent.npz"):
        pass
