"""Folders, zips and tars as one list of members, read in memory: nothing is extracted to disk."""

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

from emotion_detection.errors import InputError

# fer2013.csv is 301 MB, and no known form is larger. The limits are on bytes that come out, never on what a
# header claims, so an archive made to fill memory or to keep a machine busy ends here.
MAX_TOTAL_BYTES = 1 << 30
MAX_MEMBERS = 100_000
MAX_TAR_HEADER_BYTES = 1 << 20
DAMAGED = (
    OSError,
    EOFError,
    RuntimeError,  # an encrypted zip; its child NotImplementedError an unknown compression
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
)
JUNK = {"__MACOSX", "Thumbs.db", "desktop.ini"}
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can tell


@dataclass(frozen=True)
class Member:
    """One file: name is its path inside the container with "/", size the bytes it claims to hold."""

    name: str
    size: int
    open: Callable[[], BinaryIO]

    def read(self, limit: int = MAX_TOTAL_BYTES) -> bytes:
        """All bytes; InputError beyond `limit`."""
        with self.open() as stream:
            content = stream.read(limit + 1)
        if len(content) > limit:
            raise InputError(f"{self.name} is larger than {limit:,} bytes: this is no file of a FER-2013 data set")
        return content


@dataclass(frozen=True)
class Container:
    """kind is "file", "folder", "zip", "tar" or "gzip"; members are sorted by name but for a tar's."""

    kind: str
    members: tuple[Member, ...]
    comment: bytes = b""


class _Meter:
    """Counts the bytes that come out of one container, over all its members."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.total = 0

    def take(self, count: int) -> None:
        self.total += count
        if self.total > MAX_TOTAL_BYTES:
            raise InputError(f"{self.path} unpacks to more than {MAX_TOTAL_BYTES >> 20:,} MiB: refused as a zip bomb")


class _Metered(io.RawIOBase):
    """A stream whose bytes are counted and whose damage is told as an InputError."""

    def __init__(self, stream: BinaryIO, meter: _Meter, name: str) -> None:
        self._stream, self._meter, self._name = stream, meter, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _told(self._meter.path, self._name):
            content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        self._meter.take(len(content))
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextmanager
def _told(path: Path, name: str = "") -> Iterator[None]:
    try:
        yield
    except DAMAGED as error:
        where = f"{path}: {name}" if name else str(path)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{where} cannot be read ({reason}): get the file again") from error


@contextmanager
def opened(path: Path) -> Iterator[Container]:
    """The members of a folder or archive, or the file itself; InputError for damage and unsafe names."""
    if path.is_dir():
        yield _folder(path)
        return
    with _told(path):
        stream = path.open("rb")
    with stream:
        head = stream.read(512)
        stream.seek(0)
        if head.startswith(b"\x1f\x8b"):
            with gzip.open(stream) as unpacked:
                yield _gzip(path, unpacked)  # type: ignore[arg-type]
        elif head[257:262] == b"ustar":
            yield _tar(path, stream, _Meter(path))
        elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            yield _zip(path, stream)
        else:
            yield Container("file", (_member(path.name, path.stat().st_size, partial(path.open, "rb"), _Meter(path)),))


def _member(name: str, size: int, opener: Callable[[], Any], meter: _Meter) -> Member:
    def open_metered() -> BinaryIO:
        with _told(meter.path, name):
            return io.BufferedReader(_Metered(opener(), meter, name), 1 << 16)

    return Member(name, size, open_metered)


def _folder(path: Path) -> Container:
    meter = _Meter(path)
    found = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    members = (
        _member(name, file.stat().st_size, partial(file.open, "rb"), meter) for name, file in found if _visible(name)
    )
    return Container("folder", tuple(members))


def _zip(path: Path, stream: BinaryIO) -> Container:
    meter = _Meter(path)
    with _told(path):
        archive = zipfile.ZipFile(stream)
    entries = {_safe(path, entry.filename): entry for entry in archive.infolist() if not entry.is_dir()}
    members = [_member(name, entry.file_size, partial(archive.open, entry), meter) for name, entry in entries.items()]
    _check_count(path, len(members))
    visible = sorted((member for member in members if _visible(member.name)), key=lambda member: member.name)
    return Container("zip", tuple(visible), archive.comment)


def _gzip(path: Path, unpacked: BinaryIO) -> Container:
    """A tar inside gzip, or one gzipped file."""
    meter = _Meter(path)
    with _told(path):
        head = unpacked.read(512)
        unpacked.seek(0)
    if head[257:262] == b"ustar":
        return _tar(path, unpacked, meter)
    name = path.name.removesuffix(".gz")
    return Container("gzip", (_member(name, path.stat().st_size, partial(gzip.open, path), meter),))


class _TarStream:
    """A tar's stream that, while the list is read, gives no header large enough to fill memory."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path, self.listing = stream, path, True
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if self.listing and not 0 <= size <= MAX_TAR_HEADER_BYTES:
            raise InputError(f"{self._path} has a header of {size:,} bytes: refused as an archive bomb")
        return self._stream.read(size)


def _tar(path: Path, stream: BinaryIO, meter: _Meter) -> Container:
    """The list of a gzipped tar costs one pass over it, so the list is bounded too.

    Members keep the archive's order: going back in a gzipped tar means unpacking it from the beginning.
    """
    members = []
    source = _TarStream(stream, path)
    with _told(path):
        archive = tarfile.open(fileobj=source, mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
        for number, entry in enumerate(archive):
            _check_count(path, number)
            if entry.offset_data + entry.size > MAX_TOTAL_BYTES:
                raise InputError(f"{path} unpacks to more than {MAX_TOTAL_BYTES >> 20:,} MiB: refused as a zip bomb")
            if entry.isfile():
                opener = partial(archive.extractfile, entry)
                members.append(_member(_safe(path, entry.name), entry.size, opener, meter))
    source.listing = False
    return Container("tar", tuple(member for member in members if _visible(member.name)))


def _check_count(path: Path, count: int) -> None:
    if count > MAX_MEMBERS:
        raise InputError(f"{path} holds over {MAX_MEMBERS:,} files: more than any FER-2013 data set")


def _safe(path: Path, name: str) -> str:
    """The name with "/"; one that points outside is refused although nothing is written: it is an attack."""
    plain = name.replace("\\", "/")
    if plain.startswith("/") or re.match("[A-Za-z]:", plain) or ".." in plain.split("/"):
        raise InputError(f"{path} holds a file named {name!r}, which points outside the archive: do not trust it")
    return PurePosixPath(plain).as_posix()


def _visible(name: str) -> bool:
    return not any(part.startswith(".") or part in JUNK for part in name.split("/"))


def pack(folder: Path, target: Path) -> None:
    """Write a folder's files into one stored zip: the same files give the same bytes anywhere."""
    with opened(folder) as container, zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as archive:
        for member in container.members:
            entry = zipfile.ZipInfo(member.name, EPOCH)
            entry.create_system = 3  # Unix, also when packed elsewhere
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, member.read())
