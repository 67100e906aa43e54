"""Files on this machine or at any address that fsspec knows, such as s3://bucket, and atomic writes to them."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from emotion_detection.errors import UsageError, shorten
from emotion_detection.redaction import scrub

UNFINISHED = "_unfinished"  # parquet readers skip names that start with an underscore


class Storage:
    """A folder or file at an address. `path` is its path without the protocol; a local one is absolute."""

    def __init__(self, address: str) -> None:
        """Raises UsageError if fsspec does not know the address or lacks a package for it."""
        try:
            filesystem, path = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise UsageError(f"{scrub(address)} cannot be opened: {shorten(error)}") from error
        self.address, self.filesystem = address, filesystem
        self.path = path.rstrip("/") or "/"
        self.is_local = isinstance(filesystem, LocalFileSystem)

    def at(self, path: str) -> "Storage":
        """Another folder of the same file system."""
        other = copy(self)
        other.path = path.rstrip("/") or "/"
        return other

    def __str__(self) -> str:
        return self.path if self.is_local else scrub(self.filesystem.unstrip_protocol(self.path))

    def join(self, name: str) -> str:
        """The path of a file in this folder; the folder itself for an empty name."""
        return f"{self.path.rstrip('/')}/{name}" if name else self.path

    def open(self, name: str) -> Any:
        """Open a file of this folder for reading."""
        if self.is_local:  # without fsspec's buffer, and with errors that name the file
            return Path(self.join(name)).open("rb")
        return self.filesystem.open(self.join(name), "rb")

    def names(self) -> list[str]:
        """The names of the files and folders in this folder; empty if it does not exist."""
        self.filesystem.invalidate_cache()
        with suppress(FileNotFoundError):
            return [str(path).rsplit("/", 1)[-1] for path in self.filesystem.ls(self.path, detail=False)]
        return []

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield the path of a temporary local file, which becomes the file `name` if the block succeeds.

        The file is complete or absent at any time, also if several processes write it at once. An object store has
        this property for each upload.
        """
        if not self.is_local:
            with tempfile.TemporaryDirectory() as folder:
                temporary = Path(folder, "file")
                yield temporary
                self.filesystem.makedirs(self.join(name).rsplit("/", 1)[0], exist_ok=True)
                self.filesystem.put_file(str(temporary), self.join(name))
            return
        target = Path(self.join(name))
        temporary = Path(self.path, UNFINISHED, uuid4().hex)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def remove_unfinished(self) -> None:
        """Remove the temporary files of a killed process."""
        if self.is_local:
            shutil.rmtree(Path(self.path, UNFINISHED), ignore_errors=True)
