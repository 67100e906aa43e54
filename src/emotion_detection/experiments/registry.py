"""MLflow's model registry: versions of a model, aliases such as "champion", and the model files."""

import hashlib
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
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array, Object, Property
from numpy.typing import NDArray

from emotion_detection.emotions import EMOTIONS, SPLITS
from emotion_detection.errors import ModelError, StoreError
from emotion_detection.experiments.model_uri import ModelName as ModelName  # for those who import it from here
from emotion_detection.experiments.model_uri import parse_model_uri as parse_model_uri
from emotion_detection.experiments.runs import (
    DIGEST_CHARACTERS,
    MISSING,
    connect,
    exclusive_store,
    permitted,
    split_name,
    translate_errors,
)
from emotion_detection.redaction import scrub

# The packages that serve the model, in the versions that were tried. Without this list MLflow guesses for ten seconds.
SERVING_PACKAGES = ("mlflow", "numpy", "onnxruntime")
DIGEST = "onnx_sha256"  # a tag of logged models and versions: what a repeated registration looks for
SCORES = ("val_macro_f1", "val_accuracy", "test_macro_f1", "test_accuracy")
SERVED_MODEL = Path(__file__).with_name("served_model.py")  # MLflow copies and runs it
# A face among the `faces` of a picture, as in the readings of the command line.
FACE = Object(
    [
        Property("box", Array(DataType.long)),
        Property("emotion", DataType.string),
        Property("confidence", DataType.double),
        Property("unsure", DataType.boolean),
        Property("probabilities", Array(DataType.double)),
    ]
)
# The only type by which MLflow accepts an array of faces (n, 48, 48, 1) as well as a column of encoded pictures.
SIGNATURE = ModelSignature(
    inputs=Schema([TensorSpec(np.dtype(object), (-1,), "image")]),
    outputs=Schema(
        [
            *(ColSpec(DataType.double, emotion) for emotion in EMOTIONS),
            ColSpec(Array(FACE), "faces", required=False),
            ColSpec(DataType.string, "error", required=False),
        ]
    ),
)


class NotRegisteredError(StoreError):
    """The registry has no such model, alias or version."""


@dataclass(frozen=True)
class Version:
    """A registered version. Its tags hold the data set, scores, run and commit (see stages.register)."""

    name: str
    number: int
    aliases: tuple[str, ...]
    run_id: str | None
    tags: dict[str, str]
    created: datetime  # in UTC


def register(model: Path, name: str, *, example: NDArray[np.uint8], tags: Mapping[str, str]) -> int:
    """Log the ONNX file in the active run, register it as a version of `name`, and return the version's number.

    example: faces, uint8 (n, 48, 48, 1), that MLflow shows as an input. The tags are set on the logged model and on the
    version. The logged model also gets the params and the scores of the run. A registration that was interrupted at any
    point is completed: the same file of the same run is registered once.
    """
    digest = _sha256(model)
    about = {key: scrub(value) for key, value in tags.items()} | {DIGEST: digest}
    with exclusive_store(), translate_errors():
        run = mlflow.active_run().info
        number = _registered(name, run.run_id, digest)
        if number is None:
            logged = _logged(run, digest) or _log(model, example, about, step=_next_step(run.run_id))
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
            with permitted():
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


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _next_step(run_id: str) -> int:
    """A step after all scores of the run."""
    history = mlflow.MlflowClient().get_metric_history(run_id, SCORES[0])
    return max((point.step for point in history), default=0) + 1


def _log(model: Path, example: NDArray[np.uint8], tags: Mapping[str, str], *, step: int) -> str:
    """Log the model in the active run and return its ID.

    MLflow copies the metrics of the step `step`, without their data set: there should be none.
    """
    logged = mlflow.pyfunc.log_model(
        name="model",
        python_model=str(SERVED_MODEL),
        artifacts={"model": str(model)},
        signature=SIGNATURE,
        input_example=example,
        metadata=dict(tags),
        tags={DIGEST: tags[DIGEST]},
        step=step,
        pip_requirements=[f"{package}=={installed_version(package)}" for package in SERVING_PACKAGES],
    )
    return str(logged.model_id)


