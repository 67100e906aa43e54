"""The raw data in DVC's cache and in the working tree, checked against the MD5 that a run has recorded."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

DIRECTORY = ".dir"  # the end of the MD5 of a folder
CHUNK = 2**20
MOST_NAMED = 3


def cache_folder(project: Path) -> Path:
    """The folder of DVC's cache, which a user may have moved."""
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    name = done.stdout.strip().splitlines()[-1:] if done.returncode == 0 else []
    return Path(name[0]) if name else project / ".dvc" / "cache"


def has_remote(project: Path) -> bool:
    """Whether DVC can download data that the cache lacks."""
    command = [sys.executable, "-m", "dvc", "remote", "list"]
    return bool(subprocess.run(command, cwd=project, capture_output=True, check=False).stdout.strip())


def find_damage(md5: str, cache: Path) -> str:
    """What the cache lacks of the data with this MD5, or which of its files is damaged; "" if all is there."""
    problems = []
    for name, expected in _entries(md5, cache).items():
        path = _cached(expected, cache)
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif not _matches(path, expected):
            problems.append(f"{name} ({path}) is damaged")
    return _join(problems)


def find_changes(md5: str, cache: Path, data: Path) -> str:
    """Which files of the working tree differ from the data with this MD5; "" without a difference or a listing."""
    expected = {name: content for name, content in _entries(md5, cache).items() if name != md5}
    if not expected or not data.is_dir():
        return ""
    here = {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}
    changed = [
        f"{name} has another content" for name in sorted(here & {*expected}) if _md5(data / name) != expected[name]
    ]
    changed += [f"{name} is missing" for name in sorted({*expected} - here)]
    return _join(changed + [f"{name} is new" for name in sorted(here - {*expected})])


def link_recorded(md5: str, cache: Path, folder: Path) -> None:
    """Make `folder` look like the data with this MD5, by links into the cache. What the cache lacks is missing."""
    for name, content in _entries(md5, cache).items():
        source, target = _cached(content, cache), folder / name
        if source.is_file() and name != md5 and target.resolve().is_relative_to(folder.resolve()):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.resolve())


def folder_md5(data: Path) -> str:
    """The MD5 that DVC gives to a folder."""
    files = sorted(path for path in data.rglob("*") if path.is_file())
    listing = [{"md5": _md5(path), "relpath": path.relative_to(data).as_posix()} for path in files]
    text = json.dumps(sorted(listing, key=lambda entry: entry["relpath"]), sort_keys=True)
    return f"{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}{DIRECTORY}"


def forget_file(path: Path, project: Path) -> None:
    """Remove the copy of a file of a stage from DVC's cache, so that `dvc repro` runs the stage again."""
    _cached(_md5(path), cache_folder(project)).unlink(missing_ok=True)


def _entries(md5: str, cache: Path) -> dict[str, str]:
    """The MD5 of each file by its name. A folder whose listing is missing or damaged has only itself."""
    listing = _cached(md5, cache)
    if not md5.endswith(DIRECTORY) or not listing.is_file() or not _matches(listing, md5):
        return {md5: md5}
    entries: list[dict[str, Any]] = json.loads(listing.read_bytes())
    return {str(entry["relpath"]): str(entry["md5"]) for entry in entries}


def _cached(md5: str, cache: Path) -> Path:
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def _matches(path: Path, md5: str) -> bool:
    return _md5(path) == md5.removesuffix(DIRECTORY)


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _join(problems: list[str]) -> str:
    rest = f" and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
    return f"{', '.join(problems[:MOST_NAMED])}{rest}"
