"""Find the run and the versions that a person names: by version, run, DVC experiment, commit, data or ONNX file."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import onnx

from emotion_detection.decoding.json_text import read_json
from emotion_detection.decoding.onnx_file import check_onnx
from emotion_detection.errors import UsageError, shorten
from emotion_detection.experiments import registry
from emotion_detection.experiments.delivery import LOCAL_ID
from emotion_detection.experiments.provenance import MODEL_DIGEST
from emotion_detection.experiments.repository import commit_of_content, experiment_names, resolve_commit
from emotion_detection.experiments.runs import connect, translate_errors
from emotion_detection.experiments.store_location import store_uri
from emotion_detection.redaction import redact_uri

PRETRAINED = Path(__file__).parents[1] / "pretrained" / "run.json"  # what is known of the shipped model
SHA256 = re.compile("[0-9a-f]{64}")
HEX = re.compile("[0-9a-f]{4,40}")
DATA_TAGS = ("dvc_md5", "dataset_digest")
MOST_NAMED = 5  # in an error
MAX_RUNS = 1000


@dataclass(frozen=True)
class Subject:
    """What a reference stands for."""

    versions: tuple[registry.Version, ...] = ()
    run_id: str | None = None
    onnx_sha256: str | None = None

    @property
    def is_shipped(self) -> bool:
        """Whether this is the model in the package."""
        return self.onnx_sha256 is not None and self.onnx_sha256 == read_json(PRETRAINED)["sha256"]


def find(reference: str, project: Path) -> Subject:
    """Find what a reference stands for. Raises UsageError if it stands for nothing or for several runs.

    reference: models:/NAME@ALIAS, models:/NAME/NUMBER, the path of an ONNX file or its SHA-256, a run's ID or the start
    of one, the name of a run or of a DVC experiment, a commit, or the digest or MD5 of the data.
    """
    if reference.startswith("models:/"):
        return _of_version(registry.resolve(reference))
    if Path(reference).is_file():
        return _of_file(Path(reference))
    connect()
    if SHA256.fullmatch(reference) and (found := _of_digest(reference)):
        return found
    runs = _candidates(reference, project)
    if len(runs) > 1:
        named = [f"{run_id} ({name})" for run_id, name in runs.items()]
        rest = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        raise UsageError(f"{reference} stands for {len(runs)} runs: name one of {', '.join(named[:MOST_NAMED])}{rest}")
    if not runs:
        raise UsageError(
            f"{shorten(reference)} was not found in {redact_uri(store_uri())}: it is no models:/NAME@ALIAS or "
            "models:/NAME/NUMBER, no ONNX file or its SHA-256, no run, no DVC experiment, no commit of a run and no "
            "digest of its data; `emotion-detection compare` lists the trainings"
        )
    return of_run(next(iter(runs)))


def of_run(run_id: str) -> Subject:
    """A run with the versions that were registered from it."""
    versions = versions_where(f"run_id = '{run_id}'")
    return Subject(versions, run_id, versions[0].tags.get(registry.DIGEST) if versions else None)


def _of_version(version: registry.Version) -> Subject:
    return Subject((version,), version.run_id, version.tags.get(registry.DIGEST))


def _of_file(path: Path) -> Subject:
    check_onnx(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    connect()
    found = _of_digest(digest)
    if found is None:
        metadata = {one.key: one.value for one in onnx.load(path, load_external_data=False).metadata_props}
        named = metadata.get("run_id", "")
        known = search_runs(f"attributes.run_id = '{named}'") if HEX.fullmatch(named) else {}
        found = Subject((), named, digest) if known else None
    if found is None:
        raise UsageError(
            f"{path} is unknown: {redact_uri(store_uri())} has no version and no run with its SHA-256 "
            f"({digest[:12]}...), and the file names no run of this store"
        )
    return found


def _of_digest(digest: str) -> Subject | None:
    """The versions and the run of an ONNX file; the shipped model is known without a registry."""
    versions = versions_where(f"tags.`{registry.DIGEST}` = '{digest}'")
    if versions:
        return Subject(versions, next((one.run_id for one in versions if one.run_id), None), digest)
    run_id = next(iter(search_runs(f"tags.`{MODEL_DIGEST}` = '{digest}'")), None)
    subject = Subject((), run_id, digest)
    return subject if run_id or subject.is_shipped else None


def versions_where(condition: str) -> tuple[registry.Version, ...]:
    """The registered versions with this condition of MLflow, newest first."""
    with translate_errors():
        found = {(one.name, int(one.version)) for one in mlflow.MlflowClient().search_model_versions(condition)}
    named = [version for name in sorted({name for name, _ in found}) for version in registry.versions(name)]
    return tuple(version for version in named if (version.name, version.number) in found)


def search_runs(condition: str) -> dict[str, str]:
    """The names of runs with this condition of MLflow, by their IDs, newest first; trials of searches too."""
    return {run.info.run_id: run.info.run_name or "" for run in read_runs(condition)}


def read_runs(condition: str) -> list[mlflow.entities.Run]:
    """The newest runs with this condition of MLflow, from all experiments. Raises StoreError if they cannot be read."""
    with translate_errors():
        experiments = [experiment.experiment_id for experiment in mlflow.search_experiments()]  # of all pages
        return list(mlflow.MlflowClient().search_runs(experiments, condition, max_results=MAX_RUNS))


def _candidates(reference: str, project: Path) -> dict[str, str]:
    """The runs that a reference may stand for. What it is most likely is tried first."""
    for conditions in _conditions(reference, project):
        found: dict[str, str] = {}
        for condition in conditions:
            found |= search_runs(condition)
        if found:
            return found
    return {}


def _conditions(reference: str, project: Path) -> Iterator[list[str]]:
    is_hex = bool(HEX.fullmatch(reference))
    if is_hex:
        yield [f"attributes.run_id LIKE '{reference}%'"]
        yield [f"tags.{LOCAL_ID} LIKE '{reference}%'"]  # as in run.json, if the store did not respond
    quoted = _quote(reference)
    if quoted:
        yield [f"tags.dvc_experiment = {quoted}"]
        yield [f"attributes.run_name = {quoted}"]
    commit = resolve_commit(reference, project)
    if commit:
        names = [_quote(name) for name in experiment_names(commit, project)]
        yield [f"tags.dvc_experiment = {name}" for name in names if name]
        yield [f"tags.git_commit = '{commit}'"]
    if is_hex:  # the repository may have lost the commit
        yield [f"tags.git_commit LIKE '{reference}%'"]
    if is_hex or re.fullmatch(r"[0-9a-f]{32}\.dir|[0-9a-f]{64}", reference):
        yield [f"tags.{tag} LIKE '{reference}%'" for tag in DATA_TAGS]


def _quote(text: str) -> str:
    """A text as MLflow's filters quote it; "" if they cannot."""
    if any(not character.isprintable() or character in "\\`" for character in text):
        return ""
    mark = next((mark for mark in "'\"" if mark not in text), "")
    return f"{mark}{text}{mark}" if mark else ""


def shipped_facts() -> dict[str, Any]:
    """The content of pretrained/run.json, with the commit that added the model, as far as the repository knows it."""
    commit = commit_of_content(PRETRAINED.with_name("model.onnx"))
    return read_json(PRETRAINED) | ({"added_in": commit} if commit else {})
