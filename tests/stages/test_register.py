"""The register stage: a version per model, whenever an earlier attempt was killed."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pytest
import requests
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from tests.support.onnx_files import draw_answers, write_linear, write_reader
from tests.support.paths import ROOT

from emotion_detection.commands.sync import sync
from emotion_detection.data import dataset
from emotion_detection.data.dataset import Faces
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import ModelError, StoreError
from emotion_detection.evaluation import acceptance
from emotion_detection.experiments import delivery, outages, promotion, registry, runs
from emotion_detection.experiments import journal as journal_files
from emotion_detection.experiments.journal import journal_of, journals
from emotion_detection.inference import pretrained
from emotion_detection.stages import register as register_stage
from emotion_detection.stages.register import Candidate, RegisterPaths, register, version_tags

NAME = "emotion-detection-sample"
SCORES = {"val_accuracy": 0.6, "val_macro_f1": 0.5, "test_accuracy": 0.61, "test_macro_f1": 0.51}
FILES = ("params.yaml", "faces.npz", "data.json", "model", "report", "out.json")
ROWS = 420  # faces in val, 60 of each emotion
TRUTH = np.arange(ROWS) % 7
# The answers of models on val: model r of `write_reader` is right for these faces.
HOLDER, WORSE, LUCKY, BETTER, UNFAIR = range(5)
RIGHT = {
    HOLDER: np.arange(ROWS) % 10 < 7,
    WORSE: np.arange(ROWS) % 10 < 6,
    LUCKY: (np.arange(ROWS) % 10 < 7) & (np.arange(ROWS) % 40 > 0) | (np.arange(ROWS) % 30 == 9),
    BETTER: np.arange(ROWS) % 10 < 8,
    UNFAIR: ~np.isin(TRUTH, EMOTIONS.index("disgust")),
}

# Each child registers and is killed at one place; MLflow is imported once. The last one may finish.
KILLED_REGISTRATIONS = """
import os, sys
from importlib import import_module
import mlflow.pyfunc.scoring_server
from emotion_detection.stages.register import RegisterPaths, register
from pathlib import Path

def kill(*_, **__):
    os.kill(os.getpid(), 9)

for place in (*sys.argv[2:], ""):
    child = os.fork()
    if child == 0:
        if place:
            module, _, name = place.partition(":")
            owner = import_module(module)
            *parents, name = name.split(".")
            for parent in parents:
                owner = getattr(owner, parent)
            assert hasattr(owner, name), place
            setattr(owner, name, kill)
        register(RegisterPaths(*(Path(name) for name in sys.argv[1].split(","))))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(place, status, flush=True)
