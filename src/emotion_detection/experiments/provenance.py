"""Where a run comes from: the code, the command, the tracked data, the DVC experiment, the parents and the machine."""

import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_detection.decoding.yaml_text import read_yaml
from emotion_detection.errors import DataError
from emotion_detection.experiments.environment import environment, environment_digest
from emotion_detection.experiments.parents import parents
from emotion_detection.experiments.patches import LOCKS, code_state
from emotion_detection.experiments.repository import git
from emotion_detection.redaction import scrub

PATCH, ENVIRONMENT, PARENTS = "code/changes.patch", "environment.json", "parents.json"  # artifacts of a run
MODEL_DIGEST, WEIGHTS_DIGEST = "onnx_sha256", "weights_sha256"  # tags of a run: the files that it made
QUEUED = ["exp", "exec-run"]  # how DVC starts an experiment of its queue; its settings are in the patch
MAX_TAG = 4_000  # characters


def provenance() -> dict[str, str]:
    """Tags of the current code and machine; unknown ones (no git, no experiment) are left out.

    Changes to files dvc.lock are ignored, because DVC rewrites them while a pipeline runs.
    """
    tags = {
        "git_commit": git("rev-parse", "HEAD"),
        "git_dirty": str(bool(git("status", "--porcelain", "--", ":/", LOCKS))).lower(),
        "dvc_experiment": os.environ.get("DVC_EXP_NAME", ""),
        "host": platform.node(),
    }
    if not tags["git_commit"]:
        del tags["git_dirty"]
    return {key: value for key, value in tags.items() if value}


def model_digests(model: Path) -> dict[str, str]:
    """The tags by which a run is found from the files of its model folder: its ONNX file and its initial weights."""
    files = {MODEL_DIGEST: model.glob("model.onnx"), WEIGHTS_DIGEST: model.glob("initial_weights/*.npz")}
    return {key: hashlib.sha256(file.read_bytes()).hexdigest() for key, found in files.items() for file in found}


@dataclass(frozen=True)
class Origin:
    """What is recorded when a training starts."""

    tags: dict[str, str]
    files: dict[str, bytes]
    """The content of each artifact by its path in the run."""


def origin(train: Mapping[str, Any], project: Path) -> Origin:
    """Describe this process as the origin of a training. Nothing here fails without git.

    train: the section of params.yaml as plain values. project: the folder with params.yaml and requirements.lock.
    """
    machine, ancestors, code = environment(project), parents(train, project), code_state(project)
    files, left_out = {ENVIRONMENT: _json(machine), PARENTS: _json(ancestors)}, {}
    tags = provenance() | {"environment": environment_digest(machine), "command": command()}
    digests = [one["sha256"] for parent in ancestors for one in (parent, *parent["made_by"]) if one.get("sha256")]
    if digests:
        tags["parents"] = " ".join(digests)[:MAX_TAG]  # by which the runs that come from a model are found
    if code:
        tags["code_tree"] = code.tree
        # Also if they are empty: a run that goes on after a commit would keep those of its start.
        files[PATCH] = code.patch
        left_out = {"code_left_out": ", ".join(code.left_out)[:MAX_TAG]}
    return Origin({key: value for key, value in tags.items() if value} | left_out, files)


def command() -> str:
    """The command that a person typed: that of the DVC process that runs this one, or else this process's."""
    import psutil

    with suppress(psutil.Error):
        for process in psutil.Process().parents():
            words = process.cmdline()
            place = next((place for place, word in enumerate(words[:3]) if Path(word).name == "dvc"), None)
            if place is not None and words[place + 1 : place + 3] == QUEUED:
                return shlex.join(["dvc", "exp", "run", "--queue", "--name", os.environ.get("DVC_EXP_NAME", "")])
            if place is not None:
                return scrub(shlex.join(["dvc", *words[place + 1 :]]))[:MAX_TAG]
    return scrub(shlex.join(_own_command(sys.orig_argv)))[:MAX_TAG]


def _own_command(words: Sequence[str]) -> list[str]:
    """The words of a command without the folder of Python or of a script."""
    script = len(words) > 1 and words[1] == sys.argv[0]
    return [Path(sys.argv[0]).name, *words[2:]] if script else ["python", *words[1:]]


def _json(content: object) -> bytes:
    return scrub(json.dumps(content, indent=2)).encode()


def committed(path: Path) -> str:
    """The content of a file in the last commit; "" without git, without a commit or if the commit lacks the file."""
    return git("show", f"HEAD:./{path.name}", folder=path.parent)


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
