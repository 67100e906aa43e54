"""Read the encoded pictures of a part, one after the other. What cannot be read is a picture with a reason."""

import gzip
import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from emotion_detection.batch.parquet_shards import read_rows
from emotion_detection.batch.plan import MAX_DIRECTORY_BYTES, MAX_SHARD_BYTES, TOO_MANY, Part, is_visible, shard_kind
from emotion_detection.batch.storage import Storage
from emotion_detection.data.archives import READ_ERRORS
from emotion_detection.data.tar_files import TarFile, list_files
from emotion_detection.data.zip_files import open_zip
from emotion_detection.decoding.images import HEAD_BYTES, MAX_BYTES, SUFFIXES, is_picture
from emotion_detection.errors import DataError, UsageError, shorten
from emotion_detection.redaction import scrub

LINK = "it is a link in the archive: unpack the archive and pass the folder"
TOO_LARGE = f"the picture is larger than {MAX_BYTES >> 20} MiB: scale it down"


@dataclass(frozen=True)
class Picture:
    """An encoded picture, or why there is none.

    `source` is its file or its shard. `name` is its name in an archive. `index` is its position among the files or rows
    of a shard, and 0 for a file; both are None for a shard that is damaged itself.
    """

    source: str
    content: bytes | None
    index: int | None = 0
    name: str | None = None
    reason: str = ""


def read_pictures(source: Storage, part: Part) -> Iterator[Picture]:
    """Yield the pictures of a part. Only one is in memory at a time.

    Raises StoreError if a server does not respond, and UsageError if a zip file is not the one that was divided,
    because these must stop the command instead of spoiling the table.
    """
    if not part.shard:
        yield from (_read_file(source, name) for name in part.pictures)
        return
    try:
        with source.open(part.shard) as stream:
            yield from _READERS[shard_kind(stream)](stream, part)
    except (DataError, pa.ArrowException, *READ_ERRORS) as error:
        yield Picture(part.shard, None, None, None, _reason(error))


def _read_file(source: Storage, name: str) -> Picture:
    try:
        with source.open(name) as stream:
            return _checked(name, stream.read(MAX_BYTES + 1))
    except READ_ERRORS as error:
        return Picture(name, None, reason=_reason(error))


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return f"it cannot be opened ({shorten(error.strerror)}): check the file"
    if isinstance(error, FileNotFoundError):  # at an address, without a number
        return "it does not exist any more: check the file"
    return shorten(scrub(str(error))) or type(error).__name__


def _checked(source: str, content: bytes, index: int = 0, name: str | None = None) -> Picture:
    if len(content) > MAX_BYTES:
        return Picture(source, None, index, name, TOO_LARGE)
    return Picture(source, content, index, name)


def _read_zip(stream: BinaryIO, part: Part) -> Iterator[Picture]:
    archive, entries = _list_zip(stream, part)
    for index, entry in enumerate(entries, part.start):
        if entry.is_dir() or not is_visible(entry.filename):
            continue
        try:
            with archive.open(entry) as member:
                head = member.read(HEAD_BYTES)
                if _is_wanted(entry.filename, head):
                    content = head + member.read(MAX_BYTES + 1 - len(head))
                    yield _checked(part.shard, content, index, entry.filename)
        except READ_ERRORS as error:
            yield Picture(part.shard, None, index, entry.filename, _reason(error))


def _list_zip(stream: BinaryIO, part: Part) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """The archive, and the entries of the part. Only these are read if their position is known."""
    if part.end:
        try:
            archive = zipfile.ZipFile(_PartOfZip(stream, part))
        except (zipfile.BadZipFile, struct.error) as error:
            raise UsageError(f"{part.shard} has changed since this batch began: use a new folder for --out") from error
        return archive, archive.infolist()
    # The directory of a shard that could be counted is checked already, and checking takes time.
    if part.count is None:
        archive = open_zip(stream, Path(part.shard), MAX_DIRECTORY_BYTES, TOO_MANY)
    else:
        archive = zipfile.ZipFile(stream)
    return archive, archive.infolist()[part.start : part.stop]


class _PartOfZip:
    """A zip file whose directory lists the files of a part only: it ends after them, in an end record of its own."""

    def __init__(self, stream: BinaryIO, part: Part) -> None:
        self._stream, self._end, self._position = stream, part.end, 0
        size, count = part.end - part.offset, part.count
        # The record of large files, where it is, and the usual record that refers to it (APPNOTE 4.3.14 to 4.3.16).
        self._record = (
            struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, part.offset)
            + struct.pack("<4sLQL", b"PK\6\7", 0, part.end, 1)
            + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        )

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        ends = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end + len(self._record)}
        self._position = ends[whence] + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        if self._position < self._end:
            self._stream.seek(self._position)
            rest = self._end - self._position
            content = self._stream.read(rest if size < 0 else min(size, rest))
        else:
            start = self._position - self._end
            content = self._record[start : None if size < 0 else start + size]
        self._position += len(content)
        return content


def _read_tar(stream: BinaryIO, part: Part) -> Iterator[Picture]:
    with gzip.open(stream) if shard_kind(stream) == "gzip" else nullcontext(stream) as unpacked:
        files = list_files(unpacked, Path(part.shard), MAX_SHARD_BYTES, links=True, start=part.offset)  # type: ignore[arg-type]
        for index, file in enumerate(files, part.start if part.offset else 0):
            if part.stop is not None and index >= part.stop:
                return
            if index >= part.start and is_visible(file.name):
                yield from _read_tar_file(unpacked, part, index, file)


def _read_tar_file(stream: Any, part: Part, index: int, file: TarFile) -> Iterator[Picture]:
    if file.is_link:
        if file.name.lower().endswith(SUFFIXES):
            yield Picture(part.shard, None, index, file.name, LINK)
        return
    stream.seek(file.offset)
    head = stream.read(min(file.size, HEAD_BYTES))
    if _is_wanted(file.name, head):
        wanted = min(file.size, MAX_BYTES + 1) - len(head)
        content = head + stream.read(wanted)
        if len(content) < file.size <= MAX_BYTES:
            raise DataError(f"{part.shard} is truncated in {shorten(file.name, 80)}: download it again")
        yield _checked(part.shard, content, index, file.name)


def _read_parquet(stream: BinaryIO, part: Part) -> Iterator[Picture]:
    for row, content in read_rows(stream, part.start, part.stop):
        if content is None:
            yield Picture(part.shard, None, row, None, "the row contains no picture: add its bytes")
        else:
            yield _checked(part.shard, content, row)


def _read_unknown(stream: BinaryIO, part: Part) -> Iterator[Picture]:  # noqa: ARG001
    raise DataError(f"{part.shard} is empty, damaged or not what its name says: get it again")


_READERS = {
    "zip": _read_zip,
    "tar": _read_tar,
    "gzip": _read_tar,
    "parquet": _read_parquet,
    "": _read_unknown,
}


def _is_wanted(name: str, head: bytes) -> bool:
    return name.lower().endswith(SUFFIXES) or is_picture(head)
