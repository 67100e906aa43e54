"""Runs and the registry, asked of MLflow itself: states, gaps, versions, aliases."""

import os
import socket
import subprocess
import sys

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from tests.support.onnx_files import write_linear
from tests.support.paths import ROOT

from emotion_detection.errors import InputError
from emotion_detection.experiments.registry import challenge, register
from emotion_detection.experiments.runs import EXPERIMENT, run, store_uri
from emotion_detection.inference.classifier import EmotionClassifier

HISTORY = [
    {"epoch": epoch, "loss": 1 / epoch, "val_loss": 2 / epoch, "val_macro_f1": 0.1 * epoch} for epoch in (1, 2, 3)
]


def stored(run_id):
    """The run as the store has it."""
    return mlflow.MlflowClient().get_run(run_id)


def steps(run_id, metric="val_loss"):
    return [point.step for point in mlflow.MlflowClient().get_metric_history(run_id, metric)]


def runs_in_store():
    client = mlflow.MlflowClient()
    return client.search_runs([one.experiment_id for one in client.search_experiments()])


class Absent:
    """Makes the store fail as an absent server does, when and as long as it is told."""

    def __init__(self, monkeypatch):
        self._log, self.away = mlflow.log_metrics, False
        monkeypatch.setattr(mlflow, "log_metrics", self)

    def __call__(self, *arguments, **settings):
        if self.away:
            raise MlflowException("Connection\nrefused")
        return self._log(*arguments, **settings)


@pytest.fixture
def absent(store, monkeypatch):  # noqa: ARG001
    return Absent(monkeypatch)


@pytest.mark.usefixtures("store")
def test_a_run_ends_finished_with_its_name_and_tags():
    with run(name="first try", tags={"dataset": "sample"}) as opened:
        assert stored(opened.id).info.status == "RUNNING"
    info, data = stored(opened.id).info, stored(opened.id).data
    assert (info.status, info.run_name, data.tags["dataset"]) == ("FINISHED", "first try", "sample")
    assert mlflow.MlflowClient().get_experiment(info.experiment_id).name == "emotion-detection"
    assert mlflow.active_run() is None


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "FAILED"), (InputError, "FAILED"), (SystemExit, "FAILED"), (KeyboardInterrupt, "KILLED")],
)
def test_a_run_tells_how_it_ended(error, status):
    with pytest.raises(error), run() as opened:
        raise error
    assert stored(opened.id).info.status == status
    assert mlflow.active_run() is None


@pytest.mark.usefixtures("store")
def test_the_first_error_is_shown_though_the_store_fails_too(monkeypatch):
    def refuse(*_):
        raise MlflowException("gone")

    def fail_twice():
        with run():
            patch.setattr(mlflow, "end_run", refuse)
            raise ValueError("the cause")

    with monkeypatch.context() as patch, pytest.raises(ValueError, match="the cause"):
        fail_twice()


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("end", [None, ValueError, KeyboardInterrupt])
def test_a_resumed_run_is_the_same_run(end):
    try:
        with run(tags={"first": "yes"}) as first:
            first.log_epoch(HISTORY[0])
            if end:
                raise end
    except (ValueError, KeyboardInterrupt):
        pass
    with run(first.id, name="again", tags={"second": "yes"}) as second:
        assert second.id == first.id
        assert stored(first.id).info.status == "RUNNING"
        second.log_epoch(HISTORY[1])
    ended = stored(first.id)
    assert ended.info.status == "FINISHED"
    assert (ended.data.tags["first"], ended.data.tags["second"]) == ("yes", "yes")
    assert steps(first.id) == [1, 2]
    assert len(runs_in_store()) == 1


@pytest.mark.usefixtures("store")
def test_an_unknown_run_is_refused():
    with pytest.raises(InputError, match=r"has no run 0+: type `dvc repro --force train`"), run("0" * 32):
        pass


NEW_RUN = "from emotion_detection.experiments.runs import run\nwith run(name='one of two'): pass"


