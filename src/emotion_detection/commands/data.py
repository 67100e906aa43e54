"""Put a data set into data/ and track it with DVC: `make data SOURCE=...` in the root folder of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import yaml
from filelock import FileLock, Timeout

from emotion_detection.atomic import atomic_output
from emotion_detection.data.archives import IGNORED_NAMES, pack
from emotion_detection.data.dataset import NO_SPLIT, TRAIN, VAL, has_votes
from emotion_detection.data.downloads import SOURCES, download
from emotion_detection.data.formats import SUPPORTED, VOTES_FOLDER, RawData, read_raw, single_file
from emotion_detection.data.votes import JoinedVotes, copy_tables, join_votes, read_votes
from emotion_detection.emotions import SPLITS
from emotion_detection.errors import DataError, UsageError, describe_os_error, shorten

# Names in the folder data.incoming
OLD, BACKUP, LOCK = "old", "backup", "lock"
ABSENT = ".absent"  # the suffix of a mark in BACKUP: the file did not exist


def add_data(source: str = "", *, votes: str = "", data: Path = Path("data")) -> None:
    """Check a data set, put it into data/ and track it with DVC. If anything fails, data/ remains unchanged.

    Args:
        source: kaggle, huggingface, or the path of a copy of FER-2013 (CSV, archive, folders or parquet).
        votes: FER+'s fer2013new.csv, or tables of votes by image file; empty: none.
        data: The folder that DVC tracks.
    """
    if not source.strip():
        raise UsageError(f"SOURCE is missing: pass kaggle, huggingface or the path of {SUPPORTED}")
    _check_folder(data)
    incoming = data.with_name(f"{data.name}.incoming")
    try:
        with _exclusive(incoming):
            raw = _add_data(source, votes.strip(), data, incoming)
    except OSError as error:
        raise DataError(f"{data}/ remains unchanged, because {describe_os_error(error)}") from error
    print(_next_steps(raw, data, with_votes=bool(votes.strip())))


def _add_data(source: str, votes: str, data: Path, incoming: Path) -> RawData:
    _allow_missing_git(data)
    _end_killed_call(data, incoming)
    _check_replaceable(data)
    # An interrupted download stays in this folder, and the next attempt resumes it.
    vote_table = read_votes(_expand(votes)) if votes else None  # before a download
    path = single_file(download(source, incoming / "download") if source in SOURCES else _expand(source))
    try:
        raw = read_raw(path)
        print(_describe(raw, path))
        if vote_table:
            print(_describe_votes(join_votes(vote_table, raw), raw))
        _stage_source(path, incoming / "new", source)
        if votes:
            _stage_votes(_expand(votes), incoming / "new" / VOTES_FOLDER)
        _replace(data, incoming)
    finally:
        _remove_temporary(incoming)
    return raw


@contextmanager
def _exclusive(incoming: Path) -> Iterator[None]:
    """Hold a lock against another `make data`, in the folder of the temporary files, which exists only in the block."""
    incoming.mkdir(exist_ok=True)
    lock = FileLock(incoming / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise DataError("another `make data` is running in this project: wait until it has finished") from error
    try:
        yield
    finally:
        (incoming / LOCK).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # the folder still contains an interrupted download
            incoming.rmdir()


def _expand(source: str) -> Path:
    """The path of the source; ~ is the home folder. Raises UsageError if the user after ~ is unknown."""
    try:
        return Path(source).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{source} cannot be found: pass the complete path of {SUPPORTED}") from error


def _stage_source(path: Path, folder: Path, source: str) -> None:
    """Create a folder with one file: a copy of the source file, or a zip file of the source folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if path.is_file():
        shutil.copyfile(path, folder / _visible_name(path.name))
    else:
        name = f"fer2013-{source}" if source in SOURCES else path.resolve().name
        pack(path, folder / _visible_name(f"{name}.zip"))


def _stage_votes(path: Path, folder: Path) -> None:
    """Create a folder with a copy of the file of votes, or of the tables of a folder."""
    folder.mkdir()
    if path.is_file():
        shutil.copyfile(path, folder / _visible_name(path.name))
    else:
        copy_tables(path, folder)


