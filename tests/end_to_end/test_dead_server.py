"""The pipeline with a server that is dead all the time, and what `emotion-detection sync` delivers afterwards."""

import hashlib

import mlflow
import pytest
from tests.support.faulty_server import ERROR, SILENT, UNAUTHORIZED, proxy
from tests.support.project import EPOCHS, NAME, Project

pytestmark = pytest.mark.timeout(1200)  # on a slow machine while other tests run
STAGES = {"train": SILENT, "evaluate": ERROR, "register": UNAUTHORIZED}


@pytest.fixture(scope="module")
def project(tmp_path_factory, migrated_store):
    """A project after a pipeline without a server, which is dead in another way in each stage."""
    project = Project(tmp_path_factory.mktemp("project"), migrated_store)
    with proxy() as server:
        project.env["MLFLOW_TRACKING_URI"] = server.url
        project.run("dvc", "repro", "prepare")
        for stage, fault in STAGES.items():
            server.fault = fault
            output = project.run("dvc", "repro", "--single-item", stage)
            assert output.count("MLflow does not respond") == 1, output
            assert "emotion-detection sync" in output
    # A file takes the place of the server, because it needs no process.
    del project.env["MLFLOW_TRACKING_URI"]
    (journal,) = project.folder.glob("build/journal/*/records.jsonl")
    address = f"sqlite:///{(project.folder / 'mlflow.db').resolve()}"
    journal.write_text(journal.read_text().replace(server.url, address))
    return project


def test_pipeline_without_a_server_is_green_and_is_delivered_once(project):
    written = project.folder / "build" / "registered.json"
    waiting, md5 = project.read("registered.json"), hashlib.md5(written.read_bytes()).hexdigest()
    cached = project.folder / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    assert (waiting["version"], waiting["promoted"], cached.exists()) == (None, False, True)
    assert f"{NAME} version 1: champion" in project.run("emotion-detection", "sync")
    assert "nothing waits for this store" in project.run("emotion-detection", "sync")
    (run,) = project.runs()
    assert run.info.status == "FINISHED"
    points = project.client.get_metric_history(run.info.run_id, "val_loss")
    assert [point.step for point in points] == list(range(1, EPOCHS + 1))
    (version,) = project.client.search_model_versions(f"name = '{NAME}'")
    assert version.run_id == run.info.run_id
    report = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/report/metrics.json")
    assert report == project.read("report/metrics.json")
    assert project.read("registered.json")["version"] == 1
    assert set(project.stale()) == {"register"}  # its file was corrected
    assert not cached.exists()  # DVC cannot restore the former one
