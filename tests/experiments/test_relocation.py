"""A project that was moved or copied uses its own artifacts, and never those of another place."""

import shutil
import sqlite3
from contextlib import closing

import mlflow
import pytest
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from emotion_detection.errors import StoreError
from emotion_detection.experiments import registry, runs
from emotion_detection.experiments.store_location import sqlite_path, sqlite_uri, store_exists, store_uri
from emotion_detection.inference import pretrained
from emotion_detection.inference.classifier import EmotionClassifier

NAMES = ["plain", "with space", "ümlaut", "what?", "a#b", "100%", "a%3Fb", "a@b:c", "it's"]


def open_project(folder, monkeypatch):
    """Work in a project, as a command that was started in its folder does."""
    _artifact_repos_cache.clear()  # of a process that worked in another place
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(folder)
    assert sqlite_path(store_uri()) == folder / "mlflow.db"


def create_project(folder, migrated_store):
    folder.mkdir()
    (folder / "dvc.yaml").touch()
    shutil.copy(migrated_store, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="module")
def original(migrated_store, tmp_path_factory):
    """A project with a champion and the artifacts of its run."""
    folder = create_project(tmp_path_factory.mktemp("projects") / "original", migrated_store)
    with pytest.MonkeyPatch.context() as patch:
        open_project(folder, patch)
        pretrained.seed_registry()
    return folder


@pytest.fixture
def copied(original, tmp_path, store):  # noqa: ARG001
    return shutil.copytree(original, tmp_path / "copied")


def snapshot(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix != ".lock"}


def stored_paths(folder):
    """All texts of the store that name an absolute place of artifacts."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return [
            str(value)
            for table, column in (
                ("experiments", "artifact_location"),
                ("runs", "artifact_uri"),
                ("logged_models", "artifact_location"),
                ("model_versions", "storage_location"),
            )
            for (value,) in database.execute(f"SELECT {column} FROM {table} WHERE {column} LIKE '%mlruns%'")
            if not value.endswith("/mlruns/0")  # of MLflow's own experiment, which the project does not use
        ]


def test_copy_reads_and_writes_its_own_artifacts_only(original, copied, monkeypatch):
    before = snapshot(original)
    open_project(copied, monkeypatch)
    model = registry.fetch(pretrained.CHAMPION)
    assert copied in model.parents
    EmotionClassifier(model)
    (copied / "note.txt").write_text("new")
    champion = registry.resolve(pretrained.CHAMPION)
    with runs.start_run(champion.run_id) as run:  # what evaluate does
        run.log_file(copied / "note.txt")
    with runs.start_run(name="new") as run:
        run.log_file(copied / "note.txt")
    assert len(list((copied / "mlruns").rglob("note.txt"))) == 2
    assert snapshot(original) == before
    assert all(path.startswith((f"file://{copied}/", f"{copied}/")) for path in stored_paths(copied))
    open_project(original, monkeypatch)
    assert original in registry.fetch(pretrained.CHAMPION).parents


def test_moved_project_finds_its_artifacts_and_does_not_create_the_old_folder(copied, monkeypatch, tmp_path):
    open_project(copied, monkeypatch)
    runs.connect()
    moved = copied.rename(tmp_path / "moved to ümlaut")
    open_project(moved, monkeypatch)
    model = registry.fetch(pretrained.CHAMPION)
    assert moved in model.parents
    loaded = mlflow.pyfunc.load_model(pretrained.CHAMPION)
    assert loaded.metadata.signature.outputs.input_names()[0] == "angry"
    (moved / "note.txt").write_text("new")
    with runs.start_run(registry.resolve(pretrained.CHAMPION).run_id) as run:
        run.log_folder(moved / "mlruns" / run.id / "artifacts" / "pretrained", "again")
    assert not copied.exists()


def test_copy_of_the_database_alone_still_reads_the_originals_models(original, tmp_path, store, monkeypatch):  # noqa: ARG001
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "dvc.yaml").touch()
    shutil.copy(original / "mlflow.db", alone)
    open_project(alone, monkeypatch)
    assert original in registry.fetch(pretrained.CHAMPION).parents
    (alone / "note.txt").write_text("new")
    before = snapshot(original)
    with runs.start_run(name="new") as run:
        run.log_file(alone / "note.txt")
    assert (alone / "mlruns" / run.id / "artifacts" / "note.txt").exists()
    assert snapshot(original) == before


def test_project_below_another_name_is_not_changed(copied, monkeypatch, tmp_path):
    open_project(copied, monkeypatch)
    runs.connect()
    link = tmp_path / "link"
    link.symlink_to(copied)
    before = stored_paths(copied)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{link / 'mlflow.db'}")
    runs.connect()
    assert stored_paths(copied) == before


def test_chosen_location_of_artifacts_is_kept(migrated_store, tmp_path, store, monkeypatch):  # noqa: ARG001
    folder = create_project(tmp_path / "project", migrated_store)
    chosen = tmp_path / "big disk" / "mlruns"
    chosen.mkdir(parents=True)
    open_project(folder, monkeypatch)
    uri = sqlite_uri(folder / "mlflow.db")
    mlflow.MlflowClient(uri, uri).create_experiment(runs.EXPERIMENT, artifact_location=chosen.as_uri())
    runs.connect()
    assert stored_paths(folder) == [chosen.as_uri()]


@pytest.mark.parametrize("name", NAMES)
def test_path_with_special_characters_has_one_store(name, migrated_store, tmp_path, store, monkeypatch):  # noqa: ARG001
    outer = tmp_path / "outer"
    outer.mkdir()
    folder = create_project(outer / name, migrated_store)
    (folder / "note.txt").write_text("1")
    open_project(folder, monkeypatch)
    with runs.start_run(name="first") as run:
        run.log_file(folder / "note.txt")
    assert (folder / "mlruns" / run.id / "artifacts" / "note.txt").exists()
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        assert database.execute("SELECT name FROM runs").fetchall() == [("first",)]
    assert list(outer.iterdir()) == [folder]
    assert store_exists()


def test_relative_address_of_a_queued_experiment_starts_in_the_project(tmp_path, monkeypatch):
    project, queued = tmp_path / "project", tmp_path / "project" / ".dvc" / "tmp" / "exps"
    queued.mkdir(parents=True)
    monkeypatch.chdir(queued)
    monkeypatch.setenv("DVC_ROOT", str(project))
    for uri in ("sqlite:///mlflow.db", "sqlite:///./mlflow.db", "sqlite:///sub/../mlflow.db", " sqlite:///mlflow.db\n"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert store_uri() == f"sqlite:///{project / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////elsewhere/mlflow.db")
    assert store_uri() == "sqlite:////elsewhere/mlflow.db"
    monkeypatch.delenv("DVC_ROOT")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert store_uri() == f"sqlite:///{queued / 'mlflow.db'}"


@pytest.mark.parametrize("uri", ["http://host:5000", "postgresql://host/base", "sqlite://", "sqlite:///:memory:"])
def test_other_address_is_unchanged(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert (store_uri(), sqlite_path(uri)) == (uri, None)


def test_password_that_would_be_sent_as_a_host_name_is_refused(store, monkeypatch):  # noqa: ARG001
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:pass@word@127.0.0.1:1")
    with pytest.raises(StoreError, match="MLFLOW_TRACKING_URI cannot be used: its password contains") as error:
        runs.connect()
    assert "word@" not in str(error.value)
