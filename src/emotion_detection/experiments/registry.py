"""MLflow's model registry: versions of a model, aliases such as "champion", and the model files."""

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version as installed_version
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
import numpy as np
from mlflow.entities import LoggedModel, LoggedModelStatus, Metric
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from numpy.typing import NDArray

from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE
from emotion_detection.errors import ModelError, StoreError, UsageError
from emotion_detection.experiments.runs import connect, exclusive_store, translate_errors
from emotion_detection.redaction import scrub

# The packages that serve the model, in the versions that were tried. Without this list MLflow guesses for ten seconds.
SERVING_PACKAGES = ("mlflow", "numpy", "onnxruntime")
DIGEST = "onnx_sha256"  # a tag of logged models and versions: what a repeated registration looks for
SCORES = ("val_macro_f1", "val_accuracy", "test_macro_f1", "test_accuracy")
SERVED_MODEL = Path(__file__).with_name("served_model.py")  # MLflow copies and runs it
SIGNATURE = ModelSignature(
    inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, IMAGE_SIZE, IMAGE_SIZE, 1))]),
    outputs=Schema([ColSpec(DataType.double, emotion) for emotion in EMOTIONS]),
)
MODEL_URI = re.compile("models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")


@dataclass(frozen=True)
class ModelName:
    """What a models:/ URI names: a registered model and either an alias or a version number."""

    name: str
    alias: str | None = None
    version: int | None = None


@dataclass(frozen=True)
class Version:
    """A registered version. Its tags hold the data set, scores, run and commit (see stages.register)."""

    name: str
    number: int
    aliases: tuple[str, ...]
    run_id: str | None
    tags: dict[str, str]
    created: datetime  # in UTC


def parse_model_uri(uri: str) -> ModelName:
    """Parse models:/NAME@ALIAS or models:/NAME/NUMBER. Raises UsageError for anything else."""
    match = MODEL_URI.fullmatch(uri)
    if match is None:
        raise UsageError(f"{uri} does not name a registered model: use models:/NAME@ALIAS or models:/NAME/NUMBER")
    return ModelName(match["name"], match["alias"], int(match["version"]) if match["version"] else None)


def register(model: Path, name: str, *, example: NDArray[np.uint8], tags: Mapping[str, str]) -> int:
    """Log the ONNX file in the active run, register it as a version of `name`, and return the version's number.

    example: faces, uint8 (n, 48, 48, 1), that MLflow shows as an input. The tags are set on the logged model and on the
    version, and those that are scores become metrics of the model. A registration that was interrupted at any point is
    completed: the same file of the same run is registered once.
    """
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    about = {key: scrub(value) for key, value in tags.items()} | {DIGEST: digest}
    with exclusive_store(), translate_errors():
        run = mlflow.active_run().info
        number = _registered(name, run.run_id, digest)
        if number is None:
            logged = _logged(run, digest) or _log(model, example, about)
            _log_scores(run.run_id, logged, about)
            number = int(mlflow.register_model(f"models:/{logged}", name, tags=about).version)
        _describe(name, number, about)
    return number


def _registered(name: str, run_id: str, digest: str) -> int | None:
    """The version that an earlier, interrupted registration of this file has created."""
    found = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
    numbers = [int(one.version) for one in found if one.run_id == run_id and one.tags.get(DIGEST) == digest]
    return min(numbers, default=None)


def _logged(run: mlflow.entities.RunInfo, digest: str) -> str | None:
    """The ID of the model that an interrupted registration of this file has logged. Unfinished ones are deleted."""
    client = mlflow.MlflowClient()
    finished = None
    for model in client.search_logged_models([run.experiment_id], filter_string=f"source_run_id = '{run.run_id}'"):
        if model.status != LoggedModelStatus.READY:
            client.delete_logged_model(model.model_id)
            _delete_files(model)
        elif model.tags.get(DIGEST) == digest:
            finished = str(model.model_id)
    return finished


def _delete_files(model: LoggedModel) -> None:
    """Delete the files of a logged model from this machine. A server keeps them until `mlflow gc`."""
    address = urlsplit(model.artifact_location)
    if address.scheme == "file":
        shutil.rmtree(unquote(address.path), ignore_errors=True)


def _log(model: Path, example: NDArray[np.uint8], tags: Mapping[str, str]) -> str:
    """Log the model in the active run and return its ID."""
    logged = mlflow.pyfunc.log_model(
        name="model",
        python_model=str(SERVED_MODEL),
        artifacts={"model": str(model)},
        signature=SIGNATURE,
        input_example=example,
        metadata=dict(tags),
        tags={DIGEST: tags[DIGEST]},
        pip_requirements=[f"{package}=={installed_version(package)}" for package in SERVING_PACKAGES],
    )
    return str(logged.model_id)


