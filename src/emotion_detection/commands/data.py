"""Put a data set into data/ and track it with DVC: `make data SOURCE=...` in the root folder of the project."""

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
from emotion_detection.data.formats import SUPPORTED, RawData, read_raw, single_file
from emotion_detection.emotions import SPLITS
from emotion_detection.errors import DataError, UsageError


def add_data(source: str = "", *, data: Path = Path("data")) -> None:
    """Check a data set, put it into data/ and track it with DVC. If anything fails, data/ remains unchanged.

    Args:
        source: kaggle, huggingface, or the path of a copy of FER-2013 (CSV, archive, folders or parquet).
        data: The folder that DVC tracks.
    """
    if not source.strip():
        raise UsageError(f"SOURCE is missing: pass kaggle, huggingface or the path of {SUPPORTED}")
    _check_replaceable(data)
    incoming = data.with_name(f"{data.name}.incoming")
    # An interrupted download stays in this folder, and the next attempt resumes it.
    path = single_file(download(source, incoming / "download") if source in SOURCES else Path(source).expanduser())
    try:
        raw = read_raw(path)
        print(_describe(raw, path))
        _replace(data, _stage_source(path, incoming / "new", source), incoming / "old")
    finally:
        _remove_temporary(incoming)
    print(_next_steps(raw, data))


def _stage_source(path: Path, folder: Path, source: str) -> Path:
    """Create a folder with one file: a copy of the source file, or a zip file of the source folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if path.is_file():
        shutil.copyfile(path, folder / path.name)
    else:
        name = f"fer2013-{source}" if source in SOURCES else path.resolve().name
        pack(path, folder / f"{name}.zip")
    return folder


def _remove_temporary(incoming: Path) -> None:
    for name in ("new", "download"):
        shutil.rmtree(incoming / name, ignore_errors=True)
    with suppress(OSError):  # the folder still contains "old" if data/ could not be restored
        incoming.rmdir()


def _check_replaceable(data: Path) -> None:
    """Raise DataError if data/ contains anything that DVC cannot restore."""
    if not data.exists() or (data.is_dir() and not any(data.iterdir())):
        return
    dvc_file = _dvc_file(data)
    if dvc_file.exists():
        state = json.loads(_run_dvc(data, "status", "--json", dvc_file.name)).get(dvc_file.name, [])
        if not any("changed outs" in entry for entry in state if isinstance(entry, dict)):
            return
    raise DataError(
        f"{data}/ contains files that {dvc_file} does not track or DVC's cache does not contain, "
        "and replacing them would lose them: move them away first"
    )


def _replace(data: Path, new: Path, old: Path) -> None:
    """Replace data/ and track it with DVC. If anything fails, restore data/, data.dvc and .gitignore."""
    contents = {path: _read_if_exists(path) for path in (_dvc_file(data), data.with_name(".gitignore"))}
    # A killed run may have left this folder. DVC's cache contains its files: this was checked before they were moved.
    shutil.rmtree(old, ignore_errors=True)
    data.mkdir(exist_ok=True)
    os.replace(data, old)
    try:
        os.replace(new, data)
        # Otherwise `dvc add` would keep the import of the sample, and the next `dvc repro` would restore the sample.
        _dvc_file(data).unlink(missing_ok=True)
        _run_dvc(data, "add", data.name)
    except BaseException:  # including Ctrl-C
        _restore(data, old, contents)
        raise
    shutil.rmtree(old)


def _restore(data: Path, old: Path, contents: dict[Path, bytes | None]) -> None:
    shutil.rmtree(data, ignore_errors=True)
    os.replace(old, data)
    if not any(data.iterdir()):
        data.rmdir()  # it did not exist or was empty
    for path, content in contents.items():
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(content)


def _dvc_file(data: Path) -> Path:
    return data.with_name(f"{data.name}.dvc")


def _read_if_exists(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _run_dvc(data: Path, *arguments: str) -> str:
    """Run DVC in the parent folder of data/ and return its output. Raise DataError with DVC's message if it fails."""
    command = [sys.executable, "-m", "dvc", *arguments]
    process = subprocess.run(command, cwd=data.absolute().parent, capture_output=True, text=True)
    if process.returncode:
        errors = [line for line in process.stderr.splitlines() if line.startswith("ERROR")] or ["no error message"]
        raise DataError(f"`dvc {' '.join(arguments)}` failed, so {data}/ remains unchanged: {errors[0]}")
    return process.stdout


def _describe(raw: RawData, path: Path) -> str:
    names = [*SPLITS, "without a split"]
    rows = [int(np.sum(raw.faces.splits == split)) for split in (*range(len(SPLITS)), NO_SPLIT)]
    counts = ", ".join(f"{count:,} {name}" for name, count in zip(names, rows, strict=True) if count)
    return "\n".join([f"{path}: {raw.form}", f"data set {raw.dataset}: {counts}", *raw.notes])


def _next_steps(raw: RawData, data: Path) -> str:
    lines = [f"{data}/ now contains the data set, tracked by {_dvc_file(data)}. Next steps:"]
    if raw.dataset == "fer2013":
        lines.append("  make adopt FROM=recipes/fer_resnet_fast.yaml   # settings for FER-2013")
    return "\n".join([*lines, "  make repro"])