def test_two_processes_may_make_the_store_at_once(tmp_path):
    (tmp_path / "dvc.yaml").touch()
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}
    command = [sys.executable, "-c", NEW_RUN]
    both = [subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert "Error" not in process.communicate()[1]
        assert process.returncode == 0
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FINISHED"] * 2


@pytest.mark.usefixtures("store")
def test_runs_share_one_experiment_whose_artifacts_lie_beside_the_store(tmp_path):
    (tmp_path / "report.txt").write_text("1")
    for _ in range(2):
        with run() as opened:
            opened.log_file(tmp_path / "report.txt", "data")
    first, second = runs_in_store()
    assert first.info.experiment_id == second.info.experiment_id
    assert (tmp_path / "mlruns" / opened.id / "artifacts" / "data" / "report.txt").read_text() == "1"


@pytest.mark.usefixtures("store")
def test_mlflow_run_id_is_attached_to_and_an_explicit_one_comes_first(monkeypatch):
    with run() as waiting:
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", waiting.id)
    with run() as opened:
        assert opened.id == waiting.id
    with run() as other:
        pass
    assert other.id != waiting.id
    monkeypatch.setenv("MLFLOW_RUN_ID", waiting.id)
    with run(other.id) as opened:
        assert opened.id == other.id


@pytest.mark.usefixtures("store")
def test_params_are_flattened():
    with run() as opened:
        opened.log_params({"train": {"epochs": 3, "augment": {"scale": (0.9, 1.1), "flip": True}}, "seed": 1})
        opened.log_params({"seed": 1})  # a resumed run tells them again
    assert stored(opened.id).data.params == {
        "train.epochs": "3",
        "train.augment.scale": "(0.9, 1.1)",
        "train.augment.flip": "True",
        "seed": "1",
    }


@pytest.mark.usefixtures("store")
def test_the_committed_params_can_be_logged_whole(params):
    with run() as opened:
        opened.log_params(params.model_dump(include={"prepare", "train"}))
    logged = stored(opened.id).data.params
    assert logged["train.augment.flip"] == str(params.train.augment.flip)
    sections = (params.train.augment, params.train.distillation)
    leaves = len(type(params.train).model_fields) - len(sections) + sum(len(type(one).model_fields) for one in sections)
    assert len(logged) == 2 + leaves


@pytest.mark.usefixtures("store")
def test_other_params_of_the_same_run_are_refused():
    with run() as opened:
        opened.log_params({"seed": 1})
        with pytest.raises(InputError, match="refused"):
            opened.log_params({"seed": 2})


@pytest.mark.usefixtures("store")
def test_epochs_are_logged_at_their_steps():
    with run() as opened:
        for row in HISTORY:
            opened.log_epoch(row)
        opened.log_scores({"test_accuracy": 0.5, "val_macro_f1": 0.2}, HISTORY)
        opened.log_missing(HISTORY)  # scores are no epoch
    for metric in ("loss", "val_loss", "val_macro_f1"):
        points = mlflow.MlflowClient().get_metric_history(opened.id, metric)
        assert [(point.step, point.value) for point in points][:3] == [(row["epoch"], row[metric]) for row in HISTORY]
    shown = stored(opened.id).data.metrics
    assert "epoch" not in shown
    assert (shown["test_accuracy"], shown["val_macro_f1"], shown["val_loss"]) == (0.5, 0.2, HISTORY[2]["val_loss"])
    assert steps(opened.id, "val_macro_f1") == [1, 2, 3, 4]
    assert steps(opened.id, "test_accuracy") == [0]


def test_an_absent_store_does_not_stop_the_epochs_and_the_gap_is_mended(absent, capsys):
    with run() as opened:
        opened.log_epoch(HISTORY[0])
        absent.away = True
        opened.log_epoch(HISTORY[1])
        opened.log_epoch(HISTORY[2])
        absent.away = False
        assert steps(opened.id) == [1]
        opened.log_missing(HISTORY)
        opened.log_missing(HISTORY)  # nothing is left to mend: nothing twice
    assert steps(opened.id) == [1, 2, 3]
    assert steps(opened.id, "loss") == [1, 2, 3]
    assert capsys.readouterr().out.count("MLflow does not answer, training goes on without: Connection refused") == 1


def test_the_end_is_not_silent_about_an_absent_store(absent):
    absent.away = True
    with pytest.raises(InputError, match="type the same command again"), run() as opened:
        opened.log_missing(HISTORY)
    assert stored(opened.id).info.status == "FAILED"


@pytest.mark.usefixtures("store")
def test_faces_are_logged_by_digest_and_size_without_pictures(drawn, tmp_path):
    digests = []
    for split in ("train", "val"):
        part = drawn.of(split)
        with run() as opened:
            opened.log_faces((part.images, part.labels), name="sample", split=split, dvc_md5="123")
        (entry,) = stored(opened.id).inputs.dataset_inputs
        assert entry.dataset.name == f"sample-{split}"
        assert {"mlflow.data.context": split, "dvc_md5": "123"}.items() <= {t.key: t.value for t in entry.tags}.items()
        assert len(entry.dataset.profile) < 1000
        digests.append(entry.dataset.digest)
    assert digests[0] != digests[1]
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".npy", ".npz", ".png"}]


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No settings, and a working directory outside any project."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_store_is_found_from_any_folder_of_the_project(nowhere, monkeypatch):
    (nowhere / "dvc.yaml").touch()
    (nowhere / "src" / "deep").mkdir(parents=True)
    for folder in (nowhere, nowhere / "src" / "deep"):
        monkeypatch.chdir(folder)
        assert store_uri() == f"sqlite:///{nowhere.resolve() / 'mlflow.db'}"


