"""Where a run comes from: the commit, the tracked data, the DVC experiment and the machine."""

import json
import os
import platform
import subprocess
from pathlib import Path

from emotion_detection.decoding.yaml_text import read_yaml
from emotion_detection.errors import DataError


def provenance() -> dict[str, str]:
    """Tags of the current code and machine; unknown ones (no git, no experiment) are left out.

    Changes to dvc.lock are ignored, because DVC rewrites it while the pipeline runs.
    """
    tags = {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": str(bool(_git("status", "--porcelain", "--", ":/", ":!dvc.lock"))).lower(),
        "dvc_experiment": os.environ.get("DVC_EXP_NAME", ""),
        "host": platform.node(),
    }
    if not tags["git_commit"]:
        del tags["git_dirty"]
    return {key: value for key, value in tags.items() if value}


def committed(path: Path) -> str:
    """The content of a file in the last commit; "" without git, without a commit or if the commit lacks the file."""
    return _git("-C", str(path.parent), "show", f"HEAD:./{path.name}")


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def pinned_md5(pin: Path) -> str:
    """The MD5 under which DVC stores the raw data, read from data.dvc. Raises DataError if it does not contain one."""
    try:
        return str(read_yaml(pin)["outs"][0]["md5"])
    except (LookupError, TypeError) as error:
        raise DataError(f"{pin} contains no MD5 of the data: run `make data` or restore the file with git") from error


def read_data_report(path: Path, *keys: str) -> list[str]:
    """The values of these keys in the report of the prepare stage. Raises DataError if one cannot be read."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return [report[key] for key in keys]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}): run `dvc repro prepare`, which writes it") from error
