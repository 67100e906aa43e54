"""The files that a training starts from: initial weights and soft labels, and the models that made them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emotion_detection.decoding.npz import NpzError, open_npz

INITIAL_WEIGHTS, SOFT_LABELS = "initial_weights", "soft_labels"
MAX_DEPTH = 10  # of an ancestry
MAX_TEXT = 4 * 100_000  # bytes of the list of teachers
ORIGIN = ".json"  # the suffix of a file next to a parent that says who made it


def parents(train: Mapping[str, Any], project: Path) -> list[dict[str, Any]]:
    """The parents of a training: kind, path, sha256 (None if the file is missing) and the models that made it.

    train: the section of params.yaml as plain values. A model has some of name, sha256, run_id, git_commit, recipe,
    note and parents, its own parents.
    """
    distillation = train.get("distillation") or {}
    named = {INITIAL_WEIGHTS: train.get(INITIAL_WEIGHTS), SOFT_LABELS: distillation.get(SOFT_LABELS)}
    return [describe_parent(kind, str(path), project) for kind, path in named.items() if path]


def describe_parent(kind: str, path: str, project: Path, depth: int = 0) -> dict[str, Any]:
    """A parent as it is in the project now. `depth`: the number of generations between it and the first training."""
    file = project / path
    content = file.read_bytes() if file.is_file() else None
    return {
        "kind": kind,
        "path": path,
        "sha256": hashlib.sha256(content).hexdigest() if content is not None else None,
        "made_by": _made_by(file, project, depth),
    }


def _made_by(file: Path, project: Path, depth: int) -> list[dict[str, Any]]:
    """The models that made a file, from the file itself and from the JSON file next to it."""
    teachers = _teachers(file)
    noted = {one.get("sha256") or one.get("run_id"): one for one in _noted(file)}
    for one in noted.values():
        earlier = [of for of in one.get("parents", ()) if {"kind", "path"} <= {*of}] if depth < MAX_DEPTH else []
        one["parents"] = [describe_parent(str(of["kind"]), str(of["path"]), project, depth + 1) for of in earlier]
    models = [{**teacher, **noted.pop(teacher["sha256"], {})} for teacher in teachers]
    return models + list(noted.values())


def _noted(file: Path) -> list[dict[str, Any]]:
    try:
        stored = json.loads(file.with_suffix(ORIGIN).read_text(encoding="utf-8"))["made_by"]
        return [one for one in stored if isinstance(one, dict)]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []


def _teachers(file: Path) -> list[dict[str, Any]]:
    """The names and digests of the models that a file of soft labels names."""
    try:
        with open_npz(file) as arrays:
            header = arrays.headers.get("teachers")
            if header is None or header.dtype.kind != "U" or len(header.shape) != 1 or _bytes(header) > MAX_TEXT:
                return []
            names = [str(name).rpartition(" ")[::2] for name in arrays.read("teachers")]
    except (OSError, NpzError, ValueError, UnicodeError):
        return []
    return [{"name": name, "sha256": digest} for name, digest in names]


def _bytes(header: Any) -> int:
    return int(header.dtype.itemsize) * int(header.shape[0])
