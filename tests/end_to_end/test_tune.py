"""The search as people run it: the command, its workers, MLflow, kills, databases, mistakes."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import optuna
import psutil
import pytest
import yaml
from optuna.trial import FrozenTrial
from tests.support import postgres
from tests.support.paths import ROOT

from emotion_detection.commands import tune
from emotion_detection.data.dataset import digest, save

TINY = {"widths": [4], "blocks": [1], "batch_size": 2, "architecture": "fer_resnet", "precision": "float32"}
SPACE = {
    "learning_rate": {"low": 0.01, "high": 0.1, "log": True},
    "dropout": {"low": 0.0, "high": 0.5, "log": False},
    "widths": {"choices": [[4], [6]]},
}
# Epochs of a trial that is still at work when somebody looks for it, a dozen or two a second on idle cores.
BUSY = 60
LONG = 1000  # and of one that nobody waits for
PATIENCE_S = 400
FIGURES = {f"{name}.png" for name in ("history", "curves", "timeline", "parallel", "importances", "slices")}


@pytest.fixture
def project(store, tmp_path, drawn) -> Path:
    """A folder with a handful of prepared faces and small params."""
    assert str(tmp_path) in store
    save(drawn, tmp_path / "faces.npz")
    (tmp_path / "report.json").write_text(json.dumps({"dataset": "drawn", "digest": digest(drawn)}))
    (tmp_path / "recipes").mkdir()
    configure(tmp_path)
    return tmp_path


def configure(folder: Path, **changes: Any) -> None:
    """Write params.yaml with some changes of the section tune."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["train"] |= TINY
    tree["tune"] |= {"trials": 3, "epochs": 2, "pruner": None, "space": SPACE} | changes
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))


def arguments(folder: Path, *more: str) -> list[str]:
    named = {"params": "params.yaml", "faces": "faces.npz", "data-report": "report.json", "recipes": "recipes"}
    words = [word for flag, name in named.items() for word in (f"--{flag}", str(folder / name))]
    return [*words, "--out", str(folder / "tuning"), *more]


