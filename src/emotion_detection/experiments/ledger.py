"""The history of a model's aliases: who moved which one, when, why and on which evidence. Entries are never changed.

The history of a registered model is a run with one parameter per entry: 0001, 0002, ... MLflow accepts a parameter only
once, so of several processes that write the same entry one wins, in every database and on every server.
"""

import getpass
import json
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import mlflow
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from emotion_detection.errors import StoreError, shorten
from emotion_detection.experiments.relocation import ARTIFACTS
from emotion_detection.experiments.runs import MISSING, connect, translate_errors
from emotion_detection.experiments.store_location import sqlite_path, store_uri
from emotion_detection.redaction import scrub

CREATED = "model_created"  # the tag with the time in ms at which the model was created: a later one may have its name
APPLIED = "applied"  # the tag with the number of the last entry whose alias has been moved
OUTSIDE = "outside"  # the kind of a move that another program made, such as MLflow's page
DAMAGED = "damaged"  # the kind of an entry that somebody else wrote
UNKNOWN = "unknown"  # a user
FORBIDDEN = "error code 403"  # in MLflow's message
MAX_REASON = 400  # characters; MLflow cuts parameters


@dataclass(frozen=True)
class Move:
    """An alias moves from one version to another; None: no version."""

    alias: str
    source: int | None
    target: int | None
    kind: str  # seed, register, promote, rollback or OUTSIDE
    why: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A move in the history of a model."""

    number: int  # from 1
    at: datetime  # in UTC
    by: str  # the user's name
    move: Move

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        about = {"number": self.number, "at": self.at.isoformat(), "by": self.by}
        return about | _plain(self.move)


@dataclass(frozen=True)
class Ledger:
    """The entries of a model, and how many of them have moved their alias."""

    run_id: str
    entries: tuple[Entry, ...]
    applied: int

    def of(self, alias: str) -> list[Entry]:
        """The moves of one alias, oldest first."""
        return [entry for entry in self.entries if entry.move.alias == alias]


def history(name: str) -> list[Entry]:
    """All moves of the aliases of a registered model, oldest first. Writes nothing; empty if nothing is recorded."""
    connect()
    with translate_errors():
        run = _find(name)
        return list(_parse(run).entries) if run else []


def read(name: str) -> Ledger:
    """The history of a registered model, which is begun if there is none. Connect to the store before."""
    run = _find(name)
    while run is None:
        _begin(name)
        run = _find(name)
    client = mlflow.MlflowClient()
    created = _created(name)
    if CREATED not in run.data.tags and created:  # begun by an earlier version of the project
        upsert(lambda: client.set_tag(run.info.run_id, CREATED, created))
    if run.info.lifecycle_stage == "deleted":  # in MLflow's page, which keeps its content
        with suppress(MlflowException):  # its experiment is restored with all runs
            client.restore_experiment(run.info.experiment_id)
        client.restore_run(run.info.run_id)
    return _parse(run)


@translate_errors()
def append(ledger: Ledger, move: Move) -> Entry | None:
    """Write the entry that follows; return None if another process has written one first.

    Raises StoreError if the store accepts neither.
    """
    number, nonce = len(ledger.entries) + 1, uuid.uuid4().hex
    now = datetime.now(timezone.utc).replace(microsecond=0)
    content = _plain(move) | {"at": now.isoformat(), "by": _user(move), "nonce": nonce}
    client, failure = mlflow.MlflowClient(), ""
    try:
        client.log_param(ledger.run_id, _key(number), json.dumps(content, ensure_ascii=False, separators=(",", ":")))
    except MlflowException as error:  # also if the store has accepted the entry, but its answer was lost
        failure = shorten(error)
    stored = client.get_run(ledger.run_id).data.params.get(_key(number))
    if stored is None:
        remedy = "use an account that may write" if FORBIDDEN in failure else "repeat the command"
        raise StoreError(f"the history of aliases cannot be written ({failure}): {remedy}")
    return _entry(number, stored) if nonce in stored else None


def mark_applied(ledger: Ledger, number: int) -> None:
    """Note that the entry's alias has been moved."""
    upsert(lambda: mlflow.MlflowClient().set_tag(ledger.run_id, APPLIED, str(number)))


