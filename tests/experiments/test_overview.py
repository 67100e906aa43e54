"""Runs at a glance: what differs between them, and the page that shows their scores."""

import json
import os
import sys
from datetime import datetime

import mlflow
import pytest

from emotion_detection.cli import main
from emotion_detection.experiments import overview, runs
from emotion_detection.experiments.overview import RunSummary, deviations, latest_runs, page_of_runs


def log_training(name, score, *, parent=None, fails=False, **settings):
    try:
        with runs.start_run(name=name, parent=parent) as run:
            run.log_params({"train": {"architecture": "fer_resnet", "epochs": 30} | settings})
            if fails:
                raise ValueError
            run.log_scores({"val_macro_f1": score, "test_accuracy": score + 0.1}, [{"loss": 1.0}])
    except ValueError:
        pass
    return run.id


@pytest.fixture
def trainings(store):  # noqa: ARG001
    search = log_training("first", 0.5)
    log_training("second", 0.61234, epochs=2, widths=[1, 2])
    log_training("a trial", 0.9, parent=search)
    with runs.start_run(name="pretrained"):
        pass
    log_training("third", 0.6, fails=True)


@pytest.mark.usefixtures("trainings")
def test_comparison_has_five_columns_and_shows_what_differs(capsys):
    main(["compare"])
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split("  ")[0] == "run"
    columns = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in (heading, *lines)]
    assert all(len(row) == 5 for row in columns)
    assert [row[0] for row in columns[1:]] == ["third", "second", "first"]
    assert columns[2][2:] == ["0.6123", "0.7123", "epochs=2, widths=[1, 2]"]
    assert columns[1][2:] == ["–", "–", "failed"]
    assert columns[3][4] == "–"
    assert max(map(len, lines)) < 160


@pytest.mark.usefixtures("trainings")
def test_comparison_shows_as_many_runs_as_asked_for(capsys):
    main(["compare", "--last", "1"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert [run.name for run in latest_runs(2)] == ["third", "second"]


@pytest.mark.usefixtures("store")
def test_comparison_of_no_runs_says_how_to_make_one(capsys):
    main(["compare"])
    assert "dvc repro" in capsys.readouterr().out


def test_count_below_one_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--last", "0"])
    assert capsys.readouterr().err == "error: --last is 0: use 1 or more\n"


def test_usual_value_is_that_of_most_runs_or_of_the_oldest():
    def run(**settings):
        return RunSummary("1", "name", datetime(2026, 1, 1), "FINISHED", settings, {})

    newest_first = [run(epochs="2", seed="1"), run(epochs="1", seed="2"), run(epochs="1", seed="3")]
    assert deviations(newest_first) == [{"epochs": "2", "seed": "1"}, {"seed": "2"}, {}]


@pytest.mark.usefixtures("trainings")
def test_page_shows_trainings_with_their_scores():
    page = page_of_runs("http://127.0.0.1:5000")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(runs.EXPERIMENT)
    assert page == (
        f"http://127.0.0.1:5000/#/experiments/{experiment.experiment_id}/runs"
        "?workflowType=machine_learning&viewStateShareKey=scores"
    )
    view = json.loads(experiment.tags["mlflow.sharedViewState.scores"])
    assert "metrics.`val_macro_f1`" in view["selectedColumns"]


def test_page_of_the_store_is_started_on_loopback(store, monkeypatch, capsys):
    started = []
    connect = runs.connect

    def connect_to_postgresql():
        connect()
        os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"

    monkeypatch.setattr(runs, "connect", connect_to_postgresql)
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    main(["ui", "--port", "5001"])
    assert capsys.readouterr().out.startswith("Open http://127.0.0.1:5001/#/experiments/1/runs?workflowType=")
    ((program, command, environment),) = started
    assert program == sys.executable
    assert command[1:] == ["-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", "5001", "--backend-store-uri", store]
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert "MLFLOW_SQLALCHEMYSTORE_POOLCLASS" not in environment  # a server has many requests at once


def test_page_of_a_server_is_only_printed(store, monkeypatch, capsys):
    monkeypatch.setattr(os, "execve", None)
    monkeypatch.setattr(overview, "store_uri", lambda: "https://ann:pw-word@tracking.example.org/")
    monkeypatch.setattr(runs, "connect", lambda: mlflow.set_tracking_uri(store))
    main(["ui"])
    assert capsys.readouterr().out.startswith("Open https://ann:***@tracking.example.org/#/experiments/1/runs?")
