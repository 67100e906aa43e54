"""Atomic writes: an output is either complete or absent, also after the machine lost its power."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder, and rename it to `path` if the block succeeds.

    The output is on the disk before it is renamed. If the block fails, the temporary output is removed and `path` keeps
    its previous content. An OSError without a file name, such as that of a full disk, gets the name of `path`.
    """
    # A prefix keeps the file's suffix, by which libraries choose a format.
    temporary = path.with_name(f"unfinished-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clean(temporary, path)
        try:
            yield temporary
            _flush(temporary)
            _replace(temporary, path)
            _flush_names(path.parent)
        finally:
            _remove(temporary)
    except OSError as error:
        _name(error, temporary, path)
        raise


def _name(error: OSError, temporary: Path, path: Path) -> None:
    """Let an error name the output instead of its temporary copy or nothing."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    if error.errno is not None and all(Path(name).is_relative_to(temporary) for name in names[-1:]):
        error.filename, error.filename2 = str(path), None


def _replace(temporary: Path, path: Path) -> None:
    """Rename an output; os.replace cannot replace a folder that contains files."""
    if not (path.is_dir() and temporary.is_dir()):
        os.replace(temporary, path)
        return
    os.replace(path, _previous(path))
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(_previous(path), path)
        raise
    _remove(_previous(path))


def _previous(path: Path) -> Path:
    return path.with_name(f"previous-{path.name}")


def _clean(temporary: Path, path: Path) -> None:
    """Remove what a killed process left, after restoring the previous content if it was killed while renaming."""
    _remove(temporary)
    if path.exists():
        _remove(_previous(path))
    elif _previous(path).exists():
        os.replace(_previous(path), path)


def _flush(path: Path) -> None:
    """Wait until a file, or each file and folder in a folder, is on the disk."""
    for entry in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if entry.is_dir():
            _flush_names(entry)
        elif os.name != "nt":  # Windows flushes only files that are open for writing
            with entry.open("rb") as stream:
                os.fsync(stream.fileno())


def _flush_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that."""
    with suppress(OSError):  # Windows cannot open a folder, and some network disks cannot flush one
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
