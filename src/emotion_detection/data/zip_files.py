"""Open a zip file, and check that its directory lists all its files once."""

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipInfo

from emotion_detection.errors import DataError, shorten

# Kaggle's archive.zip has a directory of 4 MB for 35,887 files.
MAX_DIRECTORY_BYTES = 12 << 20
LOCAL_HEADER = struct.Struct("<4s22xHH")  # the signature, and the lengths of the name and of the extra field
LOCAL_SIGNATURE = b"PK\x03\x04"
MAX_DESCRIPTOR_BYTES = 24  # sizes and checksum after a file that was written as a stream
TOO_MANY = "lists far more files than any copy of FER-2013: pass only the data set"
UTF8 = 0x800  # the flag of a name in UTF-8


class _Bounded:
    """The stream of a zip file. While the directory is read, it refuses to read one that could fill the memory."""

    def __init__(self, stream: BinaryIO, path: Path, max_bytes: int, too_many: str) -> None:
        self._too_many = too_many
        self._stream, self._path, self._max_bytes, self.listing = stream, path, max_bytes, True
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        if self.listing and size > self._max_bytes:  # without a size, the module reads the last 64 kB
            raise DataError(f"{self._path} {self._too_many}")
        return self._stream.read(size)


def open_zip(
    stream: BinaryIO, path: Path, max_directory_bytes: int | None = None, too_many: str = TOO_MANY
) -> zipfile.ZipFile:
    """Open a zip file. Raises DataError or an exception of the module zipfile if its directory is wrong.

    `too_many` is the message for a directory of more than `max_directory_bytes` (by default MAX_DIRECTORY_BYTES), after
    the path.
    """
    source = _Bounded(stream, path, max_directory_bytes or MAX_DIRECTORY_BYTES, too_many)
    archive = zipfile.ZipFile(source)
    source.listing = False
    _check_layout(archive.infolist(), stream, archive.start_dir, path)
    return archive


def _check_layout(entries: Sequence[ZipInfo], stream: BinaryIO, directory: int, path: Path) -> None:
    """Check that the files lie one after the other, without overlaps and without a file that is not listed."""
    position = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        _check_gap(position, entry.header_offset, path)
        position = entry.header_offset + _local_size(entry, stream, path) + entry.compress_size
    _check_gap(position, directory, path)


def _check_gap(start: int, end: int, path: Path) -> None:
    if end < start:
        raise DataError(f"{path} contains files that overlap and may be a zip bomb: use a copy from a trusted source")
    if end > start + MAX_DESCRIPTOR_BYTES:
        raise DataError(f"{path} contains data that its directory does not list: download it again")


def _local_size(entry: ZipInfo, stream: BinaryIO, path: Path) -> int:
    """The size of the header before a file. Its name must be the listed one."""
    stream.seek(entry.header_offset)
    content = stream.read(LOCAL_HEADER.size)
    if len(content) < LOCAL_HEADER.size or not content.startswith(LOCAL_SIGNATURE):
        raise DataError(f"{path} is damaged at {shorten(entry.filename, 80)}: download it again")
    _, name_length, extra_length = LOCAL_HEADER.unpack(content)
    # Errors of encoding cannot occur in the listed name; the name before the file may be damaged.
    name = stream.read(name_length).decode("utf-8" if entry.flag_bits & UTF8 else "cp437", "replace")
    if name != entry.orig_filename or (entry.is_dir() and entry.file_size):
        raise DataError(
            f"{path} lists a file as {shorten(entry.filename, 80)} that has another name: download it again"
        )
    return LOCAL_HEADER.size + name_length + extra_length
