"""List the files of a tar archive. A header that is damaged, unusual or missing is an error.

The module tarfile takes the first damaged header for the end of the archive, and some headers keep it busy for hours.
Here, only its parser of a single header is used.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tarfile import BLOCKSIZE, TarInfo
from typing import BinaryIO

from emotion_detection.errors import DataError, shorten

MAX_EXTENDED_BYTES = 1 << 16  # a long name, or the attributes of one file
MAX_PADDING_BYTES = 1 << 24  # zeros after the end marker; tar fills up to 10 kB by default
ENCODING = ("utf-8", "replace")

LONG_NAME, LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
ATTRIBUTES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
EXTENDED = (LONG_NAME, LONG_LINK, *ATTRIBUTES, tarfile.XGLTYPE)  # headers that describe the next file
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


@dataclass(frozen=True)
class TarFile:
    """A regular file: its name, and its position and size in the unpacked archive in bytes. A link has no size."""

    name: str
    offset: int
    size: int
    is_link: bool = False

    @property
    def end(self) -> int:
        """The position of the next header."""
        return self.offset + _blocks(self.size)


def list_files(
    stream: BinaryIO, path: Path, max_bytes: int, *, links: bool = False, start: int = 0
) -> Iterator[TarFile]:
    """Yield the regular files; a hard link has the position of the file that it links to.

    With `links`, links of both kinds are yielded as such, and no names are kept in memory. `start` is the position of
    the header to begin with, such as the end of a file.

    Reads the stream to its end, so that the checksum of a gzipped one is verified. Raises DataError if a header is
    damaged, the end marker is missing, other data follow it, the archive contains a link to a name or a device, or it
    claims more than `max_bytes`. `path` names the archive in messages.
    """
    known: dict[str, TarFile] = {}
    last, position = "", start
    stream.seek(start)
    attributes: dict[str, str] = {}
    while (header := _header(stream, path, last)) is not None:
        position += BLOCKSIZE
        if header.type in EXTENDED:
            attributes |= _extended(header, stream, path)
            position += _blocks(header.size)
            continue
        file = _file(header, attributes, position, known if not links else None, path)
        if file is not None:
            last = file.name
            if not links:
                known[last] = file
            yield file
        if header.type in FILES:
            position += _blocks(file.size if file else 0)
        if position > max_bytes:
            raise DataError(
                f"{path} unpacks to more than {max_bytes >> 20:,} MiB and may be a zip bomb: "
                "use a copy from a trusted source"
            )
        stream.seek(position)
        attributes = {}
    _check_end(stream, path)


def _header(stream: BinaryIO, path: Path, last: str) -> TarInfo | None:
    """Read the next header; None is the first block of the end marker."""
    block = stream.read(BLOCKSIZE)
    if len(block) == BLOCKSIZE and not any(block):
        return None
    where = f"after {shorten(last, 80)}" if last else "at its start"
    try:
        header = TarInfo.frombuf(block, *ENCODING)
    except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
        raise DataError(f"{path} is truncated {where}: download it again") from error
    except (tarfile.TarError, ValueError) as error:
        raise DataError(f"{path} has a damaged header {where}: download it again") from error
    if header.size < 0:
        raise DataError(f"{path} has a damaged header {where}: download it again")
    return header


def _extended(header: TarInfo, stream: BinaryIO, path: Path) -> dict[str, str]:
    """Return what an extended header says about the next file."""
    if header.size > MAX_EXTENDED_BYTES:
        raise DataError(
            f"{path} has a header of {header.size:,} bytes and may be an archive bomb: use a copy from a trusted source"
        )
    content = stream.read(_blocks(header.size))[: header.size]
    if header.type in (LONG_NAME, LONG_LINK):
        key = "path" if header.type == LONG_NAME else "linkpath"
        return {key: content.rstrip(b"\0").decode(*ENCODING)}
    try:
        attributes = _parse_attributes(content)
    except ValueError as error:
        raise DataError(f"{path} has a damaged header of attributes: download it again") from error
    # Global attributes contain a comment, such as the commit in the archives of `git archive`.
    wrong = [key for key in attributes if key.startswith("GNU.sparse")]
    if wrong or (header.type == tarfile.XGLTYPE and {"path", "size"} & attributes.keys()):
        raise DataError(f"{path} contains a sparse file: unpack it and pass the folder")
    return attributes if header.type in ATTRIBUTES else {}


def _parse_attributes(content: bytes) -> dict[str, str]:
    r"""Parse lines of the form "LENGTH KEY=VALUE\n", where LENGTH counts the bytes of the line. Raises ValueError."""
    attributes, start = {}, 0
    while start < len(content) and content[start]:
        space = content.index(b" ", start, start + 10)
        end = start + int(content[start:space])
        key, separator, value = content[space + 1 : end].partition(b"=")
        if end <= space or end > len(content) or not separator or not value.endswith(b"\n"):
            raise ValueError("the length is wrong")
        attributes[key.decode(*ENCODING)] = value[:-1].decode(*ENCODING)
        start = end
    return attributes


def _file(
    header: TarInfo, attributes: dict[str, str], position: int, known: dict[str, TarFile] | None, path: Path
) -> TarFile | None:
    """Return the file of this header; None is a folder. Links are returned as such if no files are `known`."""
    name = attributes.get("path", header.name)
    if header.type == tarfile.DIRTYPE:
        return None
    if known is None and header.type in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        return TarFile(name, position, 0, is_link=True)
    if known is not None and header.type == tarfile.LNKTYPE:
        target = known.get(attributes.get("linkpath", header.linkname))
        if target is not None:
            return TarFile(name, target.offset, target.size)
    if header.type not in FILES:
        raise DataError(
            f"{path} contains {shorten(name, 80)}, which is a link or no regular file: unpack it and pass the folder"
        )
    size = attributes.get("size", str(header.size))
    if not (size.isascii() and size.isdigit() and len(size) < 20):
        raise DataError(f"{path} has a damaged size of {shorten(name, 80)}: download it again")
    return TarFile(name, position, int(size))


def _blocks(size: int) -> int:
    """The size in the archive: a multiple of BLOCKSIZE."""
    return -(-size // BLOCKSIZE) * BLOCKSIZE


def _check_end(stream: BinaryIO, path: Path) -> None:
    """Check that another block of zeros, and nothing but zeros, follows the first one."""
    rest = stream.read(MAX_PADDING_BYTES + 1)
    if len(rest) < BLOCKSIZE:
        raise DataError(f"{path} ends in the middle of its end marker: it is truncated, so download it again")
    if len(rest) > MAX_PADDING_BYTES or any(rest):
        raise DataError(f"{path} has other data after its end marker: download it again, or unpack it and check it")
