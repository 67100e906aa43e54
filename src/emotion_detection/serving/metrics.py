"""What a service measures about itself, for Prometheus. No label is taken from a request, so there are only a few."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from emotion_detection.arrays import Probabilities
from emotion_detection.emotions import EMOTIONS
from emotion_detection.inference.reading import UNSURE_BELOW, Reading

# A folder for the counts of several processes. prometheus_client reads it while it is imported.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
LATENCIES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Described(Protocol):
    """What is shown of a served model."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def sha256(self) -> str: ...


class Metrics:
    """Counts requests, faces and models. All methods may be called from several threads.

    With several processes (see FOLDER), each of them answers with the sums of all.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "emotion_detection_requests", "Answered requests.", ["route", "status"], registry=registry
        )  # Prometheus adds _total
        self._seconds = Histogram(
            "emotion_detection_request_seconds",
            "Time to answer a request.",
            ["route"],
            buckets=LATENCIES_S,
            registry=registry,
        )
        self._in_progress = _gauge(
            "emotion_detection_requests_in_progress", "Requests that are being answered.", [], registry
        )
        self._waiting = _gauge(
            "emotion_detection_requests_waiting", "Requests that wait for a free place.", [], registry
        )
        self._faces = Counter(
            "emotion_detection_faces", "Faces by their most likely emotion.", ["emotion"], registry=registry
        )
        self._unsure = Counter(
            "emotion_detection_faces_unsure", f"Faces with a confidence below {UNSURE_BELOW}.", registry=registry
        )
        labels = ["name", "version", "sha256"]
        self._model = _gauge("emotion_detection_model_info", "Processes that serve this version.", labels, registry)
        self._ready = _gauge("emotion_detection_model_ready", "Processes that have a model.", [], registry)
        self._stale = _gauge(
            "emotion_detection_model_stale",
            "Processes whose last query or update from the registry failed.",
            [],
            registry,
        )
        self._served: tuple[str, ...] = ()
        self.shadow = ShadowMetrics(registry)
        for emotion in EMOTIONS:  # a rate needs the 0 before the first count
            self._faces.labels(emotion)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answer. `route` is the pattern of the route, such as /v2/models/{model}/infer, never a path."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    @contextmanager
    def in_progress(self) -> Iterator[None]:
        """Count a request as running during the block."""
        with self._in_progress.track_inprogress():
            yield

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a request as waiting during the block."""
        with self._waiting.track_inprogress():
            yield

    def faces(self, readings: Sequence[Reading]) -> None:
        """Count the faces of an answer."""
        if readings:
            self.classified(np.stack([reading.probabilities for reading in readings]))

    def classified(self, probabilities: Probabilities) -> None:
        """Count faces by their probabilities f32 (n, 7)."""
        counts = np.bincount(probabilities.argmax(axis=1), minlength=len(EMOTIONS))
        for emotion, count in zip(EMOTIONS, counts.tolist(), strict=True):
            if count:
                self._faces.labels(emotion).inc(count)
        self._unsure.inc(int((probabilities.max(axis=1, initial=0) < UNSURE_BELOW).sum()))

    def model(self, model: Described | None, *, stale: bool = False) -> None:
        """Note which model is served. `stale`: whether the registry could not be asked or its version was refused."""
        labels = (model.name, model.version, model.sha256) if model else ()
        if self._served and self._served != labels:
            self._model.labels(*self._served).set(0)
        if labels:
            self._model.labels(*labels).set(1)
        self._served = labels
        self._ready.set(int(model is not None))
        self._stale.set(int(stale))

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        folder = os.environ.get(FOLDER)
        if not folder:
            return generate_latest(self._registry)
        _forget_ended_processes(Path(folder))
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


class ShadowMetrics:
    """What the challenger says about the faces that the champion has answered."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "emotion_detection_shadow_requests",
            "Requests by what the challenger did with them.",
            ["result"],
            registry=registry,
        )
        labels = ["champion", "challenger"]
        self._faces = Counter(
            "emotion_detection_shadow_faces",
            "Faces by the emotion of each of the two models.",
            labels,
            registry=registry,
        )
        self._agreed = Counter(
            "emotion_detection_shadow_agreed_faces", "Faces with the same emotion of both models.", registry=registry
        )
        self._difference = Counter(
            "emotion_detection_shadow_difference", "Sum over faces of the mean absolute difference.", registry=registry
        )
        for result in ("compared", "skipped", "failed"):
            self._requests.labels(result)

    def result(self, result: str) -> None:
        """Count a request as compared, skipped or failed."""
        self._requests.labels(result).inc()

    def compared(self, champion: Probabilities, challenger: Probabilities) -> None:
        """Count the faces of a compared request; both f32 (n, 7)."""
        self.result("compared")
        for ours, theirs in zip(champion.argmax(axis=1), challenger.argmax(axis=1), strict=True):
            self._faces.labels(EMOTIONS[ours], EMOTIONS[theirs]).inc()
        self._agreed.inc(int((champion.argmax(axis=1) == challenger.argmax(axis=1)).sum()))
        self._difference.inc(float(np.abs(champion - challenger).mean(axis=1).sum()))


def _forget_ended_processes(folder: Path) -> None:
    """Remove the gauges of processes that have ended, such as a worker that was replaced."""
    for path in folder.glob("gauge_live*_*.db"):
        number = int(path.stem.rpartition("_")[2])
        if not psutil.pid_exists(number):
            mark_process_dead(number)  # type: ignore[no-untyped-call]


def _gauge(name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> Gauge:
    """A gauge that is summed over the living processes."""
    return Gauge(name, text, labels, registry=registry, multiprocess_mode="livesum")