def _log_scores(run_id: str, model_id: str, tags: Mapping[str, str]) -> None:
    """Show the run's scores on the model's page too. Points that the run has already are not added again."""
    client = mlflow.MlflowClient()
    points = [client.get_metric_history(run_id, key) for key in SCORES if key in tags]
    latest = [max(history, key=lambda point: point.step) for history in points if history]
    client.log_batch(run_id, [Metric(one.key, one.value, one.timestamp, one.step, model_id=model_id) for one in latest])


def _describe(name: str, number: int, tags: Mapping[str, str]) -> None:
    """Write the scores that the alias depends on into the descriptions of the version and of the model."""
    client = mlflow.MlflowClient()
    scores = ", ".join(f"{key} {float(tags[key]):.4f}" for key in SCORES if key in tags)
    if scores:
        about = f"Trained on {tags.get('dataset', 'unknown data')}: {scores}."
        client.update_model_version(name, str(number), f"{about} The alias is chosen by val_macro_f1.")
    for key, value in tags.items():
        client.set_model_version_tag(name, str(number), key, value)


def promote_if_better(name: str, version: int, *, alias: str, min_gain: float) -> tuple[bool, str]:
    """Move the alias to the version if it is better than the current holder; return whether it was, and why.

    The tags val_macro_f1 are compared, and only if both versions were trained on the same data set. A SQLite store is
    locked meanwhile, so that versions that are registered at the same time are compared one after another.
    """
    with exclusive_store(), translate_errors():
        client = mlflow.MlflowClient()
        holder = client.get_registered_model(name).aliases.get(alias)
        if holder and int(holder) == version:  # an earlier call was interrupted after it had moved the alias
            return True, f"it is the {alias} already"
        candidate_tags = client.get_model_version(name, str(version)).tags
        holder_tags = client.get_model_version(name, holder).tags if holder else None
        promoted, reason = _compare(candidate_tags, holder_tags, min_gain)
        if promoted:
            client.set_registered_model_alias(name, alias, str(version))
            client.update_registered_model(name, _describe_holder(alias, version, candidate_tags))
    return promoted, reason


def _describe_holder(alias: str, version: int, tags: Mapping[str, str]) -> str:
    scores = "".join(f", {key} {float(tags[key]):.4f}" for key in SCORES if key in tags)
    return f"{alias}: version {version}{scores}. Answers the probability of each emotion for faces of 48x48 pixels."


def _compare(candidate: dict[str, str], holder: dict[str, str] | None, min_gain: float) -> tuple[bool, str]:
    if holder is None:
        return True, "there was no champion before"
    if holder.get("dataset") != candidate["dataset"]:
        return False, f"the champion was trained on {holder.get('dataset')}, so the scores cannot be compared"
    score, best = float(candidate["val_macro_f1"]), float(holder["val_macro_f1"])
    verb = "beats" if score >= best + min_gain else "does not beat"
    return score >= best + min_gain, f"val_macro_f1 {score:.4f} {verb} {best:.4f} by {min_gain:g}"


def versions(name: str) -> list[Version]:
    """All versions of a model, newest first; empty if the model does not exist."""
    connect()
    with translate_errors():
        client = mlflow.MlflowClient()
        aliases: dict[str, list[str]] = {}
        for model in client.search_registered_models(f"name = '{name}'"):
            for alias, number in model.aliases.items():
                aliases.setdefault(str(number), []).append(alias)
        stored = client.search_model_versions(f"name = '{name}'")
    newest_first = sorted(stored, key=lambda version: -int(version.version))
    return [_version(version, tuple(sorted(aliases.get(str(version.version), ())))) for version in newest_first]


def model_names() -> list[str]:
    """The names of all registered models."""
    connect()
    with translate_errors():
        return sorted(model.name for model in mlflow.MlflowClient().search_registered_models())


def resolve(uri: str) -> Version:
    """The version that a models:/ URI stands for now. Raises StoreError if the registry does not have it."""
    model = parse_model_uri(uri)
    for version in versions(model.name):
        if model.alias in version.aliases or model.version == version.number:
            return version
    raise StoreError(
        f"the registry does not contain {uri}: run `emotion-detection seed-registry` to register the shipped model"
    )


def fetch(uri: str) -> Path:
    """The ONNX file of a models:/ URI. It is downloaded from a server; a local file is not copied."""
    version = resolve(uri)
    with translate_errors():
        folder = Path(mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.number}"))
    files = sorted(folder.rglob("*.onnx"))
    if not files:
        raise ModelError(
            f"{uri} (version {version.number}) contains no ONNX file: use a model that this project has registered"
        )
    return files[0]


def set_alias(name: str, alias: str, number: int) -> None:
    """Move the alias to a version. Raises StoreError if the store does not accept it."""
    connect()
    with translate_errors():
        mlflow.MlflowClient().set_registered_model_alias(name, alias, str(number))


def _version(stored: mlflow.entities.model_registry.ModelVersion, aliases: tuple[str, ...]) -> Version:
    created = datetime.fromtimestamp(stored.creation_timestamp / 1000, timezone.utc)
    return Version(stored.name, int(stored.version), aliases, stored.run_id or None, dict(stored.tags), created)
