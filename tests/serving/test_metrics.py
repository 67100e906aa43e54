"""What a service measures, as Prometheus reads it."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from emotion_detection.emotions import EMOTIONS
from emotion_detection.inference.reading import Box, Reading
from emotion_detection.serving.metrics import FOLDER, Metrics

SURE = np.eye(7, dtype=np.float32)[[3, 3, 0]]
UNSURE = np.full((1, 7), 1 / 7, np.float32)
COUNT = """
import sys
from types import SimpleNamespace
from emotion_detection.serving.metrics import Metrics
metrics = Metrics()
metrics.request("/", 200, 0.1)
metrics.model(SimpleNamespace(name="faces", version="1", sha256="ab"))
sys.stdout.buffer.write(metrics.text())
sys.stdout.flush()
sys.stdin.read()
"""


def read(text: bytes) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels, in the order of the labels' names."""
    samples = [one for family in text_string_to_metric_families(text.decode()) for one in family.samples]
    return {(one.name, *(one.labels[label] for label in sorted(one.labels))): one.value for one in samples}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def test_requests_are_counted_by_route_and_status(metrics):
    metrics.request("/v1/recognize", 200, 0.004)
    metrics.request("/v1/recognize", 413, 3)
    found = read(metrics.text())
    assert found["emotion_detection_requests_total", "/v1/recognize", "200"] == 1
    assert found["emotion_detection_requests_total", "/v1/recognize", "413"] == 1
    assert found["emotion_detection_request_seconds_bucket", "0.005", "/v1/recognize"] == 1
    assert found["emotion_detection_request_seconds_count", "/v1/recognize"] == 2


def test_running_and_waiting_requests_are_counted(metrics):
    def gauges() -> list[float]:
        found = read(metrics.text())
        return [found[(f"emotion_detection_requests_{name}",)] for name in ("in_progress", "waiting")]

    def fail() -> None:
        with metrics.in_progress(), metrics.waiting():
            counted.extend(gauges())
            raise ValueError("broken")

    counted: list[float] = []
    with pytest.raises(ValueError, match="broken"):
        fail()
    assert (counted, gauges()) == ([1, 1], [0, 0])


def test_faces_are_counted_by_emotion(metrics):
    assert read(metrics.text())["emotion_detection_faces_total", "disgust"] == 0
    metrics.faces([Reading(Box(0, 0, 9, 9), row) for row in np.concatenate([SURE, UNSURE])])
    metrics.faces([])
    metrics.classified(SURE[:0])
    found = read(metrics.text())
    assert [found["emotion_detection_faces_total", emotion] for emotion in (EMOTIONS[3], EMOTIONS[0])] == [2, 2]
    assert found[("emotion_detection_faces_unsure_total",)] == 1


def test_served_version_is_shown(metrics):
    metrics.model(None, stale=True)
    found = read(metrics.text())
    assert (found[("emotion_detection_model_ready",)], found[("emotion_detection_model_stale",)]) == (0, 1)
    for version in ("1", "2", "2"):
        metrics.model(SimpleNamespace(name="faces", version=version, sha256="ab" * 32))
    found = read(metrics.text())
    assert found["emotion_detection_model_info", "faces", "ab" * 32, "1"] == 0
    assert found["emotion_detection_model_info", "faces", "ab" * 32, "2"] == 1
    assert (found[("emotion_detection_model_ready",)], found[("emotion_detection_model_stale",)]) == (1, 0)


def test_challenger_is_compared(metrics):
    metrics.shadow.compared(SURE, np.concatenate([SURE[:2], UNSURE]))
    metrics.shadow.result("skipped")
    found = read(metrics.text())
    assert found["emotion_detection_shadow_requests_total", "compared"] == 1
    assert found["emotion_detection_shadow_requests_total", "skipped"] == 1
    assert found["emotion_detection_shadow_faces_total", EMOTIONS[3], EMOTIONS[3]] == 2
    assert found[("emotion_detection_shadow_agreed_faces_total",)] == 3
    assert found[("emotion_detection_shadow_difference_total",)] == pytest.approx(12 / 49)


def test_two_services_in_one_process_count_for_themselves(metrics):
    metrics.request("/", 200, 0.1)
    assert ("emotion_detection_requests_total", "/", "200") not in read(Metrics().text())


def count(environment: dict[str, str]) -> dict[tuple[str, ...], float]:
    """What a process answers after its first request."""
    command = [sys.executable, "-c", COUNT]
    process = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return read(process.stdout)


def test_processes_are_summed_and_those_that_ended_serve_no_model(tmp_path):
    environment = os.environ | {FOLDER: str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", COUNT], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline()
        found = count(environment)
        first.communicate()
    assert found["emotion_detection_requests_total", "/", "200"] == 2
    assert found["emotion_detection_model_info", "faces", "ab", "1"] == 2
    found = count(environment)
    assert found["emotion_detection_requests_total", "/", "200"] == 3
    assert found["emotion_detection_model_info", "faces", "ab", "1"] == 1
