"""Files named after the digest of their content, so that a name identifies exactly one content."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emotion_detection.atomic import atomic_output
from emotion_detection.decoding.npz import Npz, NpzError, open_npz
from emotion_detection.errors import ModelError

CHUNK = 2**20  # bytes
MAX_BYTES = 10**9


def write_content_addressed(content: bytes, folder: Path, *, comment: bytes = b"") -> Path:
    """Write the content of an npz file, with a comment, under the name of its digest and return the path."""
    if comment:
        stream = io.BytesIO(content)
        with zipfile.ZipFile(stream, "a") as archive:
            archive.comment = comment
        content = stream.getvalue()
    path = folder / f"{_name(hashlib.sha256(content).hexdigest())}.npz"
    with atomic_output(path) as temporary:
        temporary.write_bytes(content)
    return path


def read_comment(path: Path) -> bytes:
    """The comment of a file that `write_content_addressed` wrote; b"" if there is none or it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment
    except Exception:  # zipfile raises many kinds; whoever uses the file reports its damage
        return b""


@contextmanager
def open_content_addressed(path: Path, remedy: str) -> Iterator[Npz]:
    """Open a file that `write_content_addressed` wrote.

    Raise ModelError, with the remedy in its message, if the file is missing, is damaged or does not match its name.
    """
    name = _name(file_digest(path, remedy))
    if path.stem != name:
        raise ModelError(f"{path} was changed or renamed, its content belongs to {name}.npz: {remedy}")
    try:
        with open_npz(path) as arrays:
            yield arrays
    except NpzError as error:
        raise ModelError(f"{path} cannot be used ({error}): {remedy}") from error


def file_digest(path: Path, remedy: str) -> str:
    """Return the SHA-256 (hex) of a file of any size. Raise ModelError, with the remedy, if it cannot be read."""
    sha = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            if not path.is_file() or path.stat().st_size > MAX_BYTES:
                raise ModelError(f"{path} cannot be read (no file, or more than {MAX_BYTES // 10**9} GB): {remedy}")
            while chunk := stream.read(CHUNK):
                sha.update(chunk)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    return sha.hexdigest()


def _name(digest: str) -> str:
    return digest[:12]
