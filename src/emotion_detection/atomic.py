"""Atomic writes: an output is either complete or absent."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder, and rename it to `path` if the block succeeds.

    If the block fails, the temporary output is removed and `path` keeps its previous content.
    """
    # A prefix keeps the file's suffix, by which libraries choose a format.
    temporary = path.with_name(f"unfinished-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(temporary)
    try:
        yield temporary
        if path.is_dir() and temporary.is_dir():  # os.replace cannot replace a folder that contains files
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
