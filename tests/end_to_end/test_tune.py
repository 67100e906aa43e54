"""`make tune`: the command, its workers, MLflow, kills, shared storages and mistakes.

Most tests replace the training by tests.support.fake_training, and the worker processes by threads.
"""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import optuna
import psutil
import pytest
import yaml
from optuna.trial import FrozenTrial
from tests.support import fake_training, postgres, repositories, thread_workers
from tests.support.paths import ROOT

from emotion_detection.commands import tune
from emotion_detection.commands.adopt import adopt
from emotion_detection.data.dataset import digest, save
from emotion_detection.errors import ConfigError, DataError, EmotionDetectionError, ModelError, StoreError, UsageError
from emotion_detection.experiments import patches
from emotion_detection.tuning import finalists, plots, processes, sampler, study, supervisor, worker

TINY = {"widths": [4], "blocks": [1], "batch_size": 2, "architecture": "fer_resnet", "precision": "float32"}
SPACE = {
    "learning_rate": {"low": 0.01, "high": 0.1, "log": True},
    "dropout": {"low": 0.0, "high": 0.5, "log": False},
    "widths": {"choices": [[4], [6]]},
}
TIMEOUT_S = 240
FIGURES = {f"{name}.png" for name in ("history", "curves", "timeline", "parallel", "importances", "slices")}
REAL, FAKE = "emotion_detection", "tests.support.fake_tune"  # modules of the command


@pytest.fixture
def project(store, tmp_path, drawn) -> Path:
    """A folder with a few prepared faces and small params, which is the working directory."""
    assert str(tmp_path) in store
    save(drawn, tmp_path / "faces.npz")
    (tmp_path / "report.json").write_text(json.dumps({"dataset": "drawn", "digest": digest(drawn)}))
    (tmp_path / "recipes").mkdir()
    configure(tmp_path)
    return tmp_path


