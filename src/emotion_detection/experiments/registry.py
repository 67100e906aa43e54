"""MLflow's model registry: versions of a model, the alias that moves between them, and the file behind a name."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import mlflow
import numpy as np
import onnx
from mlflow.models import infer_signature
from numpy.typing import NDArray

from emotion_detection.errors import InputError
from emotion_detection.experiments.runs import connect, exclusive_store, translate_errors

Pixels = NDArray[np.uint8]
# What it takes to serve the file; without this list MLflow spends ten seconds guessing one.
SERVING_PACKAGES = ["mlflow", "numpy", "onnx", "onnxruntime"]


@dataclass(frozen=True)
class Version:
    """A registered version: its tags name data set, scores, run and commit (stages.register)."""

    name: str
    number: int
    aliases: tuple[str, ...]
    run_id: str | None
    tags: dict[str, str]
    created: datetime  # in UTC


def register(
    model: Path,
    name: str,
    *,
    example: Pixels,
    probabilities: NDArray[np.float32],
    tags: Mapping[str, str],
) -> int:
    """Log the ONNX file in the open run and register it as a version of `name`; returns the version's number.

    example u8 (n,48,48,1) and its probabilities f32 (n,7) give the signature; tags go to model and version.
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


def challenge(name: str, version: int, *, alias: str, min_gain: float) -> tuple[bool, str]:
    """Move the alias to the version if it beats the alias's holder; returns whether it did, and why.

    Compared are the tags val_macro_f1, and only between versions whose tags name the same data set. Of several at
    a time on one sqlite store, each is compared with the winner of those before.
    """
    with exclusive_store(), translate_errors():
        client = mlflow.MlflowClient()
        holder = client.get_registered_model(name).aliases.get(alias)
        challenger = client.get_model_version(name, str(version)).tags
        tags = client.get_model_version(name, holder).tags if holder else None
        wins, reason = _verdict(challenger, tags, min_gain)
        if wins:
            client.set_registered_model_alias(name, alias, str(version))
    return wins, reason


def _verdict(challenger: dict[str, str], holder: dict[str, str] | None, min_gain: float) -> tuple[bool, str]:
    if holder is None:
        return True, "there was none before"
    if holder.get("dataset") != challenger["dataset"]:
        return False, f"the present one learnt from {holder.get('dataset')}: scores do not compare"
    score, best = float(challenger["val_macro_f1"]), float(holder["val_macro_f1"])
    verb = "beats" if score >= best + min_gain else "does not beat"
    return score >= best + min_gain, f"val_macro_f1 {score:.4f} {verb} {best:.4f} by {min_gain:g}"


def versions(name: str) -> list[Version]:
    """All versions of a model, the newest first; none if there is no such model."""
    connect()
    with translate_errors():
        client = mlflow.MlflowClient()
        aliases: dict[str, list[str]] = {}
        for model in client.search_registered_models(f"name = '{name}'"):
            for alias, number in model.aliases.items():
                aliases.setdefault(str(number), []).append(alias)
        found = client.search_model_versions(f"name = '{name}'")
    ordered = sorted(found, key=lambda version: -int(version.version))
    return [_version(version, tuple(sorted(aliases.get(str(version.version), ())))) for version in ordered]


def resolve(uri: str) -> Version:
    """The version that models:/name@alias or models:/name/number stands for now; InputError if there is none."""
    name, alias, number = _parts(uri)
    found = [one for one in versions(name) if alias in one.aliases or str(one.number) == number]
    if not found:
        raise InputError(
            f"the registry has no {uri}: `emotion-detection seed-registry` puts the model that ships into an empty one"
        )
    return found[0]


def fetch(uri: str) -> Path:
    """The ONNX file behind models:/name@alias or models:/name/number; a server's is downloaded, a local one stays."""
    version = resolve(uri)
    with translate_errors():
        folder = Path(mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.number}"))
    files = sorted(folder.rglob("*.onnx"))
    if not files:
        raise InputError(f"{uri} is version {version.number}, which holds no ONNX file: register one of this project")
    return files[0]


def set_alias(name: str, alias: str, number: int) -> None:
    """Move the alias to a version; InputError if the store refuses."""
    connect()
    with translate_errors():
        mlflow.MlflowClient().set_registered_model_alias(name, alias, str(number))


def _parts(uri: str) -> tuple[str, str | None, str | None]:
    name, _, number = uri.removeprefix("models:/").partition("/")
    name, _, alias = name.partition("@")
    if not uri.startswith("models:/") or not name or bool(alias) == bool(number):
        raise InputError(f"{uri} is no model of a registry: write models:/name@alias or models:/name/number")
    return name, alias or None, number or None


def _version(found: mlflow.entities.model_registry.ModelVersion, aliases: tuple[str, ...]) -> Version:
    created = datetime.fromtimestamp(found.creation_timestamp / 1000, timezone.utc)
    return Version(found.name, int(found.version), aliases, found.run_id or None, dict(found.tags), created)
