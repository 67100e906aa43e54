"""What a run sends to the store, as plain values that a journal can keep.

A call can be repeated without an effect: a store that has taken it, but could not say so, gets it a second time.
"""

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from emotion_detection.redaction import scrub

NOTE = "mlflow.note.content"  # the tag with the description of a run
ENDED_BY = "ended_by"  # the tag with the error that has ended a run
SCRUBBED_FILES = {".csv", ".json", ".log", ".md", ".txt", ".yaml", ".yml"}
DATASET_KEYS = ("name", "digest", "source_type", "source", "schema", "profile")
Content = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """One thing that the store should do with a run."""

    kind: str
    content: Content
    at: int = field(default_factory=lambda: time.time_ns() // 1_000_000)  # in milliseconds since 1970, as in MLflow
    folder: Path | None = None  # of the artifacts, if there are any


def send(run_id: str, call: Call) -> None:
    """Do what the call says. Raises the errors of MLflow, of its HTTP client and of its database."""
    KINDS[call.kind](run_id, call)


def send_metrics(run_id: str, calls: Sequence[Call]) -> None:
    """Send metrics of many epochs at once."""
    metrics = [
        Metric(key, value, call.at, call.content["step"])
        for call in calls
        for key, value in call.content["values"].items()
    ]
    mlflow.MlflowClient().log_batch(run_id, metrics)


def _params(run_id: str, call: Call) -> None:
    mlflow.log_params(call.content["params"], run_id=run_id)


def _stage_params(run_id: str, call: Call) -> None:
    """MLflow's params never change: a param with another value becomes a tag with the same name."""
    values = call.content["params"]
    data = mlflow.MlflowClient().get_run(run_id).data
    mlflow.log_params({key: value for key, value in values.items() if key not in data.params}, run_id=run_id)
    current = {**data.params, **data.tags}  # a tag is newer than the param
    set_tags(run_id, {key: value for key, value in values.items() if current.get(key, value) != value})


def _metrics(run_id: str, call: Call) -> None:
    mlflow.log_metrics(call.content["values"], step=call.content["step"], timestamp=call.at, run_id=run_id)


def _missing_epochs(run_id: str, call: Call) -> None:
    logged = {metric.step for metric in mlflow.MlflowClient().get_metric_history(run_id, "val_loss")}
    for row in call.content["rows"]:
        if row["epoch"] not in logged:
            _metrics(run_id, Call("metrics", epoch(row), call.at))


def epoch(row: Mapping[str, float]) -> Content:
    """The metrics of a row of the history."""
    return {"values": {key: value for key, value in row.items() if key != "epoch"}, "step": int(row["epoch"])}


def _tags(run_id: str, call: Call) -> None:
    set_tags(run_id, call.content["tags"])


def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set the tags of a run."""
    if tags:
        mlflow.MlflowClient().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def _start(run_id: str, call: Call) -> None:
    """Resume a run that the store has: why it has ended before is no longer right."""
    client = mlflow.MlflowClient()
    if ENDED_BY in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, ENDED_BY)
    set_tags(run_id, call.content["tags"])


def _note(run_id: str, call: Call) -> None:
    """Write a section of the run's description. It replaces an earlier section with this title."""
    present = mlflow.MlflowClient().get_run(run_id).data.tags.get(NOTE, "")
    sections = dict(part.partition("\n\n")[::2] for part in present.split("### ") if part)
    sections[call.content["title"]] = f"{call.content['text'].strip()}\n\n"
    text = "".join(f"### {heading}\n\n{body}" for heading, body in sections.items())
    set_tags(run_id, {NOTE: text})


def _dataset(run_id: str, call: Call) -> None:
    tags = {MLFLOW_DATASET_CONTEXT: call.content["split"], **call.content["tags"]}
    entry = DatasetInput(Dataset(**call.content["dataset"]), [InputTag(key, value) for key, value in tags.items()])
    mlflow.MlflowClient().log_inputs(run_id, datasets=[entry])


def _artifacts(run_id: str, call: Call) -> None:
    assert call.folder is not None
    files = [path for path in call.folder.rglob("*") if path.is_file()]
    if len(files) == 1:
        place = files[0].parent.relative_to(call.folder).as_posix()
        mlflow.log_artifact(str(files[0]), None if place == "." else place, run_id=run_id)
    elif files:
        mlflow.log_artifacts(str(call.folder), run_id=run_id)


def _end(run_id: str, call: Call) -> None:
    if call.content["reason"]:
        set_tags(run_id, {ENDED_BY: call.content["reason"]})
    mlflow.MlflowClient().set_terminated(run_id, call.content["status"], call.at)


KINDS: dict[str, Callable[[str, Call], None]] = {
    "params": _params,
    "stage params": _stage_params,
    "metrics": _metrics,
    "missing epochs": _missing_epochs,
    "tags": _tags,
    "note": _note,
    "dataset": _dataset,
    "artifacts": _artifacts,
    "start": _start,
    "end": _end,
}
MAX_INTEGER = 2**63 - 1  # of a database
STATUSES = ("FINISHED", "FAILED", "KILLED")  # of a run that has ended
Check = Callable[[Any], bool]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and -MAX_INTEGER <= value <= MAX_INTEGER


def _is_numbers(value: object) -> bool:
    """NaN and the infinite numbers are metrics too."""
    return isinstance(value, dict) and all(isinstance(one, float) or _is_integer(one) for one in value.values())


def _are_epochs(value: object) -> bool:
    """Whether it is a list of rows of a history, each with the whole number of its epoch, which may be a float."""
    rows: list[Any] = value if isinstance(value, list) else [None]
    return all(_is_numbers(row) and float(row.get("epoch", math.nan)).is_integer() for row in rows)


def _is_dataset(value: object) -> bool:
    return isinstance(value, dict) and _has_fields(value, DATASET_FIELDS)


def _has_fields(content: Content, fields: Mapping[str, Check]) -> bool:
    """Whether all fields are right, and there are no others."""
    return content.keys() <= fields.keys() and all(check(content.get(name)) for name, check in fields.items())


DATASET_FIELDS: dict[str, Check] = {
    **dict.fromkeys(DATASET_KEYS, _is_text),
    **dict.fromkeys(("schema", "profile"), _is_text_or_none),
}
# What the content of a call has, by its kind.
FIELDS: dict[str, dict[str, Check]] = {
    "params": {"params": _is_texts},
    "stage params": {"params": _is_texts},
    "metrics": {"values": _is_numbers, "step": _is_integer},
    "missing epochs": {"rows": _are_epochs},
    "tags": {"tags": _is_texts},
    "note": {"title": _is_text, "text": _is_text},
    "dataset": {"dataset": _is_dataset, "split": _is_text, "tags": _is_texts},
    "artifacts": {},
    "start": {"tags": _is_texts, "name": _is_text_or_none, "create": lambda value: value in (None, False, True)},
    "end": {"status": STATUSES.__contains__, "reason": _is_text},
}


def is_known(kind: str, at: int, content: object) -> bool:
    """Whether this version can send a call of this kind, time and content.

    A newer version may have written another one, or the journal is damaged.
    """
    is_call = kind in KINDS and isinstance(content, dict) and 0 <= at <= MAX_INTEGER
    return is_call and _has_fields(cast(Content, content), FIELDS[kind])


def write_artifacts(files: Mapping[str, bytes | Path], folder: Path) -> None:
    """Write artifacts into a folder, by their paths in the run. Secrets are removed from the texts among the files."""
    for name, source in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, bytes):
            target.write_bytes(source)
        elif source.suffix in SCRUBBED_FILES:
            text = source.read_text(encoding="utf-8", errors="replace")
            scrubbed = scrub(text)
            target.write_text(scrubbed, encoding="utf-8") if scrubbed != text else shutil.copyfile(source, target)
        else:
            shutil.copyfile(source, target)