def begin(folder: Path, *more: str) -> psutil.Popen:
    """The command, in a process group of its own."""
    command = [sys.executable, "-m", "emotion_detection", "tune", *arguments(folder, *more)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    # Where the suite runs in the background Ctrl-C is ignored, and the command would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return psutil.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def search(folder: Path, *more: str, status: int = 0) -> str:
    """Run the command to its end; what it printed."""
    process = begin(folder, *more)
    printed, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == status, printed
    return printed


def until(true: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def trials(folder: Path, storage: str = "", study: str = "drawn") -> list[FrozenTrial]:
    try:
        return optuna.load_study(
            storage=storage or f"sqlite:///{folder / 'tuning' / 'study.db'}", study_name=study
        ).trials
    except Exception:  # the command has not made it yet
        return []


def states(found: list[FrozenTrial]) -> Counter[str]:
    return Counter(trial.state.name for trial in found)


def at_work(folder: Path) -> list[FrozenTrial]:
    """Trials that have reported an epoch and are not done."""
    return [trial for trial in trials(folder) if trial.state.name == "RUNNING" and trial.intermediate_values]


def runs() -> tuple[Any, list[Any]]:
    """The parent's MLflow run, and its children's."""
    client = mlflow.MlflowClient()
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    (parent,) = (run for run in found if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(found) - 1
    return parent, children


def kill(*processes: psutil.Process) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # a worker may have noticed that the one that began it is gone
            process.kill()
            process.wait()


def test_a_search_leaves_runs_figures_and_a_recipe(project):
    configure(project, trials=3)
    printed = search(project)
    found = trials(project)
    assert states(found) == {"COMPLETE": 3}
    parent, children = runs()
    assert parent.info.status == "FINISHED"
    assert parent.data.params["tune.space.dropout.high"] == "0.5"
    assert {run.info.status for run in children} == {"FINISHED"}
    assert {run.data.tags["trial_state"] for run in children} == {"COMPLETE"}
    client = mlflow.MlflowClient()
    for run in children:
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, "val_macro_f1")] == [1, 2]
    best = max(found, key=lambda trial: trial.values[0])
    assert parent.data.metrics["best_val_macro_f1"] == pytest.approx(best.values[0])
    assert {path.name for path in (project / "tuning").glob("*.png")} == FIGURES
    logged = {Path(file.path).name for file in client.list_artifacts(parent.info.run_id, "tuning")}
    assert logged == FIGURES | {"best.yaml"}
    assert f"best: {best.values[0]:.3f}" in printed
    # The recipe is what make adopt takes, and holds what the best trial was trained with.
    (project / "params.yaml").write_text(
        (project / "params.yaml").read_text().replace("learning_rate: 0.1\n", "learning_rate: 0.7\n")
    )
    adopt = [sys.executable, "-m", "emotion_detection", "adopt", "tuning/best.yaml", "--params", "params.yaml"]
    subprocess.run(adopt, check=True, cwd=project, env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
    train = yaml.safe_load((project / "params.yaml").read_text())["train"]
    (run,) = (run for run in children if run.info.run_id == best.user_attrs["run_id"])
    adopted = {key: str(tuple(value) if isinstance(value := train[key], list) else value) for key in SPACE}
    assert adopted == {key: run.data.params[f"train.{key}"] for key in SPACE}

    # Once more, there is nothing to do; with more trials asked for, only these are run.
    assert "has its 3 trials" in search(project)
    configure(project, trials=4)
    search(project)
    assert [trial.params for trial in trials(project)[:3]] == [trial.params for trial in found]
    assert states(trials(project)) == {"COMPLETE": 4}
    assert len(runs()[1]) == 4


def test_the_same_seed_gives_the_same_trials_however_often_it_is_interrupted(project):
    def drawn_by(study: str, *counts: int) -> list[dict[str, Any]]:
        for count in counts:
            configure(project, trials=count, seed=3)
            search(project, "--study", study)
        return [trial.params for trial in trials(project, study=study)]

    whole = drawn_by("whole", 7)  # beyond the trials that are drawn at random
    assert drawn_by("broken", 2, 6, 7) == whole
    assert len({str(params) for params in whole}) == 7


def test_known_settings_come_first(project):
    (project / "recipes" / "good.yaml").write_text("train:\n  dropout: 0.11\n  widths: [6]\n")
    (project / "recipes" / "far.yaml").write_text("train:\n  learning_rate: 5.0\n")
    search(project)
    base, good, third = trials(project)
    committed = yaml.safe_load((project / "params.yaml").read_text())["train"]
    assert base.params == {"learning_rate": 0.1, "dropout": committed["dropout"], "widths": "[4]"}
    assert good.params == {"learning_rate": 0.1, "dropout": 0.11, "widths": "[6]"}
    assert third.params["learning_rate"] != 0.1


def test_hopeless_trials_are_pruned_and_say_so(project):
    configure(project, trials=6, epochs=9, pruner="halving")
    search(project, "--workers", "2")
    found = trials(project)
    assert sum(states(found).values()) == 6
    assert states(found)["PRUNED"] >= 1
    # Nothing is given up after its last epoch: it has a value then.
    assert max(len(trial.intermediate_values) for trial in found if trial.state.name == "PRUNED") < 9
    _, children = runs()
    assert {run.info.status for run in children} == {"FINISHED"}
    assert Counter(run.data.tags["trial_state"] for run in children) == states(found)


def test_a_killed_worker_costs_no_trial(project):
    configure(project, trials=2, epochs=LONG)
    command = begin(project, "--workers", "2")
    until(lambda: len(at_work(project)) == 2, "two workers at work")
    victim = at_work(project)[0]
    configure(project, trials=2, epochs=LONG)
    psutil.Process(victim.user_attrs["worker"]["pid"]).kill()
    until(lambda: states(trials(project))["FAIL"] == 1, "the killed trial to be noticed")
    again = [trial for trial in trials(project) if trial.system_attrs.get("failed_trial") == victim.number]
    assert [trial.params for trial in again] == [victim.params]
    stop(project, command)


def stop(project: Path, command: psutil.Popen) -> None:
    """Ctrl-C twice, and then all is over at once."""
    for _ in range(2):
        command.send_signal(signal.SIGINT)
        time.sleep(2)
    printed, _ = command.communicate(timeout=PATIENCE_S)
    assert command.returncode == 130, printed
    assert "finishing the running trials" in printed
    assert "RUNNING" not in states(trials(project))
    assert {run.info.status for run in runs()[1]} <= {"FINISHED", "KILLED", "FAILED"}


@pytest.mark.parametrize("killed", ["a worker", "all"])
def test_after_a_kill_the_count_is_exact_and_every_run_has_an_end(project, killed):
    configure(project, trials=3, epochs=BUSY)
    command = begin(project, "--workers", "2")
    until(lambda: len(at_work(project)) == 2, "two workers at work")
    victims = at_work(project)
    workers = [psutil.Process(trial.user_attrs["worker"]["pid"]) for trial in victims]
    if killed == "all":
        kill(psutil.Process(command.pid), *workers)
        search(project, "--workers", "2")
    else:
        workers[0].kill()
        command.communicate(timeout=PATIENCE_S)
    found = trials(project)
    lost = {trial.number: trial for trial in found if trial.state.name == "FAIL"}
    assert states(found) == {"COMPLETE": 3, "FAIL": len(lost)}
    assert len(lost) == (2 if killed == "all" else 1)
    again = {trial.system_attrs["failed_trial"]: trial for trial in found if "failed_trial" in trial.system_attrs}
    assert {number: trial.params for number, trial in again.items()} == {n: trial.params for n, trial in lost.items()}
    parent, children = runs()
    assert parent.info.status == "FINISHED"
    assert Counter(run.info.status for run in children) == {"FINISHED": 3, "KILLED": len(lost)}


def test_ctrl_c_ends_after_the_running_trial_and_the_same_command_goes_on(project):
    configure(project, trials=3, epochs=BUSY)
    command = begin(project)
    until(lambda: at_work(project), "a worker at work")
    command.send_signal(signal.SIGINT)
    printed, _ = command.communicate(timeout=PATIENCE_S)
    assert command.returncode == 0, printed
    assert "finishing the running trials" in printed
    done = states(trials(project))
    assert set(done) == {"COMPLETE"}
    assert done["COMPLETE"] < 3
    assert runs()[0].info.status == "FINISHED"
    search(project)
    assert states(trials(project)) == {"COMPLETE": 3}


def test_no_trial_begins_after_the_minutes_are_over(project):
    configure(project, trials=1000, epochs=BUSY, minutes=0.3)
    printed = search(project)
    assert "0.3 minutes are over" in printed
    done = states(trials(project))
    assert 1 <= done["COMPLETE"] < 1000
    assert set(done) == {"COMPLETE"}  # the running one was trained to its end


# Databases


@pytest.fixture
def database() -> Iterator[str]:
    with postgres.server() as address:
        yield address


@pytest.fixture
def proxy(database) -> Iterator[str]:
    """Optuna's gRPC proxy before a database, as a machine between the workers and the server."""
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


@pytest.mark.parametrize("storage", ["database", "proxy"])
def test_three_commands_at_once_on_an_empty_database(project, request, storage):
    address = request.getfixturevalue(storage)
    configure(project, trials=7, epochs=BUSY // 3)  # long enough for all to come before the last is done
    commands = []
    for number in range(3):
        shutil.copytree(project / "recipes", project / f"machine-{number}" / "recipes")
        commands.append(begin(project, "--storage", address, "--out", str(project / f"machine-{number}" / "tuning")))
    printed = [command.communicate(timeout=PATIENCE_S)[0] for command in commands]
    assert [command.returncode for command in commands] == [0, 0, 0], "\n".join(printed)
    found = trials(project, request.getfixturevalue("database").replace("postgresql", "postgresql+psycopg"))
    assert states(found)["COMPLETE"] == 7
    assert set(states(found)) <= {"COMPLETE", "FAIL"}
    # One that came too late, in the same moment as another, is told and not run.
    complete = [trial for trial in found if trial.state.name == "COMPLETE"]
    assert all(not trial.intermediate_values for trial in found if trial.state.name == "FAIL")
    assert len({str(trial.params) for trial in complete}) == 7
    assert len({trial.user_attrs["worker"]["pid"] for trial in complete}) == 3
    parent, children = runs()
    assert parent.info.status == "FINISHED"
    assert len(children) == 7
    assert "secret-word" not in "".join(printed) + str(parent.data.tags)


# Mistakes


def refused(project: Path, *more: str) -> str:
    before = {path.name for path in project.iterdir()}
    printed = search(project, *more, status=1)
    assert {path.name for path in project.iterdir()} <= before | {"tuning"}
    assert printed.startswith("error: ")
    assert len(printed.strip().splitlines()) == 1, printed
    return printed


def test_a_space_that_names_no_setting_is_refused(project):
    configure(project, space={"learning_rat": {"low": 0.1, "high": 0.2, "log": True}})
    assert "tune.space.learning_rat names no setting of train" in refused(project)


def test_a_study_of_another_space_is_not_joined(project):
    configure(project, trials=1)
    search(project)
    configure(project, trials=2, space={"dropout": {"low": 0.0, "high": 0.2, "log": False}})
    assert "the study drawn searches something else (its space differs): name another" in refused(project)
    assert states(trials(project)) == {"COMPLETE": 1}


@pytest.mark.parametrize(
    ("storage", "named"),
    [
        ("postgresql://somebody:secret-word@127.0.0.1:9/nowhere", "postgresql://somebody:***@127.0.0.1:9"),
        ("grpc://127.0.0.1:9", "grpc://127.0.0.1:9"),
        ("sqlite:////nowhere/at/all/study.db", "/nowhere/at/all/study.db"),
        ("mango://127.0.0.1", "mango"),
        ("just words", "just words"),
    ],
)
def test_a_storage_that_cannot_be_used_is_named_without_its_password(project, storage, named):
    printed = refused(project, "--storage", storage)
    assert named in printed
    assert "secret-word" not in printed


def test_a_folder_that_cannot_be_made_is_named(project):
    (project / "tuning").write_text("a file")
    assert "tuning cannot be made" in refused(project)


def test_a_result_that_cannot_be_written_costs_no_trial(project):
    configure(project, trials=1)
    (project / "tuning" / "best.yaml" / "in the way").mkdir(parents=True)
    printed = search(project, status=1)
    assert "best.yaml cannot be written" in printed
    assert "no trial is lost" in printed
    shutil.rmtree(project / "tuning" / "best.yaml")
    search(project)
    assert (project / "tuning" / "best.yaml").is_file()
    assert states(trials(project)) == {"COMPLETE": 1}


@pytest.mark.parametrize(
    ("text", "told"), [("train: [", "is no YAML"), ("", "holds no section"), ("train:\n", "holds no section")]
)
def test_a_recipe_that_is_none_is_named(project, text, told):
    (project / "recipes" / "broken.yaml").write_text(text)
    assert f"broken.yaml {told}" in refused(project)


def test_what_is_not_prepared_yet_is_asked_for(project):
    (project / "report.json").unlink()
    assert "`dvc repro prepare` makes" in refused(project)


def test_nobody_to_do_the_work(project):
    assert "--workers 0" in refused(project, "--workers", "0")


def test_faces_that_cannot_be_read_leave_a_study_that_goes_on(project):
    (project / "faces.npz").rename(project / "elsewhere.npz")
    printed = search(project, status=1)
    assert "0 of 3 trials are finished and no worker is left" in printed
    assert "faces.npz" in printed
    (project / "elsewhere.npz").rename(project / "faces.npz")
    search(project)
    assert states(trials(project)) == {"COMPLETE": 3}


def test_what_mlflow_missed_is_told_to_it_at_the_end(project):
    search(project)
    parent, children = runs()
    client = mlflow.MlflowClient()
    open_still, without_end, deleted = (run.info.run_id for run in children)
    client.update_run(open_still, status="RUNNING")
    client.update_run(without_end, status="FAILED")
    client.delete_tag(without_end, "trial_state")
    with sqlite3.connect(os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")) as store:
        store.execute("DELETE FROM metrics WHERE run_uuid = ? AND step = 2", [without_end])
    client.delete_run(deleted)
    study = optuna.load_study(storage=f"sqlite:///{project / 'tuning' / 'study.db'}", study_name="drawn")
    tune.reconcile(study)
    for run_id in (open_still, without_end):
        run = client.get_run(run_id)
        assert (run.info.status, run.data.tags["trial_state"]) == ("FINISHED", "COMPLETE")
        assert [metric.step for metric in client.get_metric_history(run_id, "val_macro_f1")] == [1, 2]

    # Without its own run, a study gets another one, and goes on.
    client.delete_run(parent.info.run_id)
    for run_id in (open_still, without_end):
        client.delete_run(run_id)
    configure(project, trials=4)
    assert "does not know the study's run" in search(project)
    again, (child,) = runs()
    assert again.info.run_id != parent.info.run_id
    assert child.data.tags["trial_state"] == "COMPLETE"
