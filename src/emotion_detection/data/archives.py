"""Read folders, zip files and tar files as a list of members. Nothing is extracted to disk."""

import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from emotion_detection.errors import DataError

# The largest supported file, fer2013.csv, has 301 MB. The limits apply to the bytes that are read, not to the sizes
# in the headers, so that a zip bomb cannot exhaust memory or keep the machine busy.
MAX_TOTAL_BYTES = 1 << 30
MAX_MEMBERS = 100_000
MAX_TAR_HEADER_BYTES = 1 << 20
READ_ERRORS = (
    OSError,
    EOFError,
    RuntimeError,  # an encrypted zip file; its subclass NotImplementedError: an unknown compression method
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
)
IGNORED_NAMES = {"__MACOSX", "Thumbs.db", "desktop.ini"}
TRUSTED_COPY = "use a copy from a trusted source"
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that the zip format can store


@dataclass(frozen=True)
class Member:
    """One file: `name` is its path in the container, separated by "/"; `size` is the claimed number of bytes."""

    name: str
    size: int
    open: Callable[[], BinaryIO]

    def read(self, limit: int = MAX_TOTAL_BYTES) -> bytes:
        """Return all bytes. Raise DataError if there are more than `limit`."""
        with self.open() as stream:
            content = stream.read(limit + 1)
        if len(content) > limit:
            raise DataError(
                f"{self.name} is larger than {limit:,} bytes, so it is not part of a FER-2013 data set: remove it"
            )
        return content


@dataclass(frozen=True)
class Container:
    """`kind` is "file", "folder", "zip", "tar" or "gzip". Members are sorted by name, except those of a tar file."""

    kind: str
    members: tuple[Member, ...]
    comment: bytes = b""


class _ByteCounter:
    """Counts the bytes read from one container, over all its members."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.total = 0

    def add(self, count: int) -> None:
        self.total += count
        if self.total > MAX_TOTAL_BYTES:
            raise _zip_bomb(self.path)


class _CountedStream(io.RawIOBase):
    """A stream that counts its bytes and raises DataError if it is damaged."""

    def __init__(self, stream: BinaryIO, counter: _ByteCounter, name: str) -> None:
        self._stream, self._counter, self._name = stream, counter, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _translate_errors(self._counter.path, self._name):
            content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        self._counter.add(len(content))
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextmanager
def _translate_errors(path: Path, name: str = "") -> Iterator[None]:
    """Raise DataError for READ_ERRORS; `name` is the member being read."""
    try:
        yield
    except READ_ERRORS as error:
        where = f"{path}: {name}" if name else str(path)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{where} cannot be read ({reason}): download the file again") from error


def _zip_bomb(path: Path) -> DataError:
    limit = f"{MAX_TOTAL_BYTES >> 20:,} MiB"
    return DataError(f"{path} unpacks to more than {limit} and may be a zip bomb: {TRUSTED_COPY}")


@contextmanager
def open_container(path: Path) -> Iterator[Container]:
    """List the members of a folder or archive; a plain file is its own only member.

    Raises DataError if an archive is damaged or contains an unsafe name.
    """
    if path.is_dir():
        yield _folder(path)
        return
    with _translate_errors(path):
        stream = path.open("rb")
    with stream:
        head = stream.read(512)
        stream.seek(0)
        if head.startswith(b"\x1f\x8b"):
            with gzip.open(stream) as unpacked:
                yield _gzip(path, unpacked)  # type: ignore[arg-type]
        elif head[257:262] == b"ustar":
            yield _tar(path, stream, _ByteCounter(path))
        elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            yield _zip(path, stream)
        else:
            member = _member(path.name, path.stat().st_size, partial(path.open, "rb"), _ByteCounter(path))
            yield Container("file", (member,))


def _member(name: str, size: int, opener: Callable[[], Any], counter: _ByteCounter) -> Member:
    def open_counted() -> BinaryIO:
        with _translate_errors(counter.path, name):
            return io.BufferedReader(_CountedStream(opener(), counter, name), 1 << 16)

    return Member(name, size, open_counted)


def _folder(path: Path) -> Container:
    counter = _ByteCounter(path)
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    members = (
        _member(name, file.stat().st_size, partial(file.open, "rb"), counter)
        for name, file in files
        if _is_visible(name)
    )
    return Container("folder", tuple(members))


def _zip(path: Path, stream: BinaryIO) -> Container:
    counter = _ByteCounter(path)
    with _translate_errors(path):
        archive = zipfile.ZipFile(stream)
    entries = {_safe_name(path, entry.filename): entry for entry in archive.infolist() if not entry.is_dir()}
    members = [_member(name, entry.file_size, partial(archive.open, entry), counter) for name, entry in entries.items()]
    _check_count(path, len(members))
    visible = sorted((member for member in members if _is_visible(member.name)), key=lambda member: member.name)
    return Container("zip", tuple(visible), archive.comment)


def _gzip(path: Path, unpacked: BinaryIO) -> Container:
    """A gzipped tar file, or one gzipped file."""
    counter = _ByteCounter(path)
    with _translate_errors(path):
        head = unpacked.read(512)
        unpacked.seek(0)
    if head[257:262] == b"ustar":
        return _tar(path, unpacked, counter)
    name = path.name.removesuffix(".gz")
    return Container("gzip", (_member(name, path.stat().st_size, partial(gzip.open, path), counter),))


class _TarStream:
    """A tar file's stream. While the members are listed, it refuses to read a header that could fill the memory."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path, self.listing = stream, path, True
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if self.listing and not 0 <= size <= MAX_TAR_HEADER_BYTES:
            raise DataError(f"{self._path} has a header of {size:,} bytes and may be an archive bomb: {TRUSTED_COPY}")
        return self._stream.read(size)


