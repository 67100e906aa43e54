"""Files named by their own digest: whoever names one says exactly what is in it."""

import hashlib
from pathlib import Path

from emotion_detection.atomic import atomic_output
from emotion_detection.errors import InputError


def write_content_addressed(content: bytes, folder: Path) -> Path:
    """Write an npz file under the name that its content gives it; returns the file."""
    path = folder / f"{_name(content)}.npz"
    with atomic_output(path) as written:
        written.write_bytes(content)
    return path


def read_content_addressed(path: Path, remedy: str) -> bytes:
    """The content of a file of write_named; InputError with the remedy if it is not there or not what its name says."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    if path.stem != _name(content):
        raise InputError(f"{path} is not the file of that name any more (it would be {_name(content)}.npz): {remedy}")
    return content


def _name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
