"""Outputs that are whole or not there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file or folder at; it takes the name once the body has succeeded."""
    beside = path.with_name(f"unfinished-{path.name}")  # the suffix stays: libraries choose formats by it
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(beside)
    try:
        yield beside
        if path.is_dir() and beside.is_dir():  # os.replace puts a file over a file, but no folder over a folder
            shutil.rmtree(path)
        os.replace(beside, path)
    finally:
        _remove(beside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
