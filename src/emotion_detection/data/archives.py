"""Read folders, zip files and tar files as a list of members. Nothing is extracted to disk."""

import gzip
import io
import lzma
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from emotion_detection.data.tar_files import list_files
from emotion_detection.data.zip_files import open_zip
from emotion_detection.errors import DataError, shorten

# The largest supported file, fer2013.csv, has 301 MB. The limits apply to the bytes that are read, not to the sizes
# in the headers, so that a zip bomb cannot exhaust memory or keep the machine busy.
MAX_TOTAL_BYTES = 1 << 30
MAX_MEMBERS = 100_000
READ_ERRORS = (
    OSError,
    EOFError,
    RuntimeError,  # an encrypted zip file; its subclass NotImplementedError: an unknown compression method
    ValueError,
    LookupError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
)
# Names without control characters and without surrogates, by which Python keeps bytes that are not UTF-8.
NAME = re.compile("[^\\x00-\\x1f\\x7f\\ud800-\\udfff]{1,255}")
IGNORED_NAMES = {"__MACOSX", "Thumbs.db", "desktop.ini"}
TRUSTED_COPY = "use a copy from a trusted source"
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that the zip format can store


@dataclass(frozen=True)
class Member:
    """One file: `name` is its path in the container, separated by "/"; `size` is the claimed number of bytes.

    `file` is its path if it is not in an archive.
    """

    name: str
    size: int
    open: Callable[[], BinaryIO]
    file: Path | None = None

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
    """`kind` is "file", "folder", "zip", "tar" or "gzip". Members are sorted by name, except those of a tar file.

    `hidden` are the files whose names start with a dot; files in hidden folders are left out.
    """

    kind: str
    members: tuple[Member, ...]
    comment: bytes = b""
    hidden: tuple[Member, ...] = ()


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
        remedy = "download the file again"
        if isinstance(error, OSError) and error.errno:
            reason, remedy = error.strerror or reason, "check the file and its permissions"
        raise DataError(f"{where} cannot be read ({reason}): {remedy}") from error


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
    if not path.is_file():
        raise DataError(f"{path} is a pipe or a device, not a file: save the data set to a file first")
    with _translate_errors(path):
        stream = path.open("rb")
        head = stream.read(512)
        stream.seek(0)
    with stream:
        if head.startswith(b"\x1f\x8b"):
            with gzip.open(stream) as unpacked:
                yield _gzip(path, unpacked)  # type: ignore[arg-type]
        elif head[257:262] == b"ustar":
            yield _tar(path, stream, _ByteCounter(path))
        elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            yield _zip(path, stream)
        else:
            member = _member(path.name, path.stat().st_size, partial(path.open, "rb"), _ByteCounter(path), path)
            yield Container("file", (member,))


def _member(name: str, size: int, opener: Callable[[], Any], counter: _ByteCounter, file: Path | None = None) -> Member:
    def open_counted() -> BinaryIO:
        with _translate_errors(counter.path, name):
            return io.BufferedReader(_CountedStream(opener(), counter, name), 1 << 16)

    return Member(name, size, open_counted, file)


def _folder(path: Path) -> Container:
    counter = _ByteCounter(path)
    with _translate_errors(path):
        files = sorted((file.relative_to(path).as_posix(), file) for file in _walk(path))
        members = [
            _member(name, file.stat().st_size, partial(file.open, "rb"), counter, file)
            for name, file in files
            if _is_visible(name) or _is_hidden_file(name)
        ]
    return _container("folder", path, members)


def _walk(path: Path) -> Iterator[Path]:
    """Yield the files of a folder, also those of folders that it links to. Hidden folders are left out."""
    seen, count = set(), 0
    for folder, folders, files in os.walk(path, onerror=_raise, followlinks=True):
        folders[:] = sorted(name for name in folders if _is_visible(name))
        identity = os.path.realpath(folder)
        if identity in seen:  # a link to a folder that was read before, or to one above
            folders.clear()
            continue
        seen.add(identity)
        count += len(files)
        _check_count(path, count)
        for name in files:
            file = Path(folder, name)
            if _is_visible(name) and not file.is_file():
                raise DataError(f"{file} is a broken link or no regular file: remove it")
            if file.is_file():
                yield file


def _raise(error: OSError) -> None:
    raise error


def _zip(path: Path, stream: BinaryIO) -> Container:
    counter = _ByteCounter(path)
    with _translate_errors(path):
        archive = open_zip(stream, path)
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    _check_count(path, len(entries))
    members = [
        _member(_safe_name(path, entry.filename), entry.file_size, partial(archive.open, entry), counter)
        for entry in entries
    ]
    return _container("zip", path, sorted(members, key=lambda member: member.name), archive.comment)


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


class _Part(io.RawIOBase):
    """A part of a stream that several members share."""

    def __init__(self, stream: BinaryIO, offset: int, size: int) -> None:
        self._stream, self._position, self._end = stream, offset, offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._end - self._position)
        self._stream.seek(self._position)
        content = self._stream.read(wanted)
        if wanted and not content:
            raise EOFError("it is truncated")
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def _tar(path: Path, stream: BinaryIO, counter: _ByteCounter) -> Container:
    """List a tar file. Listing a gzipped one decompresses all of it, so the limits apply here too.

    Members keep the order of the archive: seeking backwards in a gzipped tar file decompresses it from the start.
    """
    members = []
    with _translate_errors(path):
        for number, file in enumerate(list_files(stream, path, MAX_TOTAL_BYTES)):
            _check_count(path, number)
            opener = partial(_Part, stream, file.offset, file.size)
            members.append(_member(_safe_name(path, file.name), file.size, opener, counter))
    return _container("tar", path, members)


def _container(kind: str, path: Path, members: list[Member], comment: bytes = b"") -> Container:
    """Check the names of an archive's members, and separate the hidden ones."""
    repeated = [name for name, count in Counter(member.name for member in members).items() if count > 1]
    if repeated:
        raise DataError(f"{path} contains {repeated[0]} twice: unpack it, check both and pass the folder")
    unusual = [member.name for member in members if not NAME.fullmatch(member.name)]
    if unusual:
        raise DataError(f"{path} contains a file with the unusual name {shorten(ascii(unusual[0]), 80)}: rename it")
    visible = tuple(member for member in members if _is_visible(member.name))
    hidden = tuple(member for member in members if _is_hidden_file(member.name))
    return Container(kind, visible, comment, hidden)


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
        raise DataError(
            f"{path} contains a file named {shorten(repr(name), 80)}, which points outside the archive: {TRUSTED_COPY}"
        )
    return PurePosixPath(plain).as_posix()


def _is_visible(name: str) -> bool:
    return not any(part.startswith(".") or part in IGNORED_NAMES for part in name.split("/"))


def _is_hidden_file(name: str) -> bool:
    """Whether a file outside hidden folders is hidden. The files ._NAME contain metadata of macOS."""
    *folders, file = name.split("/")
    return file.startswith(".") and not file.startswith("._") and _is_visible("/".join(folders) or "x")


def pack(folder: Path, target: Path) -> None:
    """Write a folder's files into an uncompressed zip file. The same files give the same bytes on any machine."""
    with open_container(folder) as container, zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as archive:
        for member in container.members:
            entry = zipfile.ZipInfo(member.name, ZIP_EPOCH)
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, member.read())
