"""The challenger: it sees faces that the champion has answered, and only counts."""

import os
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.serving.conftest import connected
from tests.serving.test_metrics import read
from tests.support.onnx_files import write_linear

from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import ModelError, UsageError
from emotion_detection.serving.comparison import Comparison
from emotion_detection.serving.metrics import Metrics
from emotion_detection.serving.served_model import load_file, load_model
from emotion_detection.serving.shadow import MAX_FACES, Offer, Shadow

FACES = np.random.default_rng(0).integers(0, 256, (8, 48, 48), np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of a champion and of a challenger."""
    folder = tmp_path_factory.mktemp("models")
    return [write_linear(folder / f"{seed}.onnx", seed=seed) for seed in (1, 2)]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def shadow(files, metrics):
    """A challenger that sees all faces."""
    shadow = Shadow(str(files[1]), metrics.shadow, share=1)
    yield shadow
    shadow.close(wait_s=60)


def results(metrics: Metrics) -> dict[str, float]:
    found = read(metrics.text())
    return {name: found["emotion_detection_shadow_requests_total", name] for name in ("compared", "skipped", "failed")}


def use(shadow: Shadow, classify) -> None:
    """Let the challenger answer with a function."""
    classifier: Any = SimpleNamespace(probabilities=classify)
    shadow.model.current = replace(shadow.model.current, classifier=classifier)


def test_agreement_of_champion_and_challenger(shadow, metrics, files):
    ours, theirs = (load_file(path, load_model).classifier.probabilities(FACES) for path in files)
    shadow.offer(FACES[..., np.newaxis], ours, "models:/faces/1")
    shadow.follow()
    shadow.close(wait_s=60)
    evidence = shadow.evidence()
    assert (evidence.champion, evidence.challenger) == ("models:/faces/1", files[1].name)
    assert evidence.faces == len(FACES)
    assert evidence.agreement == (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean() < 1
    assert evidence.mean_difference == pytest.approx(np.abs(ours - theirs).mean())
    counts = np.array(evidence.counts)
    assert counts.sum(axis=1).tolist() == np.bincount(ours.argmax(axis=1), minlength=7).tolist()
    assert counts.sum(axis=0).tolist() == np.bincount(theirs.argmax(axis=1), minlength=7).tolist()
    assert evidence.emotions == list(EMOTIONS)
    assert results(metrics) == {"compared": 1, "skipped": 0, "failed": 0}


def test_challenger_sees_the_faces_of_a_service(files):
    tensor = {"name": "faces", "datatype": "UINT8", "shape": [8, 48, 48, 1], "data": FACES.ravel().tolist()}
    with connected(model=str(files[0]), shadow=str(files[1]), shadow_share=1.0) as client:
        answer = client.post("/v2/models/emotion-detection/infer", json={"inputs": [tensor]})
        shadow = client.app_state["service"].shadow
        assert set(client.get("/v1/shadow").json()) == set(Comparison.model_fields)
        while not shadow.evidence().faces:  # the challenger is asked after the answer
            threading.Event().wait(0.01)
    probabilities = load_file(files[0], load_model).classifier.probabilities(FACES)
    assert answer.json()["outputs"][0]["data"] == probabilities.ravel().tolist()
    evidence = shadow.evidence()
    assert (evidence.champion, evidence.challenger, evidence.faces) == (files[0].name, files[1].name, 8)


def test_service_without_a_challenger_says_so(client):
    answer = client.get("/v1/shadow")
    assert (answer.status_code, answer.json()) == (
        404,
        {"error": "There is no challenger: start the service with --shadow."},
    )


def test_evidence_without_faces(shadow):
    evidence = shadow.evidence()
    assert (evidence.faces, evidence.agreement, evidence.mean_difference) == (0, None, None)


def test_busy_challenger_skips(shadow, metrics):
    started, finish = threading.Event(), threading.Event()

    def classify(faces):
        started.set()
        assert finish.wait(60)
        return np.full((len(faces), 7), 1 / 7, np.float32)

    use(shadow, classify)
    shadow.follow()
    probabilities = np.eye(7, dtype=np.float32)[:1]
    shadow.offer(FACES[:1], probabilities)
    assert started.wait(60)
    for _ in range(3):  # one more fits into the queue
        shadow.offer(FACES[:1], probabilities)
    finish.set()
    shadow.close(wait_s=60)
    assert results(metrics) == {"compared": 2, "skipped": 2, "failed": 0}


def test_only_a_share_is_offered(files, metrics):
    numbers = iter([0.3, 0.05, 0.1, 0.09])
    shadow = Shadow(str(files[1]), metrics.shadow, share=0.1, choose=lambda: next(numbers))
    probabilities = np.eye(7, dtype=np.float32)[:1]
    for _ in range(4):
        shadow.offer(FACES[:1], probabilities)
    assert results(metrics)["skipped"] == 1  # two of four, and the queue has one place
    shadow.close()


def test_nothing_is_offered_without_faces(shadow):
    shadow.offer(FACES[:0], np.empty((0, 7), np.float32))
    assert shadow._offers.empty()


def test_large_request_is_cut(shadow):
    count = MAX_FACES + 1
    shadow.offer(np.zeros((count, 48, 48), np.uint8), np.full((count, 7), 1 / 7, np.float32))
    shadow.follow()
    shadow.close(wait_s=60)
    assert shadow.evidence().faces == MAX_FACES


def test_broken_challenger_is_counted(shadow, metrics):
    def fail(_):
        raise ModelError("it returned NaN")

    use(shadow, fail)
    shadow.offer(FACES[:1], np.eye(7, dtype=np.float32)[:1])
    shadow.follow()
    shadow.close(wait_s=60)
    assert results(metrics) == {"compared": 0, "skipped": 0, "failed": 1}


@pytest.mark.usefixtures("store")
def test_missing_challenger_skips(metrics):
    shadow = Shadow("models:/emotion-detection@challenger", metrics.shadow, share=1)
    shadow._compare(Offer(FACES[:1], np.eye(7, dtype=np.float32)[:1], "models:/faces/1"))
    shadow.close(wait_s=60)
    assert results(metrics)["skipped"] == 1


def test_evidence_is_about_one_champion_and_one_challenger(shadow):
    shadow.follow()
    for champion in ("models:/faces/1", "models:/faces/2"):
        shadow._compare(Offer(FACES[:2], np.eye(7, dtype=np.float32)[:2], champion))
    assert (shadow.evidence().champion, shadow.evidence().faces) == ("models:/faces/2", 2)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")
def test_challenger_has_the_lowest_priority(shadow):
    priorities = []

    def classify(faces):
        priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return np.full((len(faces), 7), 1 / 7, np.float32)

    use(shadow, classify)
    shadow.offer(FACES[:1], np.eye(7, dtype=np.float32)[:1])
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    shadow.follow()
    shadow.close(wait_s=60)
    assert priorities == [19]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_wrong_share_is_refused(files, metrics, share):
    with pytest.raises(UsageError, match="from 0 to 1"):
        Shadow(str(files[1]), metrics.shadow, share=share)
