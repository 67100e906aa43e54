"""Files on this machine or at any address that fsspec knows, such as s3://bucket, and atomic writes to them."""

import io
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

from emotion_detection.errors import EmotionDetectionError, StoreError, UsageError, shorten
from emotion_detection.redaction import scrub

UNFINISHED = "_unfinished"  # parquet readers skip names that start with an underscore
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}  # an upload is complete or absent
BUFFER_BYTES = 1 << 16
MISSING = (404, 410)  # HTTP statuses


class Storage:
    """A folder or file at an address. `path` is its path without the protocol; a local one is absolute."""

    def __init__(self, address: str) -> None:
        """Raises UsageError if fsspec does not know the address or lacks a package for it."""
        try:
            filesystem, path = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise UsageError(f"{scrub(address)} cannot be opened: {shorten(error)}") from error
        self.address, self.filesystem = address, filesystem
        self.is_local = isinstance(filesystem, LocalFileSystem)
        self._protocols = {filesystem.protocol} if isinstance(filesystem.protocol, str) else set(filesystem.protocol)
        # A query may be a signature, so it is only used to open files, and is no part of a name.
        path, separator, query = path.partition("?") if "http" in self._protocols else (path, "", "")
        self._query = separator + query
        self.path = path.rstrip("/") or "/"

    def at(self, path: str) -> "Storage":
        """Another folder of the same file system."""
        other = copy(self)
        other.path = path.rstrip("/") or "/"
        return other

    def __str__(self) -> str:
        return self.path if self.is_local else scrub(self.filesystem.unstrip_protocol(self.path))

    def join(self, name: str) -> str:
        """The path of a file in this folder, with the query of its address; the folder itself for an empty name."""
        return (f"{self.path.rstrip('/')}/{name}" if name else self.path) + self._query

    def open(self, name: str) -> Any:
        """Open a file of this folder for reading."""
        if self.is_local:  # without fsspec's buffer, and with errors that name the file
            return Path(self.join(name)).open("rb")
        return io.BufferedReader(_RemoteFile(self, name), BUFFER_BYTES)

    def names(self) -> list[str]:
        """The names of the files and folders in this folder; empty if it does not exist."""
        self.filesystem.invalidate_cache()
        return list(self.entries())

    def entries(self, folder: str = "") -> dict[str, bool]:
        """The files and folders in a folder by their names, and whether each is a folder; empty if it does not exist.

        Raises StoreError if the server of an address does not respond.
        """
        place = self.join(folder)
        with suppress(FileNotFoundError), self.answering(place):
            found = (
                (str(one["name"]).rstrip("/"), one["type"] == "directory")
                for one in self.filesystem.ls(place, detail=True)
            )
            # Object stores may list the folder itself, and a page of links contains some with a query.
            inside = (one for one in found if one[0] != place and not ("http" in self._protocols and "?" in one[0]))
            return {path.rsplit("/", 1)[-1]: is_folder for path, is_folder in inside}
        return {}

    def exists(self, name: str = "") -> bool:
        """Whether there is this file or folder. Raises StoreError if the server of an address does not respond."""
        if self.is_local:
            return bool(self.filesystem.exists(self.join(name)))
        with suppress(FileNotFoundError), self.answering(self.join(name)):
            self.filesystem.info(self.join(name))
            return True
        return False

    def is_folder(self) -> bool:
        """Whether this is a folder. Raises StoreError if the server of an address does not respond."""
        with suppress(FileNotFoundError), self.answering(self.join("")):
            if self.is_local or "http" in self._protocols:  # over HTTP, everything is a file that may have links
                return bool(self.filesystem.isdir(self.join("")))
            return bool(self.filesystem.info(self.join(""))["type"] == "directory")
        return False

    @contextmanager
    def answering(self, path: str) -> Iterator[None]:
        """Raise StoreError for whatever goes wrong at an address, except for a file or folder that is missing.

        So a server that fails or forbids the access is not taken for a damaged picture. Local errors stay what they
        are.
        """
        try:
            yield
        except Exception as error:
            if self.is_local or isinstance(error, EmotionDetectionError) or self._is_missing(path, error):
                raise
            cause = error.__cause__ or error
            place = shorten(scrub(self.filesystem.unstrip_protocol(path), self.address))
            reason = shorten(scrub(str(cause), self.address)) or type(cause).__name__
            raise StoreError(
                f"{place} cannot be used ({reason}): check the server and your access to it, then repeat the command"
            ) from error

    def _is_missing(self, path: str, error: Exception) -> bool:
        """Whether the file is missing. Some file systems, such as HTTP, say so for any problem of the server."""
        if not isinstance(error, FileNotFoundError) or error.__cause__ is None:
            return isinstance(error, FileNotFoundError | IsADirectoryError)
        status = getattr(error.__cause__, "status", None)
        if status is not None:
            return status in MISSING
        folder, _, name = path.rstrip("/").rpartition("/")
        try:
            self.filesystem.invalidate_cache()
            return all(
                str(one).rstrip("/").rsplit("/", 1)[-1] != name for one in self.filesystem.ls(folder, detail=False)
            )
        except FileNotFoundError:
            return True
        except Exception:
            return False

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield the path of a temporary local file, which becomes the file `name` if the block succeeds.

        The file is complete or absent at any time, also if several processes write it at once. An object store has
        this property for each upload; elsewhere the file is uploaded under another name first. Raises StoreError if the
        server of an address does not respond.
        """
        if not self.is_local:
            with tempfile.TemporaryDirectory() as folder:
                temporary = Path(folder, "file")
                yield temporary
                with self.answering(self.join(name)):
                    self._upload(temporary, self.join(name))
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

    def _upload(self, file: Path, target: str) -> None:
        self.filesystem.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        if self._protocols & OBJECT_STORES:
            self.filesystem.put_file(str(file), target)
            return
        self.filesystem.makedirs(self.join(UNFINISHED), exist_ok=True)
        unfinished = self.join(f"{UNFINISHED}/{uuid4().hex}")
        self.filesystem.put_file(str(file), unfinished)
        if self.filesystem.exists(target):  # HDFS does not replace a file
            self.filesystem.rm_file(target)
        self.filesystem.mv(unfinished, target)

    def remove(self, name: str) -> None:
        """Remove a file of this folder if there is one."""
        if self.exists(name):
            with self.answering(self.join(name)):
                self.filesystem.rm_file(self.join(name))

    def remove_unfinished(self) -> None:
        """Remove the temporary files of a killed process."""
        if self.is_local:
            shutil.rmtree(Path(self.path, UNFINISHED), ignore_errors=True)


class _RemoteFile(io.RawIOBase):
    """A file at an address whose errors are those of `Storage.answering`."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._path = storage, storage.join(name)
        with storage.answering(self._path):
            self._stream = storage.filesystem.open(self._path, "rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._stream.seekable())

    def tell(self) -> int:
        return int(self._stream.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._storage.answering(self._path):
            return int(self._stream.seek(offset, whence))

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with self._storage.answering(self._path):
            content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed and hasattr(self, "_stream"):
            self._stream.close()
        super().close()
