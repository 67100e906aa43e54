"""Read the npz files of this project, with a look at what they contain before memory is allocated for it."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

MAX_ARRAYS = 20_000  # the state of the deepest network that config.py allows has 10,000
SUFFIX = ".npy"


class NpzError(Exception):
    """An npz file is damaged or not of this project. The message says what is wrong, without the file's name."""


class Header(NamedTuple):
    """What an array is, according to its first bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Npz:
    """An open npz file whose arrays are as large as their headers say, and together not larger than the file."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._archive = archive
        members = archive.infolist()
        if len(members) > MAX_ARRAYS or len({member.filename for member in members}) < len(members):
            raise NpzError(f"it contains an array twice, or more than {MAX_ARRAYS} arrays")
        # numpy.savez does not compress. A compressed file could expand to any size.
        stored = sum(member.file_size for member in members)
        if any(member.compress_type != zipfile.ZIP_STORED for member in members) or stored > size:
            raise NpzError("it is compressed, which the files of this project are not")
        self._members = {member.filename.removesuffix(SUFFIX): member for member in members}
        self.headers = {name: self._header(member) for name, member in self._members.items()}
        """What each array is, by its name and in the order of the file."""

    def read(self, name: str) -> NDArray[Any]:
        """Read an array. Raise NpzError if it is damaged (its checksum differs)."""
        with _damage(), self._archive.open(self._members[name]) as stream:
            array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
            stream.read()  # zipfile compares the checksum at the end
        return array

    def _header(self, member: zipfile.ZipInfo) -> Header:
        with _damage(), self._archive.open(member) as stream:
            header = _read_header(stream)
            expected = stream.tell() + header.dtype.itemsize * int(np.prod(header.shape, dtype=object))
        if header.dtype.hasobject or member.file_size != expected:
            raise NpzError(f"{member.filename[:50]!r} has another size than its header says, or contains objects")
        return header


def _read_header(stream: IO[bytes]) -> Header:
    version = npy.read_magic(stream)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise NpzError(f"it has the unknown version {version} of numpy's format")
    shape, _, dtype = readers[version](stream)
    return Header(dtype, shape)


@contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
    """Open an npz file that numpy.savez wrote. Raise NpzError if it is damaged, compressed or contains objects.

    An OSError, such as that of a missing file, is not changed.
    """
    with path.open("rb") as stream:
        size = path.stat().st_size
        with _damage():
            archive = zipfile.ZipFile(stream)
        with archive:
            yield Npz(archive, size)


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except (NpzError, MemoryError):
        raise
    except Exception as error:  # zipfile, tokenize, ast and NumPy raise many kinds
        raise NpzError("it is damaged or not an npz file") from error