@pytest.mark.usefixtures("nowhere")
def test_outside_every_project_it_is_that_of_the_code():
    assert store_uri() == f"sqlite:///{ROOT / 'mlflow.db'}"


def test_a_queued_experiment_is_led_back_to_the_project(nowhere, monkeypatch):
    (nowhere / "copy").mkdir()
    (nowhere / "copy" / "dvc.yaml").touch()
    monkeypatch.chdir(nowhere / "copy")
    monkeypatch.setenv("DVC_ROOT", str(nowhere / "project"))
    assert store_uri() == f"sqlite:///{nowhere.resolve() / 'project' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert store_uri() == "http://127.0.0.1:5000"


@pytest.mark.usefixtures("store")
def test_an_unreachable_server_is_told_after_three_tries(monkeypatch):
    from urllib3.util import connection

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tries = []

    def counted(address, *arguments, **settings):
        tries.append(address)
        return connect(address, *arguments, **settings)

    connect = connection.create_connection
    monkeypatch.setattr(connection, "create_connection", counted)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=f"127.0.0.1:{port} refused .* type the same command again") as error, run():
        pass
    assert "\n" not in str(error.value)
    assert tries == 3 * [("127.0.0.1", port)]  # MLflow's own 7 retries would take minutes


@pytest.fixture
def version(store, tmp_path):  # noqa: ARG001
    """Registers a linear model with these tags as the next version of `faces`; tells its number and its run."""
    example = np.random.default_rng(5).integers(0, 256, (2, 48, 48), dtype=np.uint8)

    def make(seed=0, **tags):
        path = write_linear(tmp_path / f"{seed}.onnx", seed=seed)
        probabilities = EmotionClassifier(path).probabilities(example)
        with run() as opened:
            number = register(path, "faces", example=example[..., None], probabilities=probabilities, tags=tags)
        return number, opened.id

    return make


def test_a_registered_version_has_its_tags_its_run_and_predicts_the_same(version, tmp_path):
    number, run_id = version(seed=3, dataset="sample", val_macro_f1="0.5")
    client = mlflow.MlflowClient()
    found = client.get_model_version("faces", str(number))
    assert (number, found.run_id) == (1, run_id)
    assert found.tags == {"dataset": "sample", "val_macro_f1": "0.5"}
    assert challenge("faces", number, alias="best", min_gain=0.0)[0]

    faces = np.random.default_rng(1).integers(0, 256, (5, 48, 48), dtype=np.uint8)
    loaded = mlflow.pyfunc.load_model("models:/faces@best")
    (probabilities,) = loaded.predict(faces[..., None]).values()
    expected = EmotionClassifier(tmp_path / "3.onnx").probabilities(faces)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    (given,) = loaded.metadata.get_input_schema().inputs
    assert (given.type, given.shape) == (np.uint8, (-1, 48, 48, 1))


def test_a_challenge_moves_the_alias_to_the_better_alone(version):
    def outcome(**tags):
        number, _ = version(**tags)
        promoted, reason = challenge("faces", number, alias="champion", min_gain=0.01)
        return promoted, reason, int(mlflow.MlflowClient().get_model_version_by_alias("faces", "champion").version)

    assert outcome(dataset="a", val_macro_f1="0.5") == (True, "there was none before", 1)
    assert outcome(dataset="a", val_macro_f1="0.4") == (False, "val_macro_f1 0.4000 does not beat 0.5000 by 0.01", 1)
    assert outcome(dataset="a", val_macro_f1="0.5")[::2] == (False, 1)
    assert outcome(dataset="a", val_macro_f1="0.505")[::2] == (False, 1)
    assert outcome(dataset="a", val_macro_f1="0.52") == (True, "val_macro_f1 0.5200 beats 0.5000 by 0.01", 5)
    other = "the present one learnt from a: scores do not compare"
    assert outcome(dataset="b", val_macro_f1="0.9") == (False, other, 5)
    assert outcome(dataset="a", val_macro_f1="0.515")[::2] == (False, 5)  # measured against the new holder


@pytest.mark.usefixtures("store")
def test_a_challenge_of_an_unknown_version_is_refused():
    with run(), pytest.raises(InputError, match="refused"):
        challenge("nobody", 1, alias="champion", min_gain=0.0)


def test_telemetry_is_off_before_mlflow_is_imported():
    program = """
from emotion_detection.experiments import runs
from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY
print(MLFLOW_DISABLE_TELEMETRY.get())
"""
    clean = {key: value for key, value in os.environ.items() if key != "MLFLOW_DISABLE_TELEMETRY"}
    for setting, expected in (({}, "True"), ({"MLFLOW_DISABLE_TELEMETRY": "false"}, "False")):
        told = subprocess.run([sys.executable, "-c", program], env=clean | setting, capture_output=True, text=True)
        assert told.stdout.strip() == expected, told.stderr
