"""The served model: a file, or what a name in the registry stands for, checked before it is served."""

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from tests.serving.conftest import connected
from tests.support.onnx_files import write_linear

from emotion_detection.errors import ModelError, UsageError
from emotion_detection.experiments import registry, runs
from emotion_detection.inference import pretrained
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.serving import served_model
from emotion_detection.serving.served_model import LoadedModel, NotReadyError, ServedModel, load_file, load_model

NAME = "faces"
URI = f"models:/{NAME}@champion"
FACES = np.random.default_rng(0).integers(0, 256, (3, 48, 48), np.uint8)
LOAD_A_FILE = """
import sys
from emotion_detection.serving import metrics, served_model, shadow
served = served_model.ServedModel(sys.argv[1], served_model.load_model)
shadow.Shadow(sys.argv[1], metrics.Metrics().shadow).close()
assert served.ready and not {"mlflow", "tensorflow", "keras"} & set(sys.modules)
"""


class Clock:
    """Time that a test sets."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def versions(store, tmp_path) -> list[Path]:  # noqa: ARG001
    """The ONNX files of two versions of a model; the first one is the champion."""
    runs.connect()
    client = mlflow.MlflowClient()
    client.create_registered_model(NAME)
    files = []
    for seed in (1, 2):
        folder = tmp_path / "models" / str(seed)
        folder.mkdir(parents=True)
        files.append(write_linear(folder / "model.onnx", seed=seed))
        tags = {registry.DIGEST: hashlib.sha256(files[-1].read_bytes()).hexdigest()}
        client.create_model_version(NAME, folder.as_uri(), tags=tags)
    promote(1)
    return files


@pytest.fixture
def served(versions):  # noqa: ARG001
    """The champion, served."""
    model = ServedModel(URI, load_model, clock=Clock())
    model.update()
    yield model
    model.close(wait_s=60)


def promote(number: int) -> None:
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", str(number))


def answers(path: Path) -> bytes:
    """What the model in a file answers for FACES."""
    return load_file(path, load_model).classifier.probabilities(FACES).tobytes()


def test_file_is_served_with_its_digest(tmp_path):
    path = write_linear(tmp_path / "model.onnx")
    served = ServedModel(str(path), load_model)
    model = served.current
    assert served.ready
    assert (served.message, model.source) == ("", str(path))
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (model.name, model.version) == (pretrained.MODEL_NAME, model.sha256[:12])
    served.follow()
    assert served.current is model


@pytest.mark.parametrize("content", [None, b"", b"no model"])
def test_unusable_file_is_refused_by_its_own_name(tmp_path, content):
    path = tmp_path / "given.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=f"^{path} ") as caught:
        ServedModel(str(path), load_model)
    assert "model.onnx of the train stage" in str(caught.value)
    assert "/emotion-detection-" not in str(caught.value)


@pytest.mark.parametrize("uri", ["models:/", "models:/faces", "models:/a@b/1"])
def test_malformed_name_is_refused(uri):
    with pytest.raises(UsageError, match="models:/NAME@ALIAS"):
        ServedModel(uri, load_model)


def test_file_needs_neither_mlflow_nor_tensorflow():
    subprocess.run([sys.executable, "-c", LOAD_A_FILE, str(pretrained.MODEL)], check=True, timeout=120)


@pytest.mark.usefixtures("store")
def test_no_other_model_is_served_instead_of_a_missing_one():
    served = ServedModel("models:/unknown@champion", load_model)
    with pytest.raises(NotReadyError, match="has not responded"):
        _ = served.current
    served.update()
    assert not served.ready
    with pytest.raises(NotReadyError, match=r"does not contain models:/unknown@champion.*No model is served"):
        _ = served.current


@pytest.mark.usefixtures("store")
def test_service_writes_nothing_into_the_projects_store(monkeypatch):
    monkeypatch.setattr(pretrained, "seed_registry", lambda: pytest.fail("a write"))
    served = ServedModel(pretrained.CHAMPION, load_model)
    served.update()
    assert not served.ready
    assert "emotion-detection seed-registry" in served.message


def test_alias_is_followed(served, versions):
    first = served.current
    assert (first.source, first.name, first.version) == ("models:/faces/1", NAME, "1")
    promote(2)
    served.update()
    second = served.current
    assert (second.source, served.message) == ("models:/faces/2", "")
    assert second.sha256 == hashlib.sha256(versions[1].read_bytes()).hexdigest()
    assert [model.classifier.probabilities(FACES).tobytes() for model in (first, second)] == list(
        map(answers, versions)
    )
    promote(1)
    served.update()
    assert served.current.source == first.source


def test_changed_file_is_refused_and_the_old_version_stays(served, versions):
    content = versions[1].read_bytes()
    versions[1].write_bytes(versions[0].read_bytes())
    promote(2)
    served.update()
    assert served.current.version == "1"
    assert "is not the file that was registered" in served.message
    assert served.message.endswith("Still serving models:/faces/1.")
    versions[1].write_bytes(content)
    served._clock.seconds = served_model.RETRY_S
    served.update()
    assert (served.current.version, served.message) == ("2", "")


def test_refused_file_is_not_fetched_at_every_query(served, versions, monkeypatch):
    versions[1].write_bytes(b"another file")
    promote(2)
    served.update()
    reason = served.message
    monkeypatch.setattr(registry, "fetch", lambda *_: pytest.fail("fetched again"))
    served.update()
    assert served.message == reason
    promote(1)
    served.update()
    assert (served.current.version, served.message) == ("1", "")


@pytest.mark.parametrize("content", [b"no model", b""])
def test_registered_file_that_is_no_model_is_refused(served, versions, content):
    versions[1].write_bytes(content)
    mlflow.MlflowClient().set_model_version_tag(NAME, "2", registry.DIGEST, hashlib.sha256(content).hexdigest())
    promote(2)
    served.update()
    assert served.current.version == "1"
    assert served.message.startswith("models:/faces/2 cannot be loaded as an ONNX model")


def test_model_that_fails_with_its_first_face_is_refused(served, monkeypatch):
    def fail(*_):
        raise ModelError("models:/faces/2 returned NaN or infinity for a face: train the model again")

    monkeypatch.setattr(EmotionClassifier, "probabilities", fail)
    promote(2)
    served.update()
    assert served.current.version == "1"
    assert "returned NaN" in served.message


def test_file_that_changes_after_its_check_is_not_loaded(versions):
    expected, other = answers(versions[0]), versions[1].read_bytes()

    def load(path: Path, source: str, tags) -> LoadedModel:
        versions[0].write_bytes(other)  # somebody else does this after the check
        return load_model(path, source, tags)

    served = ServedModel(URI, load)
    served.update()
    assert served.current.classifier.probabilities(FACES).tobytes() == expected


def test_registry_is_only_read(served, tmp_path):
    def state() -> list[tuple[str, int]]:
        return sorted((str(path), path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file())

    promote(2)
    before = state()
    served.update()
    assert served.current.version == "2"
    assert state() == before


def test_lost_registry_leaves_the_model(served, monkeypatch):
    monkeypatch.setattr(registry, "look_up", lambda _: 1 / 0)
    served.update()
    assert served.ready
    assert served.message == "division by zero. Still serving models:/faces/1."


def ask_until(stop: threading.Event, ask: Callable[[], str], seen: list[str], place: int) -> None:
    """Note the version of each answer."""
    while not stop.is_set() and seen[place] != "wrong":
        seen[place] = ask()


def across_versions(served: ServedModel, ask: Callable[[], str]) -> list[str]:
    """Ask in threads while version 2 is promoted and rolled back; the versions of their last answers."""
    seen, stop = [""] * 3, threading.Event()
    threads = [threading.Thread(target=ask_until, args=(stop, ask, seen, place)) for place in range(len(seen))]
    for thread in threads:
        thread.start()
    try:
        for number in ("1", "2", "1"):
            promote(int(number))
            served.update()
            while set(seen) != {number} and "wrong" not in seen:
                stop.wait(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return seen


def test_each_answer_is_of_one_version_across_a_promotion_and_a_rollback(served, versions):
    own = {str(number): answers(path) for number, path in enumerate(versions, 1)}

    def ask() -> str:
        model = served.current
        return model.version if model.classifier.probabilities(FACES).tobytes() == own[model.version] else "wrong"

    assert across_versions(served, ask) == 3 * ["1"]


def test_no_request_fails_across_a_promotion_and_a_rollback(versions, monkeypatch):
    monkeypatch.setattr(ServedModel, "follow", lambda *_, **__: None)  # the test asks the registry itself
    own = {str(number): load_file(path, load_model) for number, path in enumerate(versions, 1)}
    tensor = {"name": "faces", "datatype": "UINT8", "shape": [len(FACES), 48, 48, 1], "data": FACES.ravel().tolist()}
    request = {"inputs": [tensor], "outputs": [{"name": "probabilities"}]}

    def ask() -> str:
        answer = client.post(f"/v2/models/{NAME}/infer", json=request)
        content = answer.json() if answer.status_code == 200 else {}
        model = own.get(content.get("model_version", ""))
        if model is None or content["parameters"]["sha256"] != model.sha256:
            return "wrong"
        expected = model.classifier.probabilities(FACES).ravel().tolist()
        return content["model_version"] if content["outputs"][0]["data"] == expected else "wrong"

    with connected(model=URI) as client:
        served = client.app_state["service"].served
        served.update()
        assert across_versions(served, ask) == 3 * ["1"]
        metrics = client.get("/metrics").text
    for number, count in (("1", 1), ("2", 0)):
        assert f'name="{NAME}",sha256="{own[number].sha256}",version="{number}"}} {count}.0' in metrics


@pytest.mark.usefixtures("versions")
def test_registry_is_queried_until_the_end(monkeypatch):
    served, twice = ServedModel(URI, load_model), threading.Event()
    calls: list[bool] = []

    def update() -> None:
        calls.append(threading.current_thread().daemon)
        if len(calls) == 2:
            twice.set()

    monkeypatch.setattr(served, "update", update)
    served.follow(poll_s=0)
    assert twice.wait(60)
    served.close(wait_s=60)
    assert calls[:2] == [True, True]
    assert served._follower is not None
    assert not served._follower.is_alive()
