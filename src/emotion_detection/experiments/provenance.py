"""Where a run comes from: the commit, the pinned data, the experiment, the machine."""

import os
import platform
import subprocess
from pathlib import Path

import yaml


def provenance() -> dict[str, str]:
    """Tags of the code and machine at work now; what cannot be told (no git, no experiment) is left out.

    dvc.lock does not count as a change: DVC itself rewrites it while the pipeline runs.
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


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def pinned_md5(pin: Path) -> str:
    """The md5 under which DVC keeps the raw data, from data.dvc."""
    return str(yaml.safe_load(pin.read_text())["outs"][0]["md5"])