def _log_scores(run_id: str, model_id: str, tags: Mapping[str, str]) -> None:
    """Give the run's scores on val and test to the model too, each with its data set.

    MLflow finds and compares models by them. Points that the run has already are not added to it again. A metric that
    only the epochs have, such as val_loss, is none of the model.
    """
    client = mlflow.MlflowClient()
    steps = {0, _next_step(run_id) - 1}  # see Run.log_scores
    scores = [key for key in client.get_run(run_id).data.metrics if key.startswith(SPLITS[1:])]
    histories = [client.get_metric_history(run_id, key) for key in scores]
    latest = [max(points, key=lambda point: (point.step, point.timestamp)) for points in histories]
    metrics = [
        Metric(one.key, one.value, one.timestamp, one.step, model_id, *_dataset(one.key, tags))
        for one in latest
        if one.step in steps
    ]
    client.log_batch(run_id, metrics)


def _dataset(score: str, tags: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Name and digest of the split that a score such as val_macro_f1 belongs to, as the training has logged them."""
    if not tags.get("dataset") or not tags.get("dataset_digest"):
        return None, None
    return split_name(tags["dataset"], score.partition("_")[0]), tags["dataset_digest"][:DIGEST_CHARACTERS]


def _describe(name: str, number: int, tags: Mapping[str, str]) -> None:
    """Write the scores into the description of the version, and the tags."""
    client = mlflow.MlflowClient()
    scores = ", ".join(f"{key} {float(tags[key]):.4f}" for key in SCORES if key in tags)
    if scores:
        client.update_model_version(name, str(number), f"Trained on {tags.get('dataset', 'unknown data')}: {scores}.")
    for key, value in tags.items():
        client.set_model_version_tag(name, str(number), key, value)


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
        return sorted(model.name for model in mlflow.search_registered_models())  # of all pages


def resolve(uri: str) -> Version:
    """The version that a models:/ URI stands for now. Raises NotRegisteredError if the registry does not have it."""
    connect()
    return look_up(uri)


def look_up(uri: str) -> Version:
    """Like `resolve`, with a single read, in a process that has connected to the store before."""
    model = parse_model_uri(uri)
    with translate_errors():
        client = mlflow.MlflowClient()
        try:
            if model.alias is not None:
                stored = client.get_model_version_by_alias(model.name, model.alias)
            else:
                stored = client.get_model_version(model.name, str(model.version))
        except MlflowException as error:
            if error.error_code not in MISSING:
                raise
            raise NotRegisteredError(
                f"the registry does not contain {uri}: run `emotion-detection seed-registry` to register the shipped "
                "model, or `make repro` to register that of the pipeline"
            ) from error
    return _version(stored, tuple(sorted(stored.aliases)))


def fetch(uri: str, into: Path | None = None) -> Path:
    """The ONNX file of a models:/ URI. It is downloaded from a server; a local file is not copied.

    into: a folder, in which the file is in any case a copy. Nobody else can then change it after it is checked here.
    Raises ModelError if it is not the file that was registered.
    """
    version = resolve(uri)
    options = {} if into is None else {"dst_path": str(into)}
    with translate_errors():
        folder = Path(mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.number}", **options))
    files = sorted(folder.rglob("*.onnx"))
    if not files:
        raise ModelError(
            f"{uri} (version {version.number}) contains no ONNX file: use a model that this project has registered"
        )
    expected, found = version.tags.get(DIGEST), _sha256(files[0])
    if expected not in (None, found):
        raise ModelError(
            f"{uri} (version {version.number}) is not the file that was registered (its SHA-256 begins with "
            f"{found[:12]} instead of {expected[:12]}): restore the file, or use another version"
        )
    return files[0]


def tag_version(name: str, number: int, key: str, value: str) -> None:
    """Set a tag of a version. Raises StoreError if the store does not accept it."""
    connect()
    with translate_errors():
        mlflow.MlflowClient().set_model_version_tag(name, str(number), key, scrub(value))


def set_alias(name: str, alias: str, number: int) -> None:
    """Move the alias to a version. Raises StoreError if the store does not accept it."""
    connect()
    with translate_errors():
        mlflow.MlflowClient().set_registered_model_alias(name, alias, str(number))


def _version(stored: mlflow.entities.model_registry.ModelVersion, aliases: tuple[str, ...]) -> Version:
    created = datetime.fromtimestamp(stored.creation_timestamp / 1000, timezone.utc)
    return Version(stored.name, int(stored.version), aliases, stored.run_id or None, dict(stored.tags), created)