def _visible_name(name: str) -> str:
    """The name of the file in data/: hidden files are not read there, and DVC has a use for some names of its own."""
    name = "".join(character if character.isprintable() else "_" for character in name.lstrip("."))
    reserved = name in (*IGNORED_NAMES, VOTES_FOLDER, "zip", "dvc.yaml", "dvc.lock") or name.endswith(".dvc")
    return f"fer2013-{name}.data" if reserved or not name else name


def _remove_temporary(incoming: Path) -> None:
    for name in ("new", "download", *([] if (incoming / OLD).exists() else [BACKUP])):
        shutil.rmtree(incoming / name, ignore_errors=True)


def _check_folder(data: Path) -> None:
    """Raise an error if data/ cannot be replaced as a folder.

    DVC tracks no folder behind a symbolic link, and takes a name with a colon for a part of dvc.yaml.
    """
    if not re.fullmatch(r"\w[\w .-]*", data.name):
        raise UsageError(f"{data} is not a name for a folder that DVC tracks: use letters, digits, '-' and '_'")
    if data.is_symlink():
        raise DataError(
            f"{data} is a symbolic link, which DVC cannot track: remove the link, and move DVC's cache to the other "
            "disk with `dvc cache dir PATH` if space is short"
        )
    if data.is_dir() and os.path.ismount(data):
        raise DataError(
            f"{data} is a mount point, which cannot be replaced: mount the disk elsewhere, and move DVC's cache to it "
            "with `dvc cache dir PATH`"
        )
    if data.exists() and not data.is_dir():
        raise DataError(f"{data} is a file, not a folder: move it away first")


def _allow_missing_git(data: Path) -> None:
    """Let DVC work without Git if the project was downloaded as a zip file, in which .git is missing."""
    root = data.absolute().parent
    if (root / ".dvc").is_dir() and not any((folder / ".git").exists() for folder in (root, *root.parents)):
        _run_dvc(data, "config", "--local", "core.no_scm", "true")


def _check_replaceable(data: Path) -> None:
    """Raise DataError if data/ contains anything that DVC cannot restore."""
    if not data.exists() or not any(data.iterdir()):
        return
    if not _is_stored(data):
        raise DataError(
            f"{data}/ contains files that {_dvc_file(data)} does not track or DVC's cache does not contain, "
            "and replacing them would lose them: move them away first"
        )


def _is_stored(data: Path) -> bool:
    """Whether DVC's cache contains all files of data/."""
    dvc_file = _dvc_file(data)
    if not dvc_file.exists():
        return False
    state = json.loads(_run_dvc(data, "status", "--json", dvc_file.name)).get(dvc_file.name, [])
    return not any("changed outs" in entry for entry in state if isinstance(entry, dict))


def _replace(data: Path, incoming: Path) -> None:
    """Replace data/ by `incoming`/new and track it with DVC. If anything fails, restore all files.

    data.dvc never refers to other data than those of this or of the previous call, so that `dvc repro` restores the
    previous data if the process is killed.
    """
    _back_up(data, incoming)
    data.mkdir(exist_ok=True)
    os.replace(data, incoming / OLD)
    try:
        os.replace(incoming / "new", data)
        # Otherwise `dvc add` would keep the import of the sample, and the next `dvc repro` would restore the sample.
        with atomic_output(_dvc_file(data)) as temporary:
            temporary.write_text(yaml.safe_dump({"outs": [{"path": data.name}]}))
        _run_dvc(data, "add", data.name)
        if not _is_stored(data):  # on a full disk, `dvc add` succeeds although its cache is incomplete
            raise DataError(f"{data}/ remains unchanged, because DVC could not store the data set: free some space")
    except BaseException:  # including Ctrl-C
        _restore(data, incoming)
        raise
    # The folder OLD is the mark of an interrupted call, so it disappears in one step.
    os.replace(incoming / OLD, incoming / "new")


