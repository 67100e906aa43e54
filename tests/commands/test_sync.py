"""emotion-detection sync with a server that refuses some requests for good: it gets all the others."""

import io
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.server import app, handlers
from tests.support.onnx_files import write_linear
from tests.support.paths import ROOT
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from emotion_detection.commands.sync import sync
from emotion_detection.data import dataset
from emotion_detection.errors import StoreError
from emotion_detection.experiments import delivery, registry, runs
from emotion_detection.experiments.delivery import LOCAL_ID, stage_run
from emotion_detection.experiments.journal import RECORDS, journal_of, journals
from emotion_detection.stages.register import RegisterPaths, register

pytestmark = pytest.mark.timeout(900)
NAME = "emotion-detection-sample"
SCORES = {"val_accuracy": 0.6, "val_macro_f1": 0.5, "test_accuracy": 0.61, "test_macro_f1": 0.51}
FILES = ("params.yaml", "faces.npz", "data.json", "model", "report", "out.json")
PATIENCE_S = 120  # with a server on a slow machine
Rule = Callable[[str, str], Response | None]


def broken(_path: str, _body: str) -> Response:
    """The rule of a server that is out of order."""
    return Response("broken", 500)


def forbidden() -> Response:
    """As MLflow's authentication refuses a request."""
    return Response("Permission denied", 403)


def missing() -> Response:
    """As MLflow answers for an experiment that was deleted."""
    body = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No Experiment with id=1 exists"}
    return Response(json.dumps(body), 404)


class Front:
    """MLflow's own server in a thread, which answers the requests itself for which its rule has an answer."""

    def __init__(self) -> None:
        self.rule: Rule | None = None
        self._server = make_server("127.0.0.1", 0, Request.application(self._answer), threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()

    def _answer(self, request: Request) -> Response:
        body = request.get_data()
        request.environ["wsgi.input"] = io.BytesIO(body)
        answer = self.rule(request.path, body.decode(errors="replace")) if self.rule else None
        return answer or Response.from_app(app, request.environ, buffered=True)


@pytest.fixture(scope="module")
def front(tmp_path_factory, migrated_store) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(migrated_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_tracking_store", "_model_registry_store"):
            patch.setattr(handlers, name, None)
        uri = f"sqlite:///{folder}/mlflow.db"
        handlers.initialize_backend_stores(uri, uri, (folder / "served").as_uri())
        front = Front()
        try:
            yield front
        finally:
            front.close()


@pytest.fixture
def server(store, front, monkeypatch) -> Front:  # noqa: ARG001
    """The server as the store of a project of its own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", front.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(PATIENCE_S))
    monkeypatch.setattr(delivery, "EPOCH_TIMEOUT_S", PATIENCE_S)
    front.rule = None
    return front


def kept(run_id: str) -> bytes:
    return (journal_of(run_id).folder / RECORDS).read_bytes()


def test_refused_runs_do_not_stop_the_others(server, capsys):
    first, second, third = (digit * 32 for digit in "abc")
    refusals = {first: forbidden, second: missing}

    def rule(path: str, body: str) -> Response | None:
        found = [answer() for run_id, answer in refusals.items() if path.endswith("runs/create") and run_id in body]
        return found[0] if found else None

    server.rule = broken
    for run_id in (first, second, third):
        with stage_run(run_id, name="a run", create=True) as run:
            run.log_epoch({"epoch": 1, "val_loss": 1.0})
    waiting = {run_id: kept(run_id) for run_id in refusals}
    server.rule = rule
    with pytest.raises(StoreError, match="2 of 3 runs still wait"):
        sync()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"run {first}: ")
    assert "error code 403" in lines[0]
    assert lines[1].startswith(f"run {second}: ")
    assert "No Experiment with id=1 exists" in lines[1]
    assert lines[2].endswith("it has all that it missed, with 1 epoch and 0 files")
    assert {one.run_id: kept(one.run_id) for one in journals()} == waiting
    server.rule = None
    sync()
    assert not journals()
    experiment = mlflow.MlflowClient().get_experiment_by_name(runs.EXPERIMENT)
    stored = mlflow.MlflowClient().search_runs([experiment.experiment_id])
    assert {first, second, third} <= {one.data.tags.get(LOCAL_ID) for one in stored}


def write_files(folder: Path, seed: int) -> RegisterPaths:
    """The files of the earlier stages, and their run."""
    with runs.start_run(name="training") as run:
        run.log_scores(SCORES, [{"val_macro_f1": 0.4}])
    for name in ("model", "report"):
        (folder / name).mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", folder)
    images = np.random.default_rng(0).integers(0, 256, (70, 48, 48), np.uint8)
    val = np.full(70, dataset.VAL, np.uint8)
    dataset.save(dataset.Faces(images, np.arange(70, dtype=np.uint8) % 7, val, np.zeros(70, bool)), folder / FILES[1])
    write_linear(folder / "model" / "model.onnx", seed=seed)
    (folder / "data.json").write_text(json.dumps({"dataset": "sample", "digest": "1", "dvc_md5": "2"}))
    (folder / "model" / "run.json").write_text(json.dumps({"run_id": run.id}))
    (folder / "report" / "metrics.json").write_text(json.dumps(SCORES))
    return RegisterPaths(*(folder / name for name in FILES))


@pytest.mark.usefixtures("store")
def test_damaged_registration_is_kept_and_does_not_stop_the_others(capsys):
    for place, run_id in enumerate(("a" * 32, "b" * 32)):
        waiting = journal_of(run_id)
        waiting.begin(place)
        waiting.registration.mkdir()
        shutil.copy(ROOT / "params.yaml", waiting.registration)
    (waiting.registration / "data_report.json").write_text("{")
    with pytest.raises(StoreError, match="2 of 2 runs still wait"):
        sync()
    missing, damaged = capsys.readouterr().out.splitlines()
    assert missing.startswith(f"the model of the run {'a' * 32} is not registered, as {journal_of('a' * 32).folder}")
    assert "has a damaged or missing file (FileNotFoundError: " in missing
    assert damaged.startswith(f"the model of the run {'b' * 32} is not registered")
    assert "(JSONDecodeError: " in damaged
    assert len(journals()) == 2


@pytest.mark.slow
def test_refused_registration_does_not_stop_the_others(server, tmp_path, capsys):
    models = [write_files(tmp_path / str(seed), seed) for seed in (1, 2)]
    first, second = (json.loads((paths.model / "run.json").read_text())["run_id"] for paths in models)
    server.rule = broken
    for paths in models:
        register(paths)
    capsys.readouterr()
    server.rule = lambda path, body: forbidden() if path.endswith("model-versions/create") and first in body else None
    with pytest.raises(StoreError, match="1 of 2 runs still wait"):
        sync()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"the model of the run {first} is not registered: ")
    assert "error code 403" in lines[0]
    assert lines[1] == f"{NAME} version 1: champion, there was no champion before"
    assert [one.run_id for one in journals()] == [first]
    assert json.loads(models[1].registered.read_text())["version"] == 1
    server.rule = None
    sync()
    assert not journals()
    assert {version.tags["run_id"] for version in registry.versions(NAME)} == {first, second}
