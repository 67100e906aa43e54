"""What many tests share: the committed params, a handful of drawn faces, an MLflow store that is nobody else's."""

import os
import shutil
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is first imported

import numpy as np
import pytest
from tests.support.paths import ROOT

from emotion_detection.config import Augment, Params, load_params
from emotion_detection.data.dataset import Faces
from emotion_detection.synthetic.sample import draw_faces

# Deals the four faces of each emotion: two to train, one to val, one to test.
DEAL = np.array([0, 0, 1, 2], np.uint8)


@pytest.fixture(scope="session")
def params() -> Params:
    """The committed params.yaml."""
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="session")
def plain() -> Augment:
    """No augmentation at all."""
    nothing = {"flip": False, "shift": 0, "rotate_deg": 0, "brightness": 0, "erase": 0, "mixup": 0}
    return Augment.model_validate(nothing | {"scale": (1, 1), "contrast": (1, 1)})


@pytest.fixture(scope="session")
def drawn() -> Faces:
    """28 drawn faces: 14 train, 7 val, 7 test, all emotions in each; read-only, so that a writer is caught."""
    images, labels = draw_faces(per_class=len(DEAL), seed=0)
    faces = Faces(images, labels, np.tile(DEAL, 7), np.zeros(len(labels), bool))
    for array in (faces.images, faces.labels, faces.splits, faces.copied):
        array.flags.writeable = False
    return faces


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory) -> Path:
    """An empty MLflow database. Its first use runs all migrations, which takes seconds: once a session is enough."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow.MlflowClient(f"sqlite:///{path}", f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(migrated_store, tmp_path, monkeypatch):
    """A fresh MLflow store, its uri; the working directory is a project of its own, so that artifacts stay in it."""
    import mlflow

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
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