def upsert(write: Callable[[], object]) -> None:
    """Set something in the store. If two processes set it for the first time, MLflow fails in one: it tries again."""
    try:
        write()
    except MlflowException:
        write()


def _find(name: str) -> mlflow.entities.Run | None:
    """The run with the history of the model that has this name now."""
    return _first_run(_current_title(name))


def _current_title(name: str) -> str:
    """The name of the history's experiment. If it belongs to an earlier model with this name, the new one has its own.

    Versions are counted from 1 again, so that the entries of the earlier one would be about other versions.
    """
    first, created = _first_run(_title(name)), _created(name)
    is_own = first is None or not created or first.data.tags.get(CREATED, created) == created
    return _title(name) if is_own else f"{_title(name)} of the model created at {created}"


def _created(name: str) -> str:
    """When the registered model was created, in ms; "" if there is none."""
    try:
        return str(mlflow.MlflowClient().get_registered_model(name).creation_timestamp)
    except MlflowException as error:
        if error.error_code not in MISSING:
            raise
        return ""


def _first_run(title: str) -> mlflow.entities.Run | None:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(title)
    found = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL) if experiment else []
    # The first run: others can only be made by hand.
    return min(found, key=lambda run: run.info.start_time, default=None)


def _begin(name: str) -> None:
    """Create the experiment with the run. Of several processes that do this, one wins: a name is unique.

    The run must be there as soon as the experiment has its name, so the experiment is renamed at the end.
    """
    client, title = mlflow.MlflowClient(), _current_title(name)
    present = client.get_experiment_by_name(title)
    if present is not None:
        if _find(name) is None:  # `mlflow gc` has removed the run
            _create_run(present.experiment_id, name)
        return
    path = sqlite_path(store_uri())
    artifacts = path.with_name(ARTIFACTS).as_uri() if path else None
    experiment = client.create_experiment(f"{title} {uuid.uuid4().hex}", artifact_location=artifacts)
    _create_run(experiment, name)
    try:
        client.rename_experiment(experiment, title)
    except MlflowException:
        client.delete_experiment(experiment)
        if _find(name) is None:
            raise


def _create_run(experiment: str, name: str) -> None:
    client = mlflow.MlflowClient()
    run = client.create_run(experiment, run_name=_title(name), tags={"model": name, CREATED: _created(name)})
    client.set_terminated(run.info.run_id)


def _title(name: str) -> str:
    return f"{name} history"


def _key(number: int) -> str:
    return f"{number:04d}"


def _user(move: Move) -> str:
    if move.kind == OUTSIDE:
        return UNKNOWN
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (OSError, KeyError):  # a container without an account
        return UNKNOWN


def _plain(move: Move) -> dict[str, Any]:
    return {
        "kind": move.kind,
        "alias": move.alias,
        "from": move.source,
        "to": move.target,
        "why": shorten(scrub(move.why), MAX_REASON),
        "evidence": dict(move.evidence),
    }


def _parse(run: mlflow.entities.Run) -> Ledger:
    params = run.data.params
    entries: list[Entry] = []
    while _key(len(entries) + 1) in params:
        number = len(entries) + 1
        entries.append(_entry(number, params[_key(number)]))
    applied = run.data.tags.get(APPLIED, "")
    return Ledger(run.info.run_id, tuple(entries), int(applied) if applied.isdecimal() else 0)


def _entry(number: int, text: str) -> Entry:
    """An entry from its JSON. One that was written by hand and cannot be read counts, but moves no alias."""
    try:
        content = json.loads(text)
        kind, alias, source, target = (content[key] for key in ("kind", "alias", "from", "to"))
        move = Move(alias, source, target, kind, content["why"], content["evidence"])
        return Entry(number, datetime.fromisoformat(content["at"]), content["by"], move)
    except (ValueError, KeyError, TypeError):
        nothing = Move("", None, None, DAMAGED, shorten(text))
        return Entry(number, datetime.fromtimestamp(0, timezone.utc), UNKNOWN, nothing)
