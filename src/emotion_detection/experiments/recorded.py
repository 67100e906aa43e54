"""What MLflow has recorded of a run: settings, scores, tags and files."""

import ast
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import mlflow

from emotion_detection.experiments.runs import connect, translate_errors

FOLDERS = ("report", "pretrained", "data", "")  # where a run keeps its files; "" is the top


@dataclass(frozen=True)
class RecordedRun:
    """A run of MLflow."""

    id: str
    name: str
    status: str
    started: datetime  # in UTC
    params: Mapping[str, Any]  # flat, such as train.epochs, as Python values
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    files: Mapping[str, str]  # the artifact's path by the name of the file

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if the run does not have it. Raises StoreError if it cannot be read."""
        if name not in self.files:
            return None
        with translate_errors(), tempfile.TemporaryDirectory() as folder:
            path = mlflow.artifacts.download_artifacts(run_id=self.id, artifact_path=self.files[name], dst_path=folder)
            return Path(path).read_bytes()


def read_run(run_id: str) -> RecordedRun:
    """A run with the names of its files. Raises StoreError if the store does not have it."""
    connect()
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for each file of some kilobytes
    with translate_errors():
        client = mlflow.MlflowClient()
        run = client.get_run(run_id)
        files = _files(client, run_id)
    return RecordedRun(
        id=run.info.run_id,
        name=run.info.run_name or "",
        status=run.info.status,
        started=datetime.fromtimestamp(run.info.start_time / 1000, timezone.utc),
        params={key: plain_value(value) for key, value in run.data.params.items()},
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
        files=files,
    )


def _files(client: mlflow.MlflowClient, run_id: str) -> dict[str, str]:
    found: dict[str, str] = {}
    top = {artifact.path for artifact in client.list_artifacts(run_id)}
    for folder in FOLDERS:
        if folder == "" or folder in top:
            entries: Iterable[Any] = client.list_artifacts(run_id, folder or None)
            for entry in entries:
                if not entry.is_dir:
                    found.setdefault(entry.path.rpartition("/")[2], entry.path)
    return found


def plain_value(text: str) -> Any:
    """The value that MLflow has stored as text; a tuple becomes a list. What JSON does not have stays text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    if not _is_plain(value):
        return text
    return list(value) if isinstance(value, tuple) else value


def _is_plain(value: object) -> bool:
    """Whether JSON can express a value."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
