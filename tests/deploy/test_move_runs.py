"""The runs of a project move to the team's server with their IDs, files and versions."""

import runpy
import shutil

import mlflow
import pytest
from sqlalchemy import create_engine, text
from tests.support.paths import ROOT

SCRIPT = ROOT / "deploy" / "team" / "move_runs.py"


@pytest.fixture
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def project(store, tmp_path):
    """The ID of a run in a project, with a version and their files."""
    assert str(tmp_path) in store
    experiment = mlflow.create_experiment("emotion-detection", artifact_location=(tmp_path / "mlruns").as_uri())
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_param("train.seed", 1)
        mlflow.log_metric("val_macro_f1", 0.5, step=3)
        mlflow.log_text("a figure", "report/figure.txt")
    client = mlflow.MlflowClient(store, store)
    client.create_registered_model("faces")
    client.create_model_version("faces", f"{run.info.artifact_uri}", run.info.run_id)
    client.set_registered_model_alias("faces", "champion", "1")
    return run.info.run_id


def test_nothing_moves_without_the_files_of_a_model(script, project, store, target, tmp_path, capsys):
    shutil.rmtree(tmp_path / "mlruns")
    with pytest.raises(SystemExit, match="nothing is moved: the files of 1 models are missing"):
        script["move"](create_engine(store), create_engine(target), tmp_path, (tmp_path / "bucket").as_uri())
    assert f"{project}/artifacts has no folder in the project" in capsys.readouterr().err
    assert not mlflow.MlflowClient(target, target).search_registered_models()


def test_a_run_without_files_is_named_and_moves(script, project, store, target, tmp_path, capsys):
    bare = mlflow.MlflowClient().create_run("1").info.run_id
    script["move"](create_engine(store), create_engine(target), tmp_path, (tmp_path / "bucket").as_uri())
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{bare}/artifacts has no folder" in line
    assert project != bare


@pytest.fixture
def target(migrated_store, tmp_path):
    shutil.copy(migrated_store, tmp_path / "server.db")
    return f"sqlite:///{tmp_path / 'server.db'}"


def test_runs_versions_and_files_move(script, project, store, target, tmp_path):
    files = (tmp_path / "bucket").as_uri()
    outcome = script["move"](create_engine(store), create_engine(target), tmp_path, files)
    assert outcome == "1 runs and the files of 1 folders are on the server"
    client = mlflow.MlflowClient(target, target)
    run = client.get_run(project)
    assert (run.data.params, run.data.metrics) == ({"train.seed": "1"}, {"val_macro_f1": 0.5})
    assert run.info.artifact_uri == f"mlflow-artifacts:/{run.info.experiment_id}/{project}/artifacts"
    version = client.get_model_version_by_alias("faces", "champion")
    assert (version.version, version.source) == (1, run.info.artifact_uri)
    place = f"{run.info.experiment_id}/{project}/artifacts/report/figure.txt"
    assert (tmp_path / "bucket" / place).read_text() == "a figure"
    assert client.get_experiment("1").artifact_location == "mlflow-artifacts:/1"
    assert mlflow.MlflowClient(store).get_run(project).info.artifact_uri.startswith("file:")  # the original is kept


@pytest.mark.usefixtures("project")
def test_a_server_with_runs_is_not_overwritten(script, store, target, tmp_path):
    client = mlflow.MlflowClient(target, target)
    kept = client.create_run("0").info.run_id
    with pytest.raises(SystemExit, match="move into a new server"):
        script["move"](create_engine(store), create_engine(target), tmp_path, (tmp_path / "bucket").as_uri())
    assert client.get_run(kept)
    assert not (tmp_path / "bucket").exists()


@pytest.mark.usefixtures("project")
def test_a_server_with_an_experiment_is_not_overwritten(script, store, target, tmp_path):
    client = mlflow.MlflowClient(target, target)
    kept = client.create_experiment("of the team")
    with pytest.raises(SystemExit, match="move into a new server"):
        script["move"](create_engine(store), create_engine(target), tmp_path, (tmp_path / "bucket").as_uri())
    assert client.get_experiment(kept)


@pytest.mark.usefixtures("project")
def test_another_version_of_mlflow_is_refused(script, store, target, tmp_path):
    engine = create_engine(target)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'older'"))
    with pytest.raises(SystemExit, match="another version of MLflow"):
        script["move"](create_engine(store), engine, tmp_path, (tmp_path / "bucket").as_uri())


@pytest.mark.parametrize("address", ["s3://bucket/mlruns/1", "mlflow-artifacts:/1", "dbfs:/mlruns/x", None])
def test_files_that_are_elsewhere_stay_there(script, address):
    assert script["_place"](address) == ""


def test_a_local_address_outside_mlruns_stays_there(script):
    assert script["_place"]("/home/ann/artifacts/1") == ""


@pytest.mark.parametrize(
    "address",
    [
        "file:///a%20b/mlruns/models/m-1/artifacts",
        "/c/mlruns/models/m-1/artifacts",
        "file:///mlruns/project/mlruns/models/m-1/artifacts",
    ],
)
def test_files_on_this_machine_are_found(script, address):
    assert script["_place"](address) == "models/m-1/artifacts"
