"""All that is recorded about where a model comes from, as plain values, and what was made from it."""

import json
import re
import tempfile
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import mlflow

from emotion_detection.config import flatten
from emotion_detection.experiments import registry
from emotion_detection.experiments.ledger import history
from emotion_detection.experiments.parents import parents, valid_parents
from emotion_detection.experiments.patches import left_out
from emotion_detection.experiments.provenance import ENVIRONMENT, MODEL_DIGEST, PARENTS, PATCH, WEIGHTS_DIGEST
from emotion_detection.experiments.recorded import plain_value
from emotion_detection.experiments.references import Subject, find, of_run, search_runs, shipped_facts
from emotion_detection.experiments.repository import experiment_commit, has_commit
from emotion_detection.experiments.runs import STORE_ERRORS, connect, translate_errors

REPRODUCTION = "reproduction"  # the tag of a version that was trained again
SHIPPED_REPORT = "pretrained/run.json"  # of a model that was shipped
DATA_REPORT = "data/data_report.json"
SPLITS = ("test_clean", "test", "val")  # prefixes of metrics, the longest first
MAX_DEPTH = 10  # of an ancestry
HEX = re.compile("[0-9a-f]+")  # digests and IDs, as far as they may become a part of a filter
Record = dict[str, Any]


def lineage(reference: str, project: Path) -> Record:
    """What is recorded about a model or a run; None for what is not. Raises UsageError for an unknown reference.

    project: the folder of the project, whose repository and files are looked up too.
    """
    connect()
    subject = find(reference, project)
    return describe(subject, project) | {"reference": reference}


def describe(subject: Subject, project: Path) -> Record:
    """The lineage of a subject, as values that JSON has."""
    run = _run(subject.run_id)
    stored: Mapping[str, str] = run.data.tags if run else {}
    tags = {**(subject.versions[0].tags if subject.versions else {}), **stored}
    release = shipped_facts() if subject.is_shipped else read_artifact(subject.run_id, SHIPPED_REPORT) or {}
    params = _params(run, release)
    known = {**{key: str(value) for key, value in release.items()}, **tags}
    return {
        "versions": [_version(version) for version in subject.versions],
        "history": [entry.as_dict() for name in _names(subject) for entry in history(name)],
        "onnx_sha256": subject.onnx_sha256 or tags.get(MODEL_DIGEST),
        "run": _about_run(run, subject.run_id),
        "release": {key: value for key, value in release.items() if isinstance(value, str | int | float)} or None,
        "dvc_experiment": _experiment(known, project),
        "command": known.get("command"),
        "code": _code(known, subject.run_id, project),
        "params": params or None,
        "data": _data(known, subject.run_id),
        "environment": read_artifact(subject.run_id, ENVIRONMENT),
        "parents": _parents(subject.run_id, params, project, depth=0),
        "children": _children(subject, tags),
        "metrics": _metrics(run) or None,
        "evidence": _stored_json(tags, "evidence"),
        "shadow": _stored_json(tags, "shadow"),
        "reproduction": _stored_json(tags, REPRODUCTION),
    }


def read_bytes(run_id: str | None, path: str) -> bytes | None:
    """The content of an artifact; None if the run is unknown or does not have it."""
    if not run_id:
        return None
    try:
        client = mlflow.MlflowClient()
        if path not in {entry.path for entry in client.list_artifacts(run_id, path.rpartition("/")[0] or None)}:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return Path(client.download_artifacts(run_id, path, folder)).read_bytes()
    except STORE_ERRORS:
        return None


def read_artifact(run_id: str | None, path: str) -> Any:
    """The content of a JSON artifact; None if it is missing or damaged."""
    try:
        return json.loads(read_bytes(run_id, path) or b"null")
    except (ValueError, RecursionError):
        return None


def _run(run_id: str | None) -> mlflow.entities.Run | None:
    if not run_id or not HEX.fullmatch(run_id) or not search_runs(f"attributes.run_id = '{run_id}'"):
        return None
    with translate_errors():
        return mlflow.MlflowClient().get_run(run_id)


def _names(subject: Subject) -> list[str]:
    return sorted({version.name for version in subject.versions})


def _version(version: registry.Version) -> Record:
    return {
        "name": version.name,
        "version": version.number,
        "aliases": list(version.aliases),
        "created": version.created.isoformat(),
        "tags": version.tags,
    }


def _about_run(run: mlflow.entities.Run | None, run_id: str | None) -> Record | None:
    if run is None:
        return {"id": run_id, "name": None, "status": None, "started": None, "ended": None} if run_id else None
    started, ended = (_time(moment) for moment in (run.info.start_time, run.info.end_time))
    about = {"id": run.info.run_id, "name": run.info.run_name, "status": run.info.status}
    return about | {"started": started, "ended": ended, **_tags(run, "host", "copy_of_run")}


def _tags(run: mlflow.entities.Run, *keys: str) -> dict[str, str | None]:
    return {key: run.data.tags.get(key) for key in keys}


def _time(milliseconds: int | None) -> str | None:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat() if milliseconds else None


