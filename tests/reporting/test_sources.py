"""A reference is found as a revision, an experiment, a run, a version or the shipped model."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.support.results import probabilities, result_files

from emotion_detection.data.dataset import digest, save
from emotion_detection.errors import DataError, EmotionDetectionError, StoreError, UsageError
from emotion_detection.inference import pretrained
from emotion_detection.reporting.revisions import _params, find_revision
from emotion_detection.reporting.sources import find_faces, find_results, read_origin, with_predictions

PIPELINE = """\
stages:
  prepare: {cmd: "true", outs: [built/faces.npz, built/data_report.json]}
  train: {cmd: "true", params: [train], outs: [built/model]}
  evaluate: {cmd: "true", outs: [built/report]}
"""


@pytest.fixture
def run_id(store, tmp_path, drawn):  # noqa: ARG001
    """A run with all files, in a store of its own."""
    from emotion_detection.experiments import runs

    folder = write_results(tmp_path / "files", drawn, right=0.5)
    with runs.start_run(name="a training", tags={"git_commit": "c0ffee", "dataset_digest": digest(drawn)}) as run:
        run.log_params({"train": {"epochs": 2, "widths": (4, 6), "initial_weights": None}})
        run.log_folder(folder / "report", "report")
        run.log_file(folder / "model" / "history.csv")
        run.log_file(folder / "data_report.json", "data")
    return run.id


def write_results(folder: Path, faces, *, right: float, seed: int = 0) -> Path:
    """Write the files as the stages do."""
    places = {"history.csv": "model/history.csv", "data_report.json": "data_report.json"}
    for name, content in result_files(faces, right=right, seed=seed).items():
        path = folder / places.get(name, f"report/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def git(*arguments: str, folder: Path) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments], cwd=folder, check=True)


@pytest.fixture
def project(tmp_path, drawn, store, monkeypatch):  # noqa: ARG001
    """A repository whose first commit and whose experiment `wide` have results in DVC's cache."""
    from dvc.repo import Repo

    folder = tmp_path / "project"
    write_results(folder / "built", drawn, right=0.2)
    save(drawn, folder / "built" / "faces.npz")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text("train:\n  epochs: 2\n")
    (folder / ".gitignore").write_text("/built/\n")
    git("init", "-q", folder=folder)
    monkeypatch.chdir(folder)
    with Repo.init(str(folder)) as repo:
        repo.commit(force=True)
        git("add", "-A", folder=folder)
        git("commit", "-qm", "first", folder=folder)
        (folder / "params.yaml").write_text("train:\n  epochs: 3\n")
        write_results(folder / "built", drawn, right=0.9, seed=1)
        repo.commit(force=True)
        repo.experiments.save(name="wide", force=True)
    return folder


@pytest.mark.slow
def test_revision_experiment_and_working_tree(project, drawn):
    first, wide, workspace = (find_results(name, project) for name in ("HEAD", "wide", "workspace"))
    assert [one.missing for one in (first, wide, workspace)] == [[], [], []]
    assert [one.origin.kind for one in (first, wide, workspace)] == ["commit", "DVC experiment", "working tree"]
    assert (first.params, wide.params, workspace.params) == (
        {"train.epochs": 2},
        {"train.epochs": 3},
        {"train.epochs": 3},
    )
    assert first.digest == wide.digest == digest(drawn)
    assert first.metrics["val_accuracy"] < wide.metrics["val_accuracy"] == workspace.metrics["val_accuracy"]
    assert len(first.origin.commit) == 40 != first.origin.commit != wide.origin.commit
    local = find_faces(project)
    assert local is not None
    assert local.digest == first.digest


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["HEAD:dvc.yaml", "HEAD^{tree}", "HEAD:", "HEAD^{/", "^HEAD", "HEAD..HEAD", "HEAD^{blob}"]
)
def test_what_is_no_commit_is_unknown(project, name):
    assert find_revision(name, project) is None
    with pytest.raises(UsageError, match="was not found"):
        find_results(name, project)


@pytest.mark.slow
def test_tag_is_found_as_its_commit(project):
    git("tag", "-a", "v1", "-m", "v1", folder=project)
    assert find_revision("v1", project) == find_revision("HEAD", project)


@pytest.mark.parametrize("lock", ["[", "stages: []", "stages: {a: 3}", "stages: {a: {params: {p: [abc]}}}", "3", ""])
def test_settings_of_a_damaged_lock_are_not_recorded(lock):
    assert _params(lock) == {}


@pytest.mark.slow
def test_results_that_left_the_cache_are_named(project):
    for path in (project / ".dvc" / "cache").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(DataError, match="the results of HEAD are not in DVC's cache: get them with `dvc pull`"):
        find_results("HEAD", project)