"""
PLACES = [
    "mlflow.pyfunc:save_model",  # the logged model is pending and empty
    "mlflow.tracking._tracking_service.client:TrackingServiceClient.finalize_logged_model",  # pending, with its files
    "mlflow:register_model",  # ready, without a version
    "emotion_detection.experiments.registry:_describe",  # just after the version exists
    "emotion_detection.experiments.promotion:promote_if",
    "emotion_detection.experiments.ledger:append",  # the history is there, and empty
    "emotion_detection.experiments.promotion:_apply",  # the move is entered, but not made
    "emotion_detection.experiments.ledger:mark_applied",  # the alias has moved
    "emotion_detection.stages.register:atomic_output",  # before the stage's own file
]


@pytest.fixture(autouse=True)
def _no_timing(monkeypatch):
    """The limit of the time for a face must not depend on what else the machine does."""
    monkeypatch.setattr(acceptance, "milliseconds", lambda *_: 3.0)


def draw_faces() -> Faces:
    """A val split that the models of RIGHT read."""
    answers = [np.where(right, TRUTH, (TRUTH + 1) % 7) for right in RIGHT.values()]
    val = np.full(ROWS, dataset.VAL, np.uint8)
    return Faces(draw_answers(answers), TRUTH.astype(np.uint8), val, np.zeros(ROWS, bool))


def write_files(folder: Path, *, seed: int = 1, reader: int | None = None, **scores: float) -> RegisterPaths:
    """The files of the earlier stages, and their run. `reader` is a model of RIGHT instead of a random one."""
    with runs.start_run(name="training") as run:
        run.log_scores(SCORES | scores, [{"val_macro_f1": 0.4}])
    for name in ("model", "report"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "params.yaml", folder)
    dataset.save(draw_faces(), folder / "faces.npz")
    if reader is None:
        write_linear(folder / "model" / "model.onnx", seed=seed)
    else:
        write_reader(folder / "model" / "model.onnx", row=reader)
    (folder / "data.json").write_text(json.dumps({"dataset": "sample", "digest": "1", "dvc_md5": "2"}))
    (folder / "model" / "run.json").write_text(json.dumps({"run_id": run.id}))
    (folder / "report" / "metrics.json").write_text(json.dumps(SCORES | scores))
    return RegisterPaths(*(folder / name for name in FILES))


def logged_models() -> list[mlflow.entities.LoggedModel]:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(runs.EXPERIMENT)
    return list(client.search_logged_models([experiment.experiment_id]))


@pytest.mark.usefixtures("store")
def test_registering_again_keeps_the_version(tmp_path, capsys):
    paths = write_files(tmp_path)
    register(paths)
    first = json.loads(paths.registered.read_text())
    assert (first["version"], first["promoted"]) == (1, True)
    register(paths)
    assert json.loads(paths.registered.read_text()) == first
    assert [version.number for version in registry.versions(NAME)] == [1]
    assert len(logged_models()) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"{NAME} version 1: champion, there was no champion before"
    assert len(promotion.history(NAME)) == 1


@pytest.mark.usefixtures("store")
def test_other_model_or_other_run_is_a_new_version(tmp_path):
    for seed in (1, 2):
        register(write_files(tmp_path, seed=seed))
    register(write_files(tmp_path, seed=2))  # another run with the same file
    assert [version.number for version in registry.versions(NAME)] == [3, 2, 1]


@pytest.mark.usefixtures("store")
def test_pages_of_version_and_model_show_the_score_that_chose_them(tmp_path):
    paths = write_files(tmp_path)
    register(paths)
    client = mlflow.MlflowClient()
    version = client.get_model_version(NAME, "1")
    assert "val_macro_f1 0.5000" in version.description
    assert "champion: version 1, val_macro_f1 0.5000" in client.get_registered_model(NAME).description
    (logged,) = logged_models()
    assert {metric.key: metric.value for metric in logged.metrics} == SCORES
    history = client.get_metric_history(version.run_id, "val_macro_f1")
    assert [metric.step for metric in history] == [2]  # no second point in the run
    requirements = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1")) / "requirements.txt"
    lines = requirements.read_text().split()
    assert [line.partition("==")[0] for line in lines] == ["mlflow", "numpy", "onnxruntime"]
    assert all(line.partition("==")[2] for line in lines)


@pytest.mark.usefixtures("store")
def test_changed_scores_of_the_same_model_are_updated(tmp_path):
    paths = write_files(tmp_path)
    register(paths)
    (paths.report / "metrics.json").write_text(json.dumps(SCORES | {"val_macro_f1": 0.7}))
    register(paths)
    (version,) = registry.versions(NAME)
    assert version.tags["val_macro_f1"] == "0.700000"


def registered(folder: Path, reader: int) -> dict[str, Any]:
    """The outcome of registering a model of RIGHT."""
    paths = write_files(folder, reader=reader)
    register(paths)
    return json.loads(paths.registered.read_text())


def evidence(version: int) -> dict[str, Any]:
    tags = registry.resolve(f"models:/{NAME}/{version}").tags
    assert len(tags["evidence"]) < 5000
    return promotion.parse_evidence(tags["evidence"])


def test_version_says_from_which_labels_its_model_learned():
    about = {"dataset": "fer2013", "digest": "0", "dvc_md5": "0"}
    recorded = {"label_source": "FER-2013 and FER+", "votes_digest": "12ab"}
    run: Any = SimpleNamespace(id="1", tags=recorded | {"host": "mine"})
    written = version_tags(about, SCORES, run)
    assert recorded.items() <= written.items()
    assert "host" not in written
    older: Any = SimpleNamespace(id="1", tags={})
    assert not recorded.keys() & version_tags(about, SCORES, older).keys()


@pytest.mark.usefixtures("store")
def test_worse_lucky_and_better_models_get_their_verdicts(tmp_path, capsys):
    assert registered(tmp_path, HOLDER)["promoted"]
    outcomes = [registered(tmp_path, reader) for reader in (WORSE, LUCKY, BETTER)]
    assert [outcome["promoted"] for outcome in outcomes] == [False, False, True]
    found = [evidence(outcome["version"]) for outcome in outcomes]
    assert [one["verdict"] for one in found] == ["worse", "undecided", "better"]
    assert [one["opponent"] for one in found] == [1, 1, 1]
    lucky = found[1]
    assert lucky["counts"] == {"both_right": 283, "only_base": 11, "only_head": 14, "both_wrong": 112}
    assert lucky["mcnemar_p"] == pytest.approx(0.55, abs=0.01)
    assert lucky["gains"]["accuracy"]["value"] == pytest.approx(3 / 420, abs=1e-6)
    line = capsys.readouterr().out.splitlines()[-2]
    start = f"{NAME} version 3: not champion, undecided against version 1: 3 more right of 420 (p = .55"
    assert line.startswith(start)
    assert line.endswith("; this val set shows gains from 3.3 points")
    assert registry.resolve(f"models:/{NAME}@champion").number == 4
    stored = mlflow.MlflowClient().get_run(outcomes[2]["run_id"])
    assert mlflow.artifacts.load_dict(f"{stored.info.artifact_uri}/evidence.json") == found[2]
    assert [entry.move.target for entry in promotion.history(NAME)] == [1, 4]


@pytest.fixture
def decide(tmp_path, params, monkeypatch):
    """A function that compares a model of RIGHT with HOLDER, under these settings of `register`."""
    opponent, model = write_reader(tmp_path / "opponent.onnx", row=HOLDER), tmp_path / "candidate.onnx"
    monkeypatch.setattr(registry, "fetch", lambda _: opponent)
    tags = {"dataset_digest": "1", "labels": ",".join(EMOTIONS)}
    now = datetime.now(timezone.utc)

    def compared(reader: int, *, holder_tags: dict[str, str] = tags, **settings: object) -> promotion.Decision:
        limits = params.register_.model_copy(update=settings)
        candidate = Candidate(
            write_reader(model, row=reader), tags, draw_faces(), params.model_copy(update={"register_": limits})
        )
        return candidate.decide(registry.Version(NAME, 1, ("champion",), None, holder_tags, now))

    return compared


def test_better_model_with_a_blind_spot_is_not_promoted(decide):
    decision = decide(UNFAIR, min_recall=0.2, max_ece=1)
    assert not decision.promotes
    assert decision.reason.startswith("better than version 1: ")
    assert decision.reason.endswith("but its recall of disgust is 0.0% (min_recall: 0.2)")
    assert decide(UNFAIR, min_recall=0, max_ece=1).promotes


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("max_ece", 0.01, "its calibration error is"),
        ("max_ms", 1e-6, "a face takes"),
        ("max_mb", 0.001, "its file has 0.1 MB"),
    ],
)
def test_better_model_beyond_a_limit_is_not_promoted(decide, setting, value, reason):
    decision = decide(BETTER, **{setting: value})
    assert not decision.promotes
    assert f"but {reason}" in decision.reason
    assert setting in decision.reason
    assert decision.evidence["verdict"] == "better"


def test_verdicts_promote_only_where_the_settings_say_so(decide):
    assert decide(BETTER).promotes
    assert not decide(BETTER, promote_on=()).promotes
    assert not decide(LUCKY, promote_on=("better", "not comparable")).promotes
    assert not decide(WORSE, promote_on=("better", "not comparable")).promotes


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"dataset_digest": "2", "labels": ",".join(EMOTIONS)}, "was trained on other data"),
        ({"dataset_digest": "1", "labels": "happy,sad"}, "has other labels"),
        ({}, "was trained on other data"),  # not recorded
    ],
)
def test_version_of_other_data_or_labels_is_not_comparable(decide, tags, why):
    decision = decide(BETTER, holder_tags=tags)
    assert (decision.promotes, decision.reason) == (False, f"not comparable with version 1, which {why}")
    assert decision.evidence["verdict"] == "not comparable"
    assert "mcnemar_p" not in decision.evidence
    assert decide(BETTER, holder_tags=tags, promote_on=("not comparable",)).promotes


def test_champion_whose_file_is_damaged_is_not_comparable(decide, monkeypatch):
    def refuse(_):
        raise ModelError("another file")

    monkeypatch.setattr(registry, "fetch", refuse)
    assert decide(BETTER).reason == "not comparable with version 1, which cannot be scored (another file)"


def test_champion_whose_file_cannot_be_read_stays(decide, monkeypatch):
    def fail(_):
        raise StoreError("no answer")

    monkeypatch.setattr(registry, "fetch", fail)
    decision = decide(BETTER, promote_on=("better", "not comparable"))
    assert not decision.promotes
    assert decision.reason.startswith("the champion cannot be read (no answer): ")
    assert decision.evidence["verdict"] == "not compared"


@pytest.fixture
def dead_store(store, monkeypatch):
    """A function that makes the store dead, or healthy again with True. It keeps its address."""
    calls = mlflow.MlflowClient.search_experiments

    def refuse(*_, **__):
        raise requests.ConnectionError("Connection refused")

    def switch(healthy=False):
        monkeypatch.setattr(mlflow.MlflowClient, "search_experiments", calls if healthy else refuse)

    monkeypatch.setattr(outages, "REMOTE", ("sqlite",))
    monkeypatch.setattr(runs, "connect", lambda: None)
    monkeypatch.setattr(delivery, "connect", lambda: None)
    outages.limit_requests()
    mlflow.set_tracking_uri(store)
    mlflow.set_registry_uri(store)
    return switch


def test_dead_store_registers_the_model_later_and_once(tmp_path, dead_store, capsys):
    paths = write_files(tmp_path)
    dead_store()
    register(paths)
    waiting = json.loads(paths.registered.read_text())
    assert (waiting["version"], waiting["promoted"]) == (None, False)
    assert waiting["reason"] == "not registered yet: MLflow does not respond (it refuses connections)"
    assert capsys.readouterr().out == f"{NAME}: not registered yet\n"
    write_files(tmp_path / "later", seed=2)  # another training meanwhile
    for path in (paths.model, paths.report):
        shutil.rmtree(path)
    dead_store(healthy=True)
    for expected in (f"{NAME} version 1: champion, there was no champion before", "nothing waits for this store"):
        sync()
        assert capsys.readouterr().out.splitlines()[-1] == expected
    assert [version.number for version in registry.versions(NAME)] == [1]
    done = json.loads(paths.registered.read_text())
    assert (done["version"], done["promoted"], done["run_id"]) == (1, True, waiting["run_id"])
    assert not journals()


@pytest.mark.usefixtures("store")
def test_unfinished_model_that_may_not_be_deleted_is_left(tmp_path, monkeypatch):
    def kill(*_, **__):
        raise KeyboardInterrupt

    def forbid(*_):
        raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)

    paths = write_files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.tracking._tracking_service.client.TrackingServiceClient, "finalize_logged_model", kill)
        with pytest.raises(KeyboardInterrupt):
            register(paths)
    monkeypatch.setattr(mlflow.MlflowClient, "delete_logged_model", forbid)
    register(paths)
    assert [version.number for version in registry.versions(NAME)] == [1]
    assert len(logged_models()) == 2


def test_damaged_registration_does_not_stop_the_others(tmp_path, dead_store, capsys):
    dead_store()
    register(write_files(tmp_path))
    (journal,) = journals()
    damaged = replace(journal, folder=journal.folder.with_name("1" * 32))
    damaged.begin(1)  # older
    shutil.copytree(journal.registration, damaged.registration)
    (damaged.registration / "params.yaml").write_text("register: {old_setting: 1}")
    dead_store(healthy=True)
    with pytest.raises(StoreError, match="1 of 2 runs still wait"):
        sync()
    assert f"the model of the run {damaged.run_id} is not registered: " in capsys.readouterr().out
    assert [version.number for version in registry.versions(NAME)] == [1]
    assert [one.run_id for one in journals()] == [damaged.run_id]


def test_model_is_kept_beside_a_journal_that_is_delivered(tmp_path, dead_store, monkeypatch):
    monkeypatch.setattr(journal_files, "WAIT_S", 0)
    paths = write_files(tmp_path)
    dead_store()
    run_id = json.loads((paths.model / "run.json").read_text())["run_id"]
    with journal_of(run_id).lock(), ThreadPoolExecutor(1) as pool:
        pool.submit(register, paths).result()
    dead_store(healthy=True)
    sync()
    assert json.loads(paths.registered.read_text())["version"] == 1
    assert not journals()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["promote_if", "_forget"])
def test_killed_registration_of_a_sync_is_completed_once(tmp_path, dead_store, monkeypatch, place):
    paths = write_files(tmp_path)
    dead_store()
    register(paths)
    dead_store(healthy=True)

    def kill(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(promotion if place == "promote_if" else register_stage, place, kill)
        with pytest.raises(KeyboardInterrupt):
            sync()
    sync()
    assert [version.number for version in registry.versions(NAME)] == [1]
    assert len(promotion.history(NAME)) == 1
    assert json.loads(paths.registered.read_text())["version"] == 1
    assert not journals()


@pytest.mark.usefixtures("dead_store")
def test_store_that_dies_while_the_stage_registers_gets_one_version(tmp_path, monkeypatch):
    paths = write_files(tmp_path)

    def fail(*_, **__):
        raise outages.OutageError("", "it does not answer in time")

    with monkeypatch.context() as patch:
        patch.setattr(promotion, "promote_if", fail)
        register(paths)
    assert json.loads(paths.registered.read_text())["version"] is None
    register(paths)  # as `make repro` does it
    assert json.loads(paths.registered.read_text())["version"] == 1
    assert not journals()
    assert [version.number for version in registry.versions(NAME)] == [1]


def test_champion_of_a_dead_store_is_no_reason_to_decide(decide, monkeypatch):
    def fail(_):
        raise outages.OutageError("", "it does not answer in time")

    monkeypatch.setattr(registry, "fetch", fail)
    with pytest.raises(outages.OutageError):
        decide(BETTER)


@pytest.mark.usefixtures("store")
def test_rolled_back_model_is_not_promoted_again(tmp_path):
    registered(tmp_path, HOLDER)
    assert registered(tmp_path, BETTER)["promoted"]
    promotion.rollback(NAME, alias="champion", reason="test")
    again = registered(tmp_path, BETTER)  # another run with the same file
    assert (again["version"], again["promoted"]) == (3, False)
    assert again["reason"].startswith("version 2, which has the same file, was rolled back: ")


@pytest.mark.usefixtures("store")
def test_first_opponent_of_a_model_for_fer2013_is_the_shipped_one(tmp_path, monkeypatch):
    paths = write_files(tmp_path, reader=BETTER)
    digest = json.loads((pretrained.FOLDER / "run.json").read_text())["dataset_digest"]
    paths.data_report.write_text(json.dumps({"dataset": "fer2013", "digest": digest, "dvc_md5": "2"}))
    run_id = json.loads((paths.model / "run.json").read_text())["run_id"]
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)  # as under `mlflow run`
    register(paths)
    outcome = json.loads(paths.registered.read_text())
    assert (outcome["name"], outcome["version"], outcome["run_id"]) == ("emotion-detection", 2, run_id)
    assert outcome["reason"].startswith("better than version 1: ")
    seed, move = promotion.history("emotion-detection")
    assert (seed.move.kind, seed.move.target, move.move.source) == ("seed", 1, 1)
    assert registry.resolve("models:/emotion-detection/1").run_id != run_id


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_killed_registration_is_completed_once(tmp_path):
    write_files(tmp_path)
    command = [sys.executable, "-c", KILLED_REGISTRATIONS, ",".join(FILES), *PLACES]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    ends = [
        line.split()[-1]
        for line in result.stdout.splitlines()
        if line.startswith(("mlflow", "emotion")) or not line.strip("0 ")
    ]
    assert ends[: len(PLACES)] == ["9"] * len(PLACES), result.stdout + result.stderr
    assert json.loads((tmp_path / "out.json").read_text())["version"] == 1
    (version,) = registry.versions(NAME)
    assert version.aliases == ("champion",)
    (logged,) = logged_models()
    assert logged.status == LoggedModelStatus.READY
    assert [path.name for path in (tmp_path / "mlruns" / "models").iterdir() if any(path.rglob("*"))] == [
        logged.model_id
    ]
    assert mlflow.MlflowClient().get_run(version.run_id).info.status == "FINISHED"


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_two_registrations_at_once_make_one_version(tmp_path):
    write_files(tmp_path)
    code = KILLED_REGISTRATIONS.replace('for place in (*sys.argv[2:], "")', 'for place in [""]')
    command = [sys.executable, "-c", code, ",".join(FILES)]
    processes = [subprocess.Popen(command, cwd=tmp_path) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(registry.versions(NAME)) == len(logged_models()) == 1