def _params(run: mlflow.entities.Run | None, release: Mapping[str, Any]) -> dict[str, Any]:
    """The flat settings of a run, such as train.epochs."""
    if run is not None and run.data.params:
        return {key: plain_value(value) for key, value in sorted(run.data.params.items())}
    return flatten({"train": release["train"]}) if "train" in release else {}


def _experiment(tags: Mapping[str, str], project: Path) -> Record | None:
    """The DVC experiment. While it runs, HEAD is the commit that it starts from; its own commit is made later."""
    name = tags.get("dvc_experiment")
    if not name:
        return None
    return {"name": name, "commit": experiment_commit(name, tags.get("git_commit", ""), project) or None}


def _code(tags: Mapping[str, str], run_id: str | None, project: Path) -> Record | None:
    commit = tags.get("git_commit") or tags.get("mlflow.source.git.commit")
    if not commit:
        return None
    patch = read_bytes(run_id, PATCH)  # empty without changes
    return {
        "commit": commit,
        "is_here": has_commit(commit, project),
        "dirty": {"true": True, "false": False}.get(tags.get("git_dirty", "")),
        "tree": tags.get("code_tree"),
        "patch": PATCH if patch else None,
        "left_out": left_out(patch or b""),
    }


def _data(tags: Mapping[str, str], run_id: str | None) -> Record | None:
    report = read_artifact(run_id, DATA_REPORT)
    found = {"name": tags.get("dataset"), "digest": tags.get("dataset_digest"), "dvc_md5": tags.get("dvc_md5")}
    rows = report.get("rows") if isinstance(report, dict) else None
    found |= {"label_source": tags.get("label_source"), "votes_digest": tags.get("votes_digest")}
    return {**found, "faces": rows} if any(found.values()) else None


def _stored_json(tags: Mapping[str, str], key: str) -> Any:
    try:
        return json.loads(tags.get(key, "null"))
    except (ValueError, RecursionError):  # it is damaged, or nested too deeply
        return None


def _metrics(run: mlflow.entities.Run | None) -> dict[str, dict[str, float]]:
    """The metrics by split; "" has those of no split, and system metrics are left out."""
    found: dict[str, dict[str, float]] = {}
    for key, value in sorted(run.data.metrics.items() if run else ()):
        split = next((split for split in SPLITS if key.startswith(f"{split}_")), "")
        if not key.startswith("system/"):
            found.setdefault(split, {})[key.removeprefix(f"{split}_") if split else key] = value
    return found


def _parents(run_id: str | None, params: Mapping[str, Any], project: Path, depth: int) -> list[Record]:
    """The parents of a run, each with the models that made it and their parents, as far as they are known."""
    found = read_artifact(run_id, PARENTS)
    if not isinstance(found, list):  # an earlier version of the project recorded none
        found = parents(_parent_settings(params), project)
    checked = valid_parents(found)
    for parent in checked:
        makers = (_with_run(maker, parent, run_id, project, depth) for maker in parent["made_by"] or [{}])
        parent["made_by"] = [one for one in makers if one]
    return checked


def _parent_settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a training that name its parents. Anyone who writes to the store can choose their types."""
    lists = {name: params.get(f"train.{name}") for name in ("distillation.teachers", "average.weights")}
    paths = {name: list(value) if isinstance(value, list | tuple) else [] for name, value in lists.items()}
    soft_labels = params.get("train.distillation.soft_labels")
    return {
        "initial_weights": params.get("train.initial_weights"),
        "distillation": {"soft_labels": soft_labels, "teachers": paths["distillation.teachers"]},
        "average": {"weights": paths["average.weights"]},
    }


def _with_run(model: Record, parent: Record, child: str | None, project: Path, depth: int) -> Record:
    """A model with what the store knows of its run. The run of its child can have written the same weights again."""
    digests = {MODEL_DIGEST: model.get("sha256"), WEIGHTS_DIGEST: parent.get("sha256")}
    conditions = [f"tags.`{key}` = '{digest}'" for key, digest in digests.items() if HEX.fullmatch(digest or "")]
    if HEX.fullmatch(model.get("run_id", "")):
        conditions.insert(0, f"attributes.run_id = '{model['run_id']}'")
    run_id = next((found for condition in conditions for found in search_runs(condition) if found != child), None)
    run = _run(run_id)
    if run is None or depth >= MAX_DEPTH:
        return model
    about = {"run_id": run_id, "name": model.get("name") or run.info.run_name}
    about["git_commit"] = run.data.tags.get("git_commit") or model.get("git_commit")
    about["versions"] = [f"models:/{one.name}/{one.number}" for one in of_run(str(run_id)).versions]
    return {**model, **about, "parents": _parents(run_id, _params(run, {}), project, depth + 1)}


def _children(subject: Subject, tags: Mapping[str, str]) -> list[Record]:
    """The runs that used the weights of this model or learned from its predictions."""
    digests = {subject.onnx_sha256, tags.get(MODEL_DIGEST), tags.get(WEIGHTS_DIGEST)} - {None}
    found: dict[str, str] = {}
    for digest in sorted(digest for digest in map(str, digests) if HEX.fullmatch(digest)):
        found |= search_runs(f"tags.parents LIKE '%{digest}%'")
    return [{"run_id": run_id, "name": name} for run_id, name in found.items() if run_id != subject.run_id]