@pytest.mark.slow
def test_revision_without_a_pipeline_is_refused(project):
    git("rm", "-q", "--cached", "dvc.yaml", folder=project)
    git("commit", "-qm", "second", folder=project)
    with pytest.raises(DataError, match="HEAD has no pipeline of this project"):
        find_results("HEAD", project)


@pytest.mark.slow
def test_run_is_found_by_its_id_or_its_start_or_its_name(run_id, tmp_path, drawn):
    for name in (run_id, run_id[:8], "a training"):
        found = find_results(name, tmp_path)
        assert found.missing == []
        assert (found.origin.kind, found.origin.name, found.origin.run_id) == ("run", "a training", run_id)
        assert found.origin.commit == "c0ffee"
        assert found.params == {"train.epochs": 2, "train.widths": [4, 6], "train.initial_weights": None}
        assert (found.predictions["val"].labels == drawn.of("val").labels).all()


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_seeded_champion_is_the_shipped_model(tmp_path):
    pretrained.seed_registry()
    champion, shipped = find_results(pretrained.CHAMPION, tmp_path), find_results("shipped", tmp_path)
    assert champion.origin.name == "emotion-detection version 1"
    assert champion.metrics == shipped.metrics
    assert champion.classes == shipped.classes
    assert champion.model == shipped.model == pretrained.MODEL
    assert champion.digest == shipped.digest
    assert champion.params["train.epochs"] == shipped.params["train.epochs"] == 0
    assert read_origin("models:/emotion-detection/1").origin.commit == shipped.origin.commit


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_metrics_of_a_run_without_files_are_used_if_they_are_finite(tmp_path):
    from emotion_detection.experiments import runs

    with runs.start_run(name="bare") as run:
        run.log_scores({"val_accuracy": 0.5, "test_accuracy": float("nan")}, [{}])
    found = find_results("bare", tmp_path)
    assert found.metrics["val_accuracy"] == 0.5
    assert "test_accuracy" not in found.metrics
    assert found.missing == ["predictions", "learning curves", "settings", "data report"]


@pytest.mark.usefixtures("store")
def test_version_without_its_run_has_the_scores_of_its_tags(tmp_path, monkeypatch):
    import mlflow
    from tests.support.versions import register_version

    from emotion_detection.experiments import recorded

    def lost(_: str) -> None:
        raise StoreError("the run was deleted")

    number = register_version()
    client = mlflow.MlflowClient()
    client.set_model_version_tag(pretrained.MODEL_NAME, str(number), "val_accuracy", "0.5")
    client.set_model_version_tag(pretrained.MODEL_NAME, str(number), "test_accuracy", "unknown")
    client.set_model_version_tag(pretrained.MODEL_NAME, str(number), "test_macro_f1", "nan")
    monkeypatch.setattr(recorded, "read_run", lost)
    uri = f"models:/{pretrained.MODEL_NAME}/{number}"
    for found in (find_results(uri, tmp_path), read_origin(uri)):
        assert found.metrics == {"val_accuracy": 0.5}
        assert found.predictions == {}


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    "name", ["nothing", "models:/nothing@champion", "models:/a/b/c", "", "-rf", "0" * 32, "a" * 5000, "\0"]
)
def test_unknown_reference_is_refused(name, tmp_path):
    with pytest.raises(EmotionDetectionError) as error:
        find_results(name, tmp_path)
    assert len(str(error.value)) < 1000


def test_shipped_model_reads_the_faces_of_its_own_data_set_only(drawn, monkeypatch):
    from emotion_detection.reporting import sources

    class Classifier:
        def __init__(self, _: Path) -> None: ...

        def probabilities(self, images: np.ndarray) -> np.ndarray:
            return probabilities(drawn[np.arange(len(images))], right=1, seed=0)

    monkeypatch.setattr(sources, "EmotionClassifier", Classifier)
    shipped = find_results("shipped", Path())
    assert with_predictions(shipped, None) is shipped
    assert with_predictions(shipped, sources.LocalFaces(drawn, digest(drawn))) is shipped
    found = with_predictions(shipped, sources.LocalFaces(drawn, shipped.digest))
    assert {split: len(one.labels) for split, one in found.predictions.items()} == {"val": 7, "test": 7}


def test_missing_or_damaged_faces_are_no_error(tmp_path):
    assert find_faces(tmp_path) is None
    for content in (b"stages: {}", b"[", b"\xff", b"stages: {train: {outs: [built/model]}}"):
        (tmp_path / "dvc.yaml").write_bytes(content)
        assert find_faces(tmp_path) is None
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    assert find_faces(tmp_path) is None
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "faces.npz").write_text("damaged")
    assert find_faces(tmp_path) is None
