"""Find the results that a reference names: a revision, a DVC experiment, a run, a version or the shipped model."""

import hashlib
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from emotion_detection.config import flatten
from emotion_detection.data.dataset import Faces, digest, load
from emotion_detection.decoding.json_text import read_json
from emotion_detection.errors import DataError, StoreError, UsageError, shorten
from emotion_detection.inference import pretrained
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.reporting.results import PREDICTED_SPLITS, Origin, Predictions, Results, read_results
from emotion_detection.reporting.revisions import WORKSPACE, find_revision, has_pipeline, outputs, read_revision

if TYPE_CHECKING:
    from emotion_detection.experiments.recorded import RecordedRun

logger = logging.getLogger(__name__)

SHIPPED = "shipped"
REGISTERED = "models:/"
FACES = "faces.npz"
MAX_REFERENCE = 250  # characters


def find_results(reference: str, project: Path) -> Results:
    """The results that a reference names.

    Raises UsageError if nothing has this name, or several runs, DataError if its files are damaged or gone, and
    StoreError if MLflow's store cannot be read.
    """
    if not reference.isprintable() or not 0 < len(reference) <= MAX_REFERENCE:
        raise UsageError(f"{shorten(reference)!r} names no results: use up to {MAX_REFERENCE} printable characters")
    if reference == SHIPPED:
        return read_shipped()
    if reference.startswith(REGISTERED):
        return read_version(reference)
    if reference == WORKSPACE:
        return read_revision(reference, None, project)
    revision = find_revision(reference, project) if has_pipeline(project) else None
    if revision is None:
        return _read_recorded(reference, project)
    try:
        return read_revision(reference, revision, project)
    except DataError:  # DVC's cache has lost them; MLflow may have a run of this revision
        with suppress(UsageError, StoreError):
            return _read_recorded(reference, project)
        raise


def _read_recorded(reference: str, project: Path) -> Results:
    """The results of a run in MLflow, by its ID, its name, its commit or its ONNX file."""
    from emotion_detection.experiments import references  # MLflow takes seconds to import
    from emotion_detection.experiments.recorded import read_run

    subject = references.find(reference, project)
    if subject.run_id is None:
        return read_shipped()
    return read_run_results(Origin(reference, "run"), read_run(subject.run_id), {})


def read_shipped(folder: Path = pretrained.FOLDER) -> Results:
    """The model in the folder of the shipped model, with its scores. Raises DataError if a file is damaged."""

    def read(name: str) -> bytes | None:
        path = folder / name
        return path.read_bytes() if path.is_file() else None

    run = read_json(folder / "run.json", "train")
    tags = {key: str(value) for key, value in run.items() if not isinstance(value, dict)}
    commit, run_id, date = (tags.get(key, "") for key in ("git_commit", "run_id", "date"))
    origin = Origin(SHIPPED, "shipped model", tags.get("recipe", ""), commit, run_id, date)
    return read_results(
        origin, read, params=flatten({"train": run["train"]}), tags=tags, model=folder / pretrained.MODEL.name
    )


def read_version(uri: str) -> Results:
    """The results of a registered version, from its run and its tags."""
    from emotion_detection.experiments import registry
    from emotion_detection.experiments.recorded import read_run

    version = registry.resolve(uri)
    name = f"{version.name} version {version.number}"
    origin = Origin(uri, "version", name, date=f"{version.created:%Y-%m-%d}")
    if version.run_id is not None:
        with suppress(StoreError):  # the registry responds: the run was deleted
            return read_run_results(origin, read_run(version.run_id), version.tags)
    return _without_run(origin, version.tags)


def read_origin(uri: str) -> Results:
    """Where a registered version is from, without its files."""
    from emotion_detection.experiments import registry
    from emotion_detection.experiments.recorded import read_run

    version = registry.resolve(uri)
    origin = Origin(uri, "version", date=f"{version.created:%Y-%m-%d}")
    if version.run_id is not None:
        with suppress(StoreError):  # the run was deleted
            return read_run_results(origin, replace(read_run(version.run_id), files={}), version.tags)
    return _without_run(origin, version.tags)


def _without_run(origin: Origin, tags: Mapping[str, str]) -> Results:
    origin = replace(origin, commit=tags.get("git_commit", ""), run_id=tags.get("run_id", ""))
    return Results(origin, metrics=_tagged_scores(tags), tags=tags)


def _tagged_scores(tags: Mapping[str, str]) -> dict[str, float]:
    scores = {}
    for key in pretrained.SCORE_TAGS:
        with suppress(KeyError, ValueError):
            scores[key] = float(tags[key])
    return {key: score for key, score in scores.items() if math.isfinite(score)}


def read_run_results(origin: Origin, run: "RecordedRun", version_tags: Mapping[str, str]) -> Results:
    """The results of a run of MLflow. The tags of its version count before its own."""
    tags = {**run.tags, **version_tags}
    is_shipped = pretrained_digest() in (tags.get("onnx_sha256"), tags.get("pretrained"))
    origin = replace(
        origin,
        name=origin.name or run.name,
        commit=tags.get("git_commit", ""),
        run_id=tags.get("run_id", run.id),
        date=origin.date or f"{run.started:%Y-%m-%d}",
    )
    params = run.params or (read_shipped().params if is_shipped else {})
    model = pretrained.MODEL if is_shipped else None
    found = read_results(origin, run.read, params=params, tags=tags, model=model)
    finite = {key: value for key, value in run.metrics.items() if math.isfinite(value)}
    return replace(found, metrics=found.metrics or finite)


def pretrained_digest() -> str:
    """The SHA-256 of the shipped model."""
    return hashlib.sha256(pretrained.MODEL.read_bytes()).hexdigest()


@dataclass(frozen=True)
class LocalFaces:
    """The prepared faces of the working tree, and their digest."""

    faces: Faces
    digest: str


def find_faces(project: Path) -> LocalFaces | None:
    """The prepared faces of the working tree; None if there are none, or if they cannot be read."""
    with suppress(DataError, OSError, LookupError, UnicodeError):
        faces = load(project / outputs((project / "dvc.yaml").read_text(encoding="utf-8"), WORKSPACE)[FACES])
        return LocalFaces(faces, digest(faces))
    return None


def with_predictions(results: Results, local: LocalFaces | None) -> Results:
    """Add the predictions of the model if none were recorded and if these faces are those of its data set."""
    if local is None or results.predictions or results.model is None or results.digest != local.digest:
        return results
    logger.info("Computing the predictions of %s", results.origin.reference)
    classifier = EmotionClassifier(results.model)
    parts = {split: local.faces.of(split) for split in PREDICTED_SPLITS}
    predictions = {
        split: Predictions(part.labels, classifier.probabilities(part.images)) for split, part in parts.items()
    }
    return replace(results, predictions=predictions)
