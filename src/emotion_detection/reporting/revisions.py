"""Results of a git revision or of a DVC experiment, from DVC's cache, and those of the working tree."""

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any

from emotion_detection.config import flatten
from emotion_detection.decoding.yaml_text import parse_yaml
from emotion_detection.errors import ConfigError, DataError, shorten
from emotion_detection.reporting.results import CLASSES, DATA_REPORT, HISTORY, METRICS, Origin, Results, read_results

WORKSPACE = "workspace"  # DVC's word for the files of the working tree
# The output of the pipeline that contains each file, by the last part of its path.
CONTAINERS = {HISTORY: "model", METRICS: "report", CLASSES: "report"}
PREDICTIONS_CONTAINER = "report"


def find_revision(reference: str, project: Path) -> str | None:
    """The commit of a branch, a tag, a commit or a DVC experiment; None if git or DVC do not know it."""
    from dvc.exceptions import DvcException  # DVC takes a second to import
    from dvc.repo import Repo
    from dvc.scm import resolve_rev
    from scmrepo.exceptions import SCMError

    if reference.startswith("-"):
        return None
    try:
        with Repo(str(project)) as repo:
            found = resolve_rev(repo.scm, reference)
            return str(repo.scm.resolve_rev(f"{found}^{{commit}}"))  # not a file or a folder
    except (DvcException, SCMError, ValueError):  # also without git; ValueError: git cannot parse it
        return None


def read_revision(reference: str, revision: str | None, project: Path) -> Results:
    """The results of a commit, or of the working tree for None.

    They are what dvc.lock of the commit names. Raises DataError if the cache has none of them.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    try:
        files = DVCFileSystem(str(project), rev=revision)
        found_outputs = outputs(_text(files, "dvc.yaml"), reference)
        found = read_results(
            _origin(reference, revision, files),
            lambda name: _read(files, _path(found_outputs, name)),
            params=_params(_text(files, "dvc.lock")),
        )
    except DvcException as error:
        raise DataError(
            f"DVC cannot read {shorten(reference)} ({shorten(error)}): check it with `dvc status`"
        ) from error
    if not found.metrics and not found.predictions:
        raise DataError(
            f"the results of {shorten(reference)} are not in DVC's cache: get them with `dvc pull`, or check it out "
            "and run `dvc repro`"
        )
    return found


def _origin(reference: str, revision: str | None, files: Any) -> Origin:
    if revision is None:
        return Origin(reference, "working tree")
    git = files.repo.scm
    committed = datetime.fromtimestamp(git.resolve_commit(revision).commit_time, timezone.utc)
    kind = "commit" if _knows(git, reference) else "DVC experiment"
    return Origin(reference, kind, commit=revision, date=f"{committed:%Y-%m-%d}")


def _knows(git: Any, reference: str) -> bool:
    """Whether git itself knows the reference."""
    from scmrepo.exceptions import SCMError

    try:
        return bool(git.resolve_rev(reference))
    except (SCMError, ValueError):
        return False


def outputs(text: str, reference: str) -> dict[str, PurePosixPath]:
    """The outputs of the pipeline by the last part of their paths."""
    try:
        stages = parse_yaml(text, "dvc.yaml")["stages"].values()
        paths = [
            PurePosixPath(next(iter(out)) if isinstance(out, dict) else out)
            for one in stages
            for out in one.get("outs", ())
        ]
    except (ConfigError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise DataError(
            f"{shorten(reference)} has no pipeline of this project ({shorten(error) or 'no dvc.yaml'}): name another "
            "revision"
        ) from error
    return {path.name: path for path in paths}


def _path(found: Mapping[str, PurePosixPath], name: str) -> str | None:
    if name == DATA_REPORT:
        return str(found[name]) if name in found else None
    container = CONTAINERS.get(name, PREDICTIONS_CONTAINER)
    return str(found[container] / name) if container in found else None


def _read(files: Any, path: str | None) -> bytes | None:
    """The content of a file; None if neither git nor DVC have it."""
    from dvc_data.index import DataIndexDirError

    if path is None:
        return None
    try:
        content: bytes = files.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, DataIndexDirError):
        return None
    except OSError as error:
        raise DataError(f"{path} cannot be read from DVC ({shorten(error)}): check its remote") from error
    return content


def _text(files: Any, path: str) -> str:
    content = _read(files, path)
    return content.decode("utf-8", errors="replace") if content else ""


def _params(lock: str) -> dict[str, Any]:
    """The settings with which the stages were run; {} if dvc.lock cannot be read."""
    with suppress(ConfigError, LookupError, TypeError, ValueError, AttributeError):
        sections: dict[str, Any] = {}
        for stage in parse_yaml(lock, "dvc.lock")["stages"].values():
            for values in stage.get("params", {}).values():
                sections |= values
        return flatten(sections)
    return {}


def has_pipeline(project: Path) -> bool:
    """Whether the folder is a checkout of the project that DVC can read."""
    return os.path.isdir(project / ".dvc")
