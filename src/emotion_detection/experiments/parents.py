"""The files that a training uses: weights, soft labels and teachers, and the models that made them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emotion_detection.decoding.npz import NpzError, open_npz

INITIAL_WEIGHTS, SOFT_LABELS, TEACHER = "initial_weights", "soft_labels", "teacher"
AVERAGED_WEIGHTS = "averaged_weights"
MAX_DEPTH = 10  # of an ancestry
MAX_TEXT = 4 * 100_000  # bytes of the list of teachers
TEXTS = ("name", "sha256", "run_id", "git_commit", "recipe", "note")  # what may be known of a model
ORIGIN = ".json"  # the suffix of a file next to a parent that says who made it


def parents(train: Mapping[str, Any], project: Path) -> list[dict[str, Any]]:
    """The parents of a training: kind, path, sha256 (None if the file is missing) and the models that made it.

    train: the section of params.yaml as plain values. A model has some of name, sha256, run_id, git_commit, recipe,
    note and parents, its own parents.
    """
    distillation = train.get("distillation") or {}
    named = [(INITIAL_WEIGHTS, train.get(INITIAL_WEIGHTS)), (SOFT_LABELS, distillation.get(SOFT_LABELS))]
    named += [(TEACHER, path) for path in distillation.get("teachers") or ()]
    named += [(AVERAGED_WEIGHTS, path) for path in (train.get("average") or {}).get("weights") or ()]
    return [describe_parent(kind, str(path), project) for kind, path in named if path]


def describe_parent(kind: str, path: str, project: Path, depth: int = 0) -> dict[str, Any]:
    """A parent as it is in the project now. `depth`: the number of generations between it and the first training."""
    file = project / path
    return {
        "kind": kind,
        "path": path,
        "sha256": _digest(file),
        "made_by": _made_by(file, project, depth),
    }


def valid_parents(found: object, depth: int = 0) -> list[dict[str, Any]]:
    """What a file or a store says about parents, without values of another type than `parents` returns."""
    listed = [one for one in found if isinstance(one, dict)] if isinstance(found, list) and depth <= MAX_DEPTH else []
    return [
        {
            "kind": one["kind"],
            "path": one["path"],
            "sha256": one["sha256"] if isinstance(one.get("sha256"), str) else None,
            "made_by": valid_models(one.get("made_by"), depth),
        }
        for one in listed
        if isinstance(one.get("kind"), str) and isinstance(one.get("path"), str)
    ]


def valid_models(found: object, depth: int = 0) -> list[dict[str, Any]]:
    """What a file or a store says about models, without values of another type than `parents` returns."""
    listed = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    texts = [{key: one[key] for key in TEXTS if isinstance(one.get(key), str)} for one in listed]
    return [
        {**text, "parents": valid_parents(one["parents"], depth + 1)} if "parents" in one else text
        for text, one in zip(texts, listed, strict=True)
    ]


def _digest(file: Path) -> str | None:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
    except OSError:
        return None


def _made_by(file: Path, project: Path, depth: int) -> list[dict[str, Any]]:
    """The models that made a file, from the file itself and from the JSON file next to it."""
    teachers = _teachers(file)
    noted = _noted(file)
    for one in noted:
        earlier = one.get("parents", ()) if depth < MAX_DEPTH else ()
        one["parents"] = [describe_parent(of["kind"], of["path"], project, depth + 1) for of in earlier]
    known, digests = {one.get("sha256"): one for one in noted}, {teacher["sha256"] for teacher in teachers}
    models = [{**teacher, **known.get(teacher["sha256"], {})} for teacher in teachers]
    return models + [one for one in noted if one.get("sha256") not in digests]


def _noted(file: Path) -> list[dict[str, Any]]:
    try:
        return valid_models(json.loads(file.with_suffix(ORIGIN).read_text(encoding="utf-8"))["made_by"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []


def _teachers(file: Path) -> list[dict[str, Any]]:
    """The names and digests of the models that a file of soft labels names; a model made its own labels."""
    if file.suffix == ".onnx" and (digest := _digest(file)):
        return [{"name": file.name, "sha256": digest}]
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