def configure(folder: Path, *, train: dict[str, Any] | None = None, **changes: Any) -> None:
    """Write params.yaml with changes of the section tune."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["train"] |= TINY | (train or {})
    tree["tune"] |= {"trials": 3, "epochs": 2, "pruner": None, "finalists": 0, "space": SPACE} | changes
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))


def options(folder: Path) -> dict[str, Path]:
    files = {"params": "params.yaml", "faces": "faces.npz", "data_report": "report.json", "recipes": "recipes"}
    return {name: folder / file for name, file in files.items()} | {"out": folder / "tuning"}


def trials(folder: Path, storage: str = "", name: str = "drawn") -> list[FrozenTrial]:
    try:
        return load_study(storage or f"sqlite:///{folder / 'tuning' / 'study.db'}", name).trials
    except Exception:  # the command has not created it yet
        return []


@cache
def load_study(storage: str, name: str) -> optuna.Study:
    """A study is loaded once, because each storage keeps its connections open."""
    return optuna.load_study(storage=storage, study_name=name)


def states(results: list[FrozenTrial]) -> Counter[str]:
    return Counter(trial.state.name for trial in results)


def finished(results: list[FrozenTrial]) -> list[FrozenTrial]:
    """The trials without failed ones: a worker that asks for a trial too late does not run it."""
    return [trial for trial in results if trial.state.name in ("COMPLETE", "PRUNED")]


def best_trial(folder: Path) -> FrozenTrial:
    return max(finished(trials(folder)), key=lambda trial: trial.values[0] if trial.values else 0)


def running(folder: Path, storage: str = "", name: str = "drawn") -> list[FrozenTrial]:
    """Trials that have reported an epoch and are not finished."""
    results = trials(folder, storage, name)
    return [trial for trial in results if trial.state.name == "RUNNING" and trial.intermediate_values]


def runs() -> tuple[Any, list[Any]]:
    """The parent's MLflow run, and its children's."""
    client = mlflow.MlflowClient()
    results = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    (parent,) = (run for run in results if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in results if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(results) - 1
    return parent, children


def check_counts(project: Path, *, killed: int, name: str = "drawn") -> None:
    """Three trials are complete, and so are their MLflow runs; the killed ones were retried with their settings."""
    results = trials(project, name=name)
    assert states(results) == {"COMPLETE": 3, "FAIL": killed}
    failed = {trial.number: trial.params for trial in results if trial.state.name == "FAIL"}
    retried = {trial.system_attrs["failed_trial"]: trial for trial in results if "failed_trial" in trial.system_attrs}
    assert {number: trial.params for number, trial in retried.items()} == failed
    parent, children = runs()
    assert parent.info.status == "FINISHED"
    statuses = Counter(run.info.status for run in children if run.data.tags["study"] == name)
    assert statuses == {"FINISHED": 3, "KILLED": killed}


# In one process


@pytest.fixture
def hold(project) -> Iterator[Path]:
    """While this file exists, trainings wait after their first epoch."""
    path = project / fake_training.HOLD
    path.touch()
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def search(project, monkeypatch, capsys) -> Callable[..., str]:
    """A function that runs the command with worker threads and returns what it printed."""
    monkeypatch.setattr(processes, "start_workers", thread_workers.start_workers)
    monkeypatch.setattr(worker, "TRAINER", fake_training.TRAINER)
    monkeypatch.setattr(plots, "draw", lambda study, folder: [])  # noqa: ARG005
    monkeypatch.setattr(supervisor, "POLL_S", 0.05)
    monkeypatch.setattr(study, "IDLE_S", 0.02)

    def run(**changes: Any) -> str:
        capsys.readouterr()
        tune.tune(tune.TuneOptions(**options(project) | changes))
        return capsys.readouterr().out

    return run


def test_repeated_command_runs_only_additional_trials(project, search):
    search()
    before = trials(project)
    assert states(before) == {"COMPLETE": 3}
    assert "has its 3 trials" in search()
    configure(project, trials=4)
    search()
    assert [trial.params for trial in trials(project)[:3]] == [trial.params for trial in before]
    assert states(trials(project)) == {"COMPLETE": 4}
    assert len(runs()[1]) == 4


def test_search_and_trials_record_the_code_the_command_and_the_data(project, search):
    commit = repositories.commit_all(project)
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "# changed since the commit\n")
    search()
    parent, children = runs()
    assert len(children) == 3
    client = mlflow.MlflowClient()
    for run in (parent, *children):
        assert run.data.tags["git_commit"] == commit
        assert run.data.tags["code_tree"]
        assert run.data.tags["command"]
        patch = Path(client.download_artifacts(run.info.run_id, "code/changes.patch")).read_bytes()
        assert b"+# changed since the commit" in patch
        assert patches.applies(patch, commit, project)
    assert parent.data.tags["dataset_digest"] == json.loads((project / "report.json").read_text())["digest"]


def test_same_seed_gives_same_trials_after_interruptions(project, search, monkeypatch):
    monkeypatch.setattr(sampler, "STARTUP_TRIALS", 2)

    def sampled(name: str, *counts: int) -> list[dict[str, Any]]:
        for count in counts:
            configure(project, trials=count, seed=3)
            search(study=name)
        return [trial.params for trial in trials(project, name=name)]

    uninterrupted = sampled("uninterrupted", 4)  # more than the sampler's random startup trials
    assert sampled("interrupted", 1, 3, 4) == uninterrupted
    assert len({str(params) for params in uninterrupted}) == 4


def test_known_settings_are_tried_first(project, search):
    (project / "recipes" / "good.yaml").write_text("train:\n  dropout: 0.11\n  widths: [6]\n")
    (project / "recipes" / "outside.yaml").write_text("train:\n  learning_rate: 5.0\n")
    search()
    base, good, third = trials(project)
    committed = yaml.safe_load((project / "params.yaml").read_text())["train"]
    assert base.params == {"learning_rate": 0.1, "dropout": committed["dropout"], "widths": "[4]"}
    assert good.params == {"learning_rate": 0.1, "dropout": 0.11, "widths": "[6]"}
    assert third.params["learning_rate"] != 0.1


def test_unpromising_trials_are_pruned_and_tagged(project, search):
    configure(project, trials=6, epochs=9, pruner="halving")
    search(workers=2)
    results = finished(trials(project))
    assert len(results) == 6
    assert states(results)["PRUNED"] >= 1
    # A trial that has run its last epoch is complete.
    assert max(len(trial.intermediate_values) for trial in results if trial.state.name == "PRUNED") < 9
    _, children = runs()
    assert {run.info.status for run in children} == {"FINISHED"}
    assert Counter(run.data.tags["trial_state"] for run in children) == states(results)


def test_settings_without_effect_are_not_sampled(project, search):
    space = SPACE | {"architecture": {"choices": ["fer_resnet", "mini_xception"]}}
    configure(project, trials=5, space=space)
    search()
    for trial in trials(project):
        assert ("widths" in trial.params) == (trial.params["architecture"] == "fer_resnet")
    assert {trial.params["architecture"] for trial in trials(project)} == {"fer_resnet", "mini_xception"}


def test_settings_are_not_trained_twice_and_exhausted_space_ends_the_search(project, search):
    configure(project, trials=3, space={"widths": {"choices": [[4], [6]]}})
    printed = search()
    assert "2 of 3 trials finished: new trials repeat earlier settings" in printed
    results = trials(project)
    complete = [trial for trial in results if trial.state.name == "COMPLETE"]
    assert len({str(trial.params) for trial in complete}) == len(complete) == 2
    assert all("duplicate_of" in trial.user_attrs for trial in results if trial.state.name == "FAIL")
    assert len(runs()[1]) == 2
    search()
    assert len(trials(project)) == len(results)


def test_no_trial_starts_after_the_time_limit(project, search):
    configure(project, trials=100_000, minutes=0.01, finalists=1, finalist_seeds=1)
    printed = search()
    assert "0.01 minutes have passed" in printed
    assert set(states(trials(project))) == {"COMPLETE"}  # the running trial is finished
    assert states(trials(project, name="drawn-finalists")) == {"COMPLETE": 1}


def best_yaml(project: Path) -> tuple[str, dict[str, Any]]:
    text = (project / "tuning" / "best.yaml").read_text()
    return " ".join(text.replace("\n# ", " ").split()), yaml.safe_load(text)["train"]


def test_finalists_are_retrained_and_the_best_mean_wins(project, search, monkeypatch):
    monkeypatch.setattr(worker, "TRAINER", fake_training.TRAINER_WITH_LUCK)
    changes: dict[str, Any] = {"trials": 3, "finalist_seeds": 2, "space": {"dropout": {"choices": [0.1, 0.2, 0.3]}}}
    configure(project, finalists=2, **changes)
    printed = search(workers=2)
    # The search prefers a dropout of 0.1, which was lucky with the seed 1.
    assert best_trial(project).params == {"dropout": 0.1}
    retrained = finished(trials(project, name="drawn-finalists"))
    assert states(retrained) == {"COMPLETE": 4}
    assert Counter(trial.params["dropout"] for trial in retrained) == {0.1: 2, 0.2: 2}
    assert {trial.params["seed"] for trial in retrained} == {2, 3}
    comment, train = best_yaml(project)
    assert train == {"dropout": 0.2}
    assert "0.595 ± 0.007 val macro-F1 (last epoch, mean and standard deviation over 2 seeds)" in comment
    assert printed.count("finalist trial ") == 2
    parent, children = runs()
    assert parent.data.metrics["finalist_mean_val_macro_f1"] == pytest.approx(0.595)
    assert Counter(run.data.tags["study"] for run in children) == {"drawn": 3, "drawn-finalists": 4}
    assert {run.data.params["train.seed"] for run in children} == {"1", "2", "3"}

    # A repeated command trains nothing, and another finalist is trained without the others.
    search()
    assert len(runs()[1]) == 7
    configure(project, finalists=3, **changes)
    search()
    assert states(finished(trials(project, name="drawn-finalists"))) == {"COMPLETE": 6}


def test_finalist_of_a_dead_process_is_retried(project, search):
    configure(project, finalists=1, finalist_seeds=1)
    search()
    retrained = load_study(f"sqlite:///{project / 'tuning' / 'study.db'}", "drawn-finalists")
    finalists.enqueue(retrained, [best_trial(project)], [2, 3, 4])
    dead = retrained.ask()
    dead.set_user_attr("worker", processes.this_process() | {"started": 1.0})
    configure(project, finalists=1, finalist_seeds=3)
    search()
    results = trials(project, name="drawn-finalists")
    assert states(results) == {"COMPLETE": 3, "FAIL": 1}
    assert {trial.params["seed"] for trial in results if trial.state.name == "COMPLETE"} == {2, 3, 4}
    assert "over 3 seeds" in best_yaml(project)[0]


def test_ctrl_c_finishes_the_running_trial_and_the_command_resumes(project, search, hold, monkeypatch):
    def press_ctrl_c(seconds: float) -> None:
        if hold.exists() and running(project):
            hold.unlink()
            raise KeyboardInterrupt
        time.sleep(seconds)

    monkeypatch.setattr(supervisor, "sleep", press_ctrl_c)
    configure(project, trials=20, finalists=1, finalist_seeds=1)
    assert "finishing the running trials" in search()
    assert set(states(trials(project))) == {"COMPLETE"}
    count = len(trials(project))
    assert count < 20
    assert trials(project, name="drawn-finalists") == []
    assert runs()[0].info.status == "FINISHED"
    configure(project, trials=count + 1, finalists=1, finalist_seeds=1)
    search()
    assert states(trials(project)) == {"COMPLETE": count + 1}
    assert states(trials(project, name="drawn-finalists")) == {"COMPLETE": 1}


def test_without_finalists_the_best_trial_wins(project, search):
    printed = search()
    assert trials(project, name="drawn-finalists") == []
    best = best_trial(project)
    comment, train = best_yaml(project)
    assert train["dropout"] == best.user_attrs["values"]["dropout"]
    assert "best epoch of one training, not retrained with other seeds" in comment
    assert f"best: trial {best.number}, {best.values[0]:.3f}" in printed


def test_mlflow_gets_what_it_missed(project, search):
    search()
    parent, children = runs()
    client = mlflow.MlflowClient()
    left_open, without_end, deleted = (run.info.run_id for run in children)
    client.update_run(left_open, status="RUNNING")
    client.update_run(without_end, status="FAILED")
    client.delete_tag(without_end, "trial_state")
    with sqlite3.connect(os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")) as database:
        database.execute("DELETE FROM metrics WHERE run_uuid = ? AND step = 2", [without_end])
    client.delete_run(deleted)
    tune.reconcile(load_study(f"sqlite:///{project / 'tuning' / 'study.db'}", "drawn"))
    for run_id in (left_open, without_end):
        run = client.get_run(run_id)
        assert (run.info.status, run.data.tags["trial_state"]) == ("FINISHED", "COMPLETE")
        assert [metric.step for metric in client.get_metric_history(run_id, "val_macro_f1")] == [1, 2]

    # If its own run was deleted, the study gets a new run and continues.
    client.delete_run(parent.info.run_id)
    for run_id in (left_open, without_end):
        client.delete_run(run_id)
    configure(project, trials=4)
    assert "the study gets a new run" in search()
    again, (child,) = runs()
    assert again.info.run_id != parent.info.run_id
    assert child.data.tags["trial_state"] == "COMPLETE"


# Mistakes


@pytest.fixture
def refused(search) -> Callable[..., str]:
    """A function that runs the command and returns its error message, which is one line."""

    def run(kind: type[EmotionDetectionError], **changes: Any) -> str:
        with pytest.raises(kind) as caught:
            search(**changes)
        message = str(caught.value)
        assert "\n" not in message
        return message

    return run


def test_space_with_unknown_setting_is_refused(project, refused):
    configure(project, space={"learning_rat": {"low": 0.1, "high": 0.2, "log": True}})
    assert "tune.space.learning_rat is not a setting of train" in refused(ConfigError)
    assert not (project / "tuning").exists()


def test_study_with_another_space_is_refused(project, search, refused):
    configure(project, trials=1)
    search()
    configure(project, trials=2, space={"dropout": {"low": 0.0, "high": 0.2, "log": False}})
    assert "the study drawn has another definition (its space differs): choose another name" in refused(UsageError)
    assert states(trials(project)) == {"COMPLETE": 1}


def test_missing_teacher_is_refused_before_the_first_trial(project, refused):
    tree = yaml.safe_load((project / "params.yaml").read_text())
    tree["train"]["distillation"] |= {"teachers": ["gone.onnx"], "weight": 0.5}
    (project / "params.yaml").write_text(yaml.safe_dump(tree))
    assert "gone.onnx does not exist: correct train.distillation.teachers" in refused(ModelError)


def test_space_that_does_not_fit_the_initial_weights_is_refused_before_the_first_trial(project, refused):
    shutil.copytree(ROOT / "recipes" / "initial_weights", project / "recipes" / "initial_weights")
    configure(project, train={"initial_weights": "recipes/initial_weights/58ab76a71f43.npz"})
    message = refused(ConfigError)
    assert message.startswith("train.initial_weights recipes/initial_weights/58ab76a71f43.npz fits one network")
    assert not (project / "tuning").exists()


@pytest.mark.parametrize(
    ("storage", "shown"),
    [
        ("postgresql://somebody:secret-word@127.0.0.1:9/nowhere", "postgresql://somebody:***@127.0.0.1:9"),
        ("grpc://127.0.0.1:9", "grpc://127.0.0.1:9"),
        ("sqlite:////nowhere/at/all/study.db", "/nowhere/at/all/study.db"),
        ("mango://127.0.0.1", "mango"),
        ("just words", "just words"),
    ],
)
def test_unusable_storage_is_named_without_its_password(refused, monkeypatch, storage, shown):
    monkeypatch.setattr("emotion_detection.tuning.storage.CONNECT_TIMEOUT_S", 1)
    monkeypatch.setattr("emotion_detection.tuning.storage.ATTEMPTS", 1)
    message = refused(StoreError, storage=storage)
    assert shown in message
    assert "secret-word" not in message


def test_folder_that_cannot_be_created_is_named(project, refused):
    (project / "tuning").write_text("a file")
    assert "tuning cannot be created" in refused(UsageError)


def test_unwritable_result_keeps_the_trials(project, search, refused):
    configure(project, trials=1)
    (project / "tuning" / "best.yaml" / "obstacle").mkdir(parents=True)
    message = refused(UsageError)
    assert re.search(r"best\.yaml cannot be written .*Finished trials are kept", message)
    shutil.rmtree(project / "tuning" / "best.yaml")
    search()
    assert (project / "tuning" / "best.yaml").is_file()
    assert states(trials(project)) == {"COMPLETE": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [("train: [", "is not valid YAML"), ("", "has no sections"), ("train:\n", "has no sections")],
)
def test_invalid_recipe_is_named(project, refused, text, message):
    (project / "recipes" / "broken.yaml").write_text(text)
    assert f"broken.yaml {message}" in refused(ConfigError)


@pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
def test_invalid_data_report_is_named_with_the_remedy(project, refused, text):
    (project / "report.json").unlink()
    if text is not None:
        (project / "report.json").write_text(text)
    assert "run `dvc repro prepare`, which writes it" in refused(DataError)


def test_search_without_workers_is_refused(refused):
    assert "--workers is 0" in refused(UsageError, workers=0)


def test_unreadable_faces_keep_the_study_usable(project, search, refused):
    (project / "faces.npz").rename(project / "elsewhere.npz")
    message = refused(EmotionDetectionError)
    assert "the workers stopped after 0 of 3 trials" in message
    assert "faces.npz" in message
    (project / "elsewhere.npz").rename(project / "faces.npz")
    search()
    assert states(trials(project)) == {"COMPLETE": 3}


# With worker processes


def start(folder: Path, module: str, environment: dict[str, str] | None = None, **more: object) -> psutil.Popen:
    """Start the command in a process group of its own."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in (options(folder) | more).items()]
    # Where the tests run in the background, Ctrl-C is ignored, and the command would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return psutil.Popen(
            [sys.executable, "-m", module, "tune", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PYTHONUNBUFFERED": "1"} | (environment or {}),
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def finish(*commands: psutil.Popen) -> list[str]:
    """Wait for the commands to succeed; returns what they printed."""
    printed = [command.communicate(timeout=TIMEOUT_S)[0] for command in commands]
    assert [command.returncode for command in commands] == [0] * len(commands), "\n".join(printed)
    return printed


def until(condition: Callable[[], Any], what: str, *commands: psutil.Popen) -> None:
    """Wait for a condition while the commands run."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, what
        assert all(command.poll() is None for command in commands), [command.communicate()[0] for command in commands]
        time.sleep(0.2)


def read_until(command: psutil.Popen, text: str) -> None:
    while text not in (line := command.stdout.readline()):
        assert line, f"the command ended before it printed: {text}"


def kill(*processes: psutil.Process) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # a worker exits when its parent process exits
            process.kill()
            process.wait()


def process_of(trial: FrozenTrial) -> psutil.Process:
    return psutil.Process(trial.user_attrs["worker"]["pid"])


@pytest.mark.slow
def test_search_with_real_training_writes_runs_figures_and_recipe(project):
    configure(project, trials=2)
    (printed,) = finish(start(project, REAL))
    assert states(trials(project)) == {"COMPLETE": 2}
    parent, children = runs()
    assert parent.info.status == "FINISHED"
    assert parent.data.params["tune.space.dropout.high"] == "0.5"
    assert [run.info.status for run in children] == ["FINISHED"] * 2
    assert {run.data.tags["trial_state"] for run in children} == {"COMPLETE"}
    client = mlflow.MlflowClient()
    for run in children:
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, "val_macro_f1")] == [1, 2]
    best = best_trial(project)
    assert parent.data.metrics["best_val_macro_f1"] == pytest.approx(best.values[0])
    assert {path.name for path in (project / "tuning").glob("*.png")} == FIGURES
    logged = {Path(file.path).name for file in client.list_artifacts(parent.info.run_id, "tuning")}
    assert logged == FIGURES | {"best.yaml"}
    assert f"best: trial {best.number}, {best.values[0]:.3f} val macro-F1" in printed
    # `make adopt` accepts the recipe, which has the settings that the best trial was trained with.
    configure(project, train={"learning_rate": 0.7})
    adopt("tuning/best.yaml", params=project / "params.yaml")
    train = yaml.safe_load((project / "params.yaml").read_text())["train"]
    (run,) = (run for run in children if run.info.run_id == best.user_attrs["run_id"])
    adopted = {key: str(tuple(value) if isinstance(value := train[key], list) else value) for key in SPACE}
    assert adopted == {key: run.data.params[f"train.{key}"] for key in SPACE}


def start_two_trials(project: Path) -> tuple[psutil.Popen, list[FrozenTrial]]:
    """The command and the running trials of its two workers."""
    command = start(project, FAKE, workers=2)
    until(lambda: len(running(project)) == 2, "two running trials", command)
    return command, running(project)


@pytest.mark.slow
def test_trial_of_a_killed_worker_is_retried(project, hold):
    command, victims = start_two_trials(project)
    kill(process_of(victims[0]))
    until(lambda: states(trials(project))["FAIL"] == 1, "the killed trial to be noticed", command)
    hold.unlink()
    finish(command)
    check_counts(project, killed=1)


@pytest.mark.slow
def test_search_resumes_after_a_kill_of_all_processes(project, search, hold):
    command, victims = start_two_trials(project)
    kill(command, *map(process_of, victims))
    hold.unlink()
    search()
    check_counts(project, killed=2)


@pytest.mark.slow
def test_second_ctrl_c_ends_the_running_trial_and_the_command_resumes(project, search, hold):
    command = start(project, FAKE)
    until(lambda: running(project), "a running trial", command)
    command.send_signal(signal.SIGINT)
    read_until(command, "finishing the running trials")
    assert states(trials(project)) == {"RUNNING": 1}  # Ctrl-C does not reach the worker
    command.send_signal(signal.SIGINT)
    printed, _ = command.communicate(timeout=TIMEOUT_S)
    assert command.returncode == 130, printed
    assert states(trials(project)) == {"FAIL": 1, "WAITING": 1}
    hold.unlink()
    search()
    check_counts(project, killed=1)


@pytest.mark.slow
def test_two_commands_at_once_in_one_folder(project, hold):
    configure(project, trials=4, finalists=1, finalist_seeds=2)
    commands = [start(project, FAKE, {"DRAW_FIGURES": "1"}) for _ in range(2)]
    until(lambda: len(running(project)) == 2, "two running trials", *commands)
    logs = list((project / "tuning" / "logs").glob("*/search/worker-1.log"))
    assert len(logs) == 2
    hold.unlink()
    finish(*commands)
    assert states(trials(project))["COMPLETE"] == 4
    assert states(trials(project, name="drawn-finalists"))["COMPLETE"] == 2
    assert {path.name for path in (project / "tuning").iterdir()} == FIGURES | {"best.yaml", "study.db", "logs"}
    assert all(path.suffix == ".log" for path in (project / "tuning" / "logs").rglob("*.*"))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres.server() as address:
        yield address


@pytest.fixture
def database(server) -> str:
    return postgres.empty_database(server)


@pytest.fixture
def proxy(database) -> Iterator[str]:
    """Optuna's gRPC proxy for the database."""
    port = postgres.free_port()
    script = (
        "import optuna; optuna.storages.run_grpc_proxy_server("
        f"optuna.storages.RDBStorage({database.replace('postgresql', 'postgresql+psycopg')!r}), "
        f"host='127.0.0.1', port={port})"
    )
    process = psutil.Popen([sys.executable, "-c", script])
    yield f"grpc://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(("storage", "count"), [("database", 3), ("proxy", 2)])
def test_commands_at_once_on_an_empty_database(project, hold, request, storage, count):
    address = request.getfixturevalue(storage)
    database = request.getfixturevalue("database").replace("postgresql", "postgresql+psycopg")
    configure(project, trials=7)
    commands = [start(project, FAKE, storage=address, out=project / f"machine-{number}") for number in range(count)]
    logs = "machine-*/logs/*/search/worker-1.log"
    until(lambda: len(list(project.glob(logs))) == count, "a worker of each command", *commands)
    until(lambda: len(running(project, database)) == count, "a running trial of each command", *commands)
    hold.unlink()
    printed = finish(*commands)
    results = trials(project, database)
    assert states(results)["COMPLETE"] == 7
    # A process that asked for a trial too late, at the same time as another, has not trained it.
    assert all(not trial.intermediate_values for trial in results if trial.state.name != "COMPLETE")
    complete = [trial for trial in results if trial.state.name == "COMPLETE"]
    assert len({str(trial.params) for trial in complete}) == 7
    assert len({trial.user_attrs["worker"]["pid"] for trial in complete}) == count
    parent, children = runs()
    assert parent.info.status == "FINISHED"
    assert len(children) == 7
    assert "secret-word" not in "".join(printed) + str(parent.data.tags)
