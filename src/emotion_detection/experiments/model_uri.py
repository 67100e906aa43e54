"""Names of registered models: models:/NAME@ALIAS and models:/NAME/NUMBER. Imports no MLflow."""

import re
from dataclasses import dataclass

from emotion_detection.errors import UsageError

MODEL_URI = re.compile("models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")


@dataclass(frozen=True)
class ModelName:
    """What a models:/ URI names: a registered model and either an alias or a version number."""

    name: str
    alias: str | None = None
    version: int | None = None


def parse_model_uri(uri: str) -> ModelName:
    """Parse models:/NAME@ALIAS or models:/NAME/NUMBER. Raises UsageError for anything else."""
    match = MODEL_URI.fullmatch(uri)
    if match is None:
        raise UsageError(f"{uri} does not name a registered model: use models:/NAME@ALIAS or models:/NAME/NUMBER")
    return ModelName(match["name"], match["alias"], int(match["version"]) if match["version"] else None)
