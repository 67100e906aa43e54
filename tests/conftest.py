"""Shared fixtures: the committed params, a few drawn faces, and an MLflow store for each test."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is first imported

import numpy as np
import pytest
from hypothesis import settings
from tests.support.paths import ROOT

from emotion_detection.config import Augment, Params, load_params
from emotion_detection.data.dataset import Faces
from emotion_detection.synthetic.sample import draw_faces

settings.register_profile("repeatable", derandomize=True)  # the same examples on each machine
settings.load_profile("repeatable")

# The longest files, which run first: otherwise one process waits for another at the end.
LONGEST = ("test_pipeline.py", "test_tune.py", "test_demo.py", "test_kills.py", "test_trainer.py")
CONNECTION_VARIABLES = ("MLFLOW_SQLALCHEMYSTORE_", "MLFLOW_HTTP_REQUEST_", "PGCONNECT_TIMEOUT")
# The splits of the four faces of each emotion: two for train, one for val, one for test.
SPLITS = np.array([0, 0, 1, 2], np.uint8)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of processes, browsers and the demo as slow, and put the longest files first."""

    def position(item: pytest.Item) -> int:
        return next((place for place, name in enumerate(LONGEST) if item.path.name == name), len(LONGEST))

    for item in items:
        if item.path.parent.name in ("end_to_end", "demo"):
            item.add_marker(pytest.mark.slow)
    items.sort(key=position)


@pytest.fixture(scope="session")
def params() -> Params:
    """The committed params.yaml."""
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="session")
def plain() -> Augment:
    """No augmentation at all."""
    nothing = {"flip": False, "shift": 0, "rotate_deg": 0, "brightness": 0, "erase": 0, "mixup": 0}
    later = {"gamma": (1, 1), "gradient": 0, "blur": 0, "noise": 0, "jpeg": 0, "erase_with": "noise"}
    return Augment.model_validate(nothing | later | {"scale": (1, 1), "contrast": (1, 1)})


@pytest.fixture(scope="session")
def drawn() -> Faces:
    """28 drawn faces: 14 train, 7 val, 7 test, all emotions in each. The arrays are read-only."""
    images, labels = draw_faces(per_class=len(SPLITS), seed=0)
    faces = Faces(images, labels, np.tile(SPLITS, 7), np.zeros(len(labels), bool))
    for array in (faces.images, faces.labels, faces.splits, faces.copied):
        array.flags.writeable = False
    return faces


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory) -> Path:
    """An empty MLflow database, created once per session because its migrations take seconds."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow.MlflowClient(f"sqlite:///{path}", f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def connection_variables() -> Iterator[None]:
    """Restores the variables that the project sets for MLflow's connections to a store."""

    def present() -> dict[str, str]:
        return {key: value for key, value in os.environ.items() if key.startswith(CONNECTION_VARIABLES)}

    former = present()
    yield
    for name in present():
        del os.environ[name]
    os.environ.update(former)


@pytest.fixture
def store(migrated_store, tmp_path, monkeypatch, connection_variables):  # noqa: ARG001
    """The URI of an empty MLflow store. The working directory is a project of its own, which holds the artifacts."""
    import mlflow

    _forget_address()  # of a test that has connected without this fixture
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    shutil.copy(migrated_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    yield uri
    while mlflow.active_run():
        mlflow.end_run()
    _forget_address()


def _forget_address() -> None:
    import mlflow

    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
