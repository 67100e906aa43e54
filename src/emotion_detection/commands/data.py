"""Put a data set into data/ and pin it with DVC: `make data SOURCE=...` at the root of the project."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from emotion_detection.data.archives import pack
from emotion_detection.data.dataset import NO_SPLIT
from emotion_detection.data.downloads import SOURCES, download
from emotion_detection.data.formats import KNOWN, Raw, read_raw, sole_file
from emotion_detection.emotions import SPLITS
from emotion_detection.errors import InputError


def add_data(source: str = "", *, data: Path = Path("data")) -> None:
    """Check a data set, put it into data/ and track it with DVC. A failure changes nothing.

    Args:
        source: kaggle, huggingface, or the path of a copy of FER-2013 (CSV, archive, folders or parquet).
        data: The folder that DVC tracks.
    """
    if not source.strip():
        raise InputError(f"SOURCE is missing: give kaggle, huggingface, or the path of {KNOWN}")
    _refuse_unknown(data)
    incoming = data.with_name(f"{data.name}.incoming")
    # A broken-off download stays here, and a second attempt goes on where it stopped.
    path = sole_file(download(source, incoming / "download") if source in SOURCES else Path(source).expanduser())
    try:
        raw = read_raw(path)
        print(_found(raw, path))
        _replace(data, _staged(path, incoming / "new", source), incoming / "old")
    finally:
        _tidy(incoming)
    print(_next_steps(raw, data))


def _staged(path: Path, folder: Path, source: str) -> Path:
    """A folder with exactly one file: the source itself, or a folder's files packed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if path.is_file():
        shutil.copyfile(path, folder / path.name)
    else:
        name = f"fer2013-{source}" if source in SOURCES else path.resolve().name
        pack(path, folder / f"{name}.zip")
    return folder


def _tidy(incoming: Path) -> None:
    for name in ("new", "download"):
        shutil.rmtree(incoming / name, ignore_errors=True)
    with suppress(OSError):  # it holds "old" still if data/ could not be put back
        incoming.rmdir()


def _refuse_unknown(data: Path) -> None:
    """InputError if data/ holds anything that DVC could not bring back."""
    if not data.exists() or (data.is_dir() and not any(data.iterdir())):
        return
    pointer = _pointer(data)
    if pointer.exists():
        state = json.loads(_dvc(data, "status", "--json", pointer.name)).get(pointer.name, [])
        if not any("changed outs" in entry for entry in state if isinstance(entry, dict)):
            return
    raise InputError(
        f"{data}/ holds what {pointer} does not pin or DVC has not stored, and nothing may be lost: move it away first"
    )


def _replace(data: Path, new: Path, old: Path) -> None:
    """Swap data/ and pin it; if anything fails, data/, data.dvc and .gitignore are as before."""
    texts = {path: _bytes(path) for path in (_pointer(data), data.with_name(".gitignore"))}
    # What a killed run left here was in DVC's store before it was moved.
    shutil.rmtree(old, ignore_errors=True)
    data.mkdir(exist_ok=True)
    os.replace(data, old)
    try:
        os.replace(new, data)
        # `dvc add` keeps the dependency of an import, and the next repro would bring the sample back.
        _pointer(data).unlink(missing_ok=True)
        _dvc(data, "add", data.name)
    except BaseException:  # Ctrl-C too
        _restore(data, old, texts)
        raise
    shutil.rmtree(old)


def _restore(data: Path, old: Path, texts: dict[Path, bytes | None]) -> None:
    shutil.rmtree(data, ignore_errors=True)
    os.replace(old, data)
    if not any(data.iterdir()):
        data.rmdir()  # it was not there, or held nothing
    for path, content in texts.items():
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(content)


def _pointer(data: Path) -> Path:
    return data.with_name(f"{data.name}.dvc")


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _dvc(data: Path, *arguments: str) -> str:
    """Run DVC beside data/ and return its output; InputError with DVC's own words if it fails."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=data.absolute().parent, capture_output=True, text=True)
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise InputError(f"`dvc {' '.join(arguments)}` failed and {data}/ is as before: {words[0]}")
    return done.stdout


def _found(raw: Raw, path: Path) -> str:
    names = [*SPLITS, "without a split"]
    rows = [int(np.sum(raw.faces.splits == split)) for split in (*range(len(SPLITS)), NO_SPLIT)]
    counts = ", ".join(f"{count:,} {name}" for name, count in zip(names, rows, strict=True) if count)
    return "\n".join([f"{path}: {raw.form}", f"data set {raw.dataset}: {counts}", *raw.notes])


def _next_steps(raw: Raw, data: Path) -> str:
    lines = [f"{data}/ now holds it, pinned by {_pointer(data)}. Next:"]
    if raw.dataset == "fer2013":
        lines.append("  make adopt FROM=recipes/fer_resnet.yaml   # settings that were tuned on FER-2013")
    return "\n".join([*lines, "  make repro"])