def _tar(path: Path, stream: BinaryIO, counter: _ByteCounter) -> Container:
    """List a tar file. Listing a gzipped one decompresses all of it, so the limits apply here too.

    Members keep the order of the archive: seeking backwards in a gzipped tar file decompresses it from the start.
    """
    members = []
    source = _TarStream(stream, path)
    with _translate_errors(path):
        archive = tarfile.open(fileobj=source, mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
        for number, entry in enumerate(archive):
            _check_count(path, number)
            if entry.offset_data + entry.size > MAX_TOTAL_BYTES:
                raise _zip_bomb(path)
            if entry.isfile():
                opener = partial(archive.extractfile, entry)
                members.append(_member(_safe_name(path, entry.name), entry.size, opener, counter))
    source.listing = False
    return Container("tar", tuple(member for member in members if _is_visible(member.name)))


def _check_count(path: Path, count: int) -> None:
    if count > MAX_MEMBERS:
        raise DataError(
            f"{path} contains more than {MAX_MEMBERS:,} files, more than any copy of FER-2013: pass only the data set"
        )


def _safe_name(path: Path, name: str) -> str:
    """Return the name with "/" as separator, or raise DataError if it points outside the archive.

    Nothing is extracted, so such a name is harmless here, but it shows that the archive is an attack.
    """
    plain = name.replace("\\", "/")
    if plain.startswith("/") or re.match("[A-Za-z]:", plain) or ".." in plain.split("/"):
        raise DataError(f"{path} contains a file named {name!r}, which points outside the archive: {TRUSTED_COPY}")
    return PurePosixPath(plain).as_posix()


def _is_visible(name: str) -> bool:
    return not any(part.startswith(".") or part in IGNORED_NAMES for part in name.split("/"))


def pack(folder: Path, target: Path) -> None:
    """Write a folder's files into an uncompressed zip file. The same files give the same bytes on any machine."""
    with open_container(folder) as container, zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as archive:
        for member in container.members:
            entry = zipfile.ZipInfo(member.name, ZIP_EPOCH)
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, member.read())
