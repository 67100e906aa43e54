"""MLflow's model registry: versions of a model, aliases such as "champion", and the model files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import mlflow
import numpy as np
import onnx
from mlflow.models import infer_signature
from numpy.typing import NDArray

from emotion_detection.arrays import Probabilities
from emotion_detection.errors import ModelError, StoreError, UsageError
from emotion_detection.experiments.runs import connect, exclusive_store, translate_errors

# The packages that serve the file. Without this list MLflow spends ten seconds guessing them.
SERVING_PACKAGES = ["mlflow", "numpy", "onnx", "onnxruntime"]
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


def register(
    model: Path,
    name: str,
    *,
    example: NDArray[np.uint8],
    probabilities: Probabilities,
    tags: Mapping[str, str],
) -> int:
    """Log the ONNX file in the active run, register it as a version of `name`, and return the version's number.

    The signature is inferred from `example`, uint8 (n, 48, 48, 1), and its probabilities. The tags are set on the
    logged model and on the version.
    """
    with translate_errors():
        logged = mlflow.onnx.log_model(
            onnx.load(model),
            name="model",
            signature=infer_signature(example, probabilities),
            input_example=example,
            metadata=dict(tags),
            pip_requirements=SERVING_PACKAGES,
            save_as_external_data=False,
        )
        return int(mlflow.register_model(logged.model_uri, name, tags=dict(tags)).version)


def promote_if_better(name: str, version: int, *, alias: str, min_gain: float) -> tuple[bool, str]:
    """Move the alias to the version if it is better than the current holder; return whether it was, and why.

    The tags val_macro_f1 are compared, and only if both versions were trained on the same data set. A SQLite store is
    locked meanwhile, so that versions that are registered at the same time are compared one after another.
    """
    with exclusive_store(), translate_errors():
        client = mlflow.MlflowClient()
        holder = client.get_registered_model(name).aliases.get(alias)
        candidate_tags = client.get_model_version(name, str(version)).tags
        holder_tags = client.get_model_version(name, holder).tags if holder else None
        promoted, reason = _compare(candidate_tags, holder_tags, min_gain)
        if promoted:
            client.set_registered_model_alias(name, alias, str(version))
    return promoted, reason


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
