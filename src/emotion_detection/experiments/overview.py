"""The project's runs at a glance: what differs between them, and MLflow's page with their scores."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import mlflow

from emotion_detection.experiments import runs
from emotion_detection.experiments.store_location import store_uri

VIEW = "scores"  # the key of a view of MLflow's table of runs, stored as a tag of the experiment
COLUMNS = ("metrics.`val_macro_f1`", "metrics.`val_accuracy`", "metrics.`test_accuracy`", "params.`train.architecture`")


@dataclass(frozen=True)
class RunSummary:
    """A run of a training."""

    id: str
    name: str
    started: datetime  # in local time
    status: str
    settings: dict[str, str]  # of the section train
    scores: dict[str, float]


def latest_runs(count: int) -> list[RunSummary]:
    """The latest trainings of the project, newest first; trials of searches are left out."""
    runs.connect()
    with runs.translate_errors():
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name(runs.EXPERIMENT)
        if experiment is None:
            return []
        found = client.search_runs(
            [experiment.experiment_id], "params.`train.architecture` != ''", order_by=["attributes.start_time DESC"],
            max_results=min(20 * count, 1000),
        )  # fmt: skip
    trainings = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    return [_summary(run) for run in trainings[:count]]


def _summary(run: mlflow.entities.Run) -> RunSummary:
    settings = {key.removeprefix("train."): value for key, value in run.data.params.items() if key.startswith("train.")}
    started = datetime.fromtimestamp(run.info.start_time / 1000, timezone.utc).astimezone()
    return RunSummary(run.info.run_id, run.info.run_name, started, run.info.status, settings, dict(run.data.metrics))


def deviations(summaries: Sequence[RunSummary]) -> list[dict[str, str]]:
    """For each run, its settings that differ from those of most runs. If all differ, the oldest run counts."""
    keys = sorted({key for summary in summaries for key in summary.settings})
    usual = {}
    for key in keys:
        values = Counter(summary.settings.get(key, "") for summary in reversed(summaries))
        usual[key] = values.most_common(1)[0][0]  # the oldest of the most common ones
    return [
        {key: summary.settings[key] for key in keys if summary.settings.get(key, usual[key]) != usual[key]}
        for summary in summaries
    ]


def page_of_runs(server: str) -> str:
    """The address of MLflow's page of the project's trainings, with their scores as columns of the table."""
    runs.connect()
    with runs.translate_errors():
        client = mlflow.MlflowClient()
        experiment_id = runs.project_experiment()
        view = json.dumps({"selectedColumns": ["attributes.`Created`", "attributes.`Duration`", *COLUMNS]})
        client.set_experiment_tag(experiment_id, f"mlflow.sharedViewState.{VIEW}", view)
    return f"{server}/#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"


def server_address() -> str | None:
    """The address of the tracking server; None if the store is a file or a database."""
    uri = store_uri()
    return uri.rstrip("/") if uri.startswith("http") else None
