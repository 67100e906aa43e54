"""Files named after the digest of their content, so that a name identifies exactly one content."""

import hashlib
from pathlib import Path

from emotion_detection.atomic import atomic_output
from emotion_detection.errors import ModelError


def write_content_addressed(content: bytes, folder: Path) -> Path:
    """Write the content of an npz file under the name of its digest and return the path."""
    path = folder / f"{_digest(content)}.npz"
    with atomic_output(path) as temporary:
        temporary.write_bytes(content)
    return path


def read_content_addressed(path: Path, remedy: str) -> bytes:
    """Return the content of a file that `write_content_addressed` wrote.

    Raise ModelError, with the remedy in its message, if the file is missing or does not match its name.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    if path.stem != _digest(content):
        raise ModelError(f"{path} was changed or renamed, its content belongs to {_digest(content)}.npz: {remedy}")
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