def _end_killed_call(data: Path, incoming: Path) -> None:
    """Undo a call that was killed while it replaced data/, unless `dvc repro` has tracked its data meanwhile."""
    if not (incoming / OLD).is_dir():
        return
    try:
        complete = data.is_dir() and _is_stored(data)
    except DataError:  # data.dvc is damaged
        complete = False
    if complete:
        shutil.rmtree(incoming / OLD)
    else:
        _restore(data, incoming)


def _back_up(data: Path, incoming: Path) -> None:
    """Copy the files that DVC changes, before anything else is changed."""
    shutil.rmtree(incoming / BACKUP, ignore_errors=True)
    (incoming / BACKUP).mkdir()
    for path in _changed_by_dvc(data):
        if path.exists():
            shutil.copyfile(path, incoming / BACKUP / path.name)
        else:
            (incoming / BACKUP / f"{path.name}{ABSENT}").touch()


def _restore(data: Path, incoming: Path) -> None:
    """Restore data/, data.dvc and .gitignore, if `incoming` contains them. Needs no space on the disk."""
    if not (incoming / OLD).is_dir():
        return
    for path in _changed_by_dvc(data):
        backup = incoming / BACKUP / path.name
        if backup.exists():
            os.replace(backup, path)
        elif backup.with_name(f"{path.name}{ABSENT}").exists():
            path.unlink(missing_ok=True)
    shutil.rmtree(data, ignore_errors=True)
    os.replace(incoming / OLD, data)
    if not any(data.iterdir()):
        data.rmdir()  # it did not exist or was empty


def _changed_by_dvc(data: Path) -> tuple[Path, Path]:
    return _dvc_file(data), data.with_name(".gitignore")


def _dvc_file(data: Path) -> Path:
    return data.with_name(f"{data.name}.dvc")


def _run_dvc(data: Path, *arguments: str) -> str:
    """Run DVC in the parent folder of data/ and return its output. Raise DataError with DVC's message if it fails."""
    command = [sys.executable, "-m", "dvc", *arguments]
    process = subprocess.run(command, cwd=data.absolute().parent, capture_output=True, text=True)
    if process.returncode:
        errors = [line for line in process.stderr.splitlines() if line.startswith("ERROR")] or ["no error message"]
        raise DataError(f"`dvc {' '.join(arguments)}` failed, so {data}/ remains unchanged: {shorten(errors[0], 400)}")
    return process.stdout


def _describe(raw: RawData, path: Path) -> str:
    names = [*SPLITS, "without a split"]
    rows = [int(np.sum(raw.faces.splits == split)) for split in (*range(len(SPLITS)), NO_SPLIT)]
    counts = ", ".join(f"{count:,} {name}" for name, count in zip(names, rows, strict=True) if count)
    return "\n".join([f"{shorten(path, 400)}: {raw.form}", f"data set {raw.dataset}: {counts}", *raw.notes])


def _describe_votes(joined: JoinedVotes, raw: RawData) -> str:
    voted = has_votes(joined.votes)
    names = {TRAIN: "train faces", VAL: "val faces", NO_SPLIT: "faces without a split"}
    masks = {name: raw.faces.splits == split for split, name in names.items()}
    counts = [f"{voted[mask].sum():,} of {mask.sum():,} {name}" for name, mask in masks.items() if mask.any()]
    unused = f"; {joined.unused:,} rows belong to test faces or to none and are not used" if joined.unused else ""
    agreement = f"the raters' most frequent choice is the label of {100 * joined.agreement:.0f} % of them"
    return f"votes for {' and '.join(counts)}; {agreement}{unused}"


def _next_steps(raw: RawData, data: Path, *, with_votes: bool) -> str:
    lines = [f"{data}/ now contains the data set, tracked by {_dvc_file(data)}. Next steps:"]
    if raw.dataset == "fer2013":
        lines.append("  make adopt FROM=recipes/fer_resnet_fast.yaml   # settings for FER-2013")
    if with_votes:
        lines.append("  set train.votes in params.yaml, for example to 0.6   # learn from the votes too")
    return "\n".join([*lines, "  make repro"])
