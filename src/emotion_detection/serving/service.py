"""The models, the counts and the threads of one process that serves."""

from functools import partial
from pathlib import Path

import numpy as np

from emotion_detection.arrays import Images, Probabilities
from emotion_detection.emotions import IMAGE_SIZE
from emotion_detection.inference.detector import load_detector
from emotion_detection.serving.gate import Gate
from emotion_detection.serving.metrics import Metrics
from emotion_detection.serving.reader import Reader
from emotion_detection.serving.served_model import LoadedModel, ServedModel, load_file, load_model
from emotion_detection.serving.settings import Settings
from emotion_detection.serving.shadow import Shadow

SHADOW_S = 0.5  # at the end, for each of three steps: the end has a limit (docs/serving.md)


class Service(Reader):
    """Counts what it reads, and offers the faces to the shadow."""

    def __init__(self, settings: Settings) -> None:
        """Raises ModelError if a model file or the detector cannot be used, and UsageError for a wrong setting."""
        self.settings, self.metrics = settings, Metrics()
        self.gate = Gate(settings.limits, self.metrics.waiting)
        load = partial(load_model, threads=settings.limits.threads)
        first = load_file(Path(settings.first), load) if settings.first else None
        served = ServedModel[LoadedModel](settings.model, load, first=first, observe=self._note_model)
        super().__init__(served, load_detector(settings.detector), self.gate, settings.limits)
        self.shadow: Shadow | None = None
        if settings.shadow:
            self.shadow = Shadow(settings.shadow, self.metrics.shadow, share=settings.shadow_share)
        self.draining = False

    def start(self) -> None:
        """Prepare the threads, and follow the registry."""
        blank = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
        self.gate.prepare(lambda: self.detector.detect(blank))  # a detector may load something in each thread
        self._note_model()
        self.served.follow()
        if self.shadow:
            self.shadow.follow()

    def close(self, wait_s: float | None = None) -> bool:
        """Tell all threads to end. Return whether what is being read has ended.

        wait_s: how long to wait for what the clients have sent, by default at any time.
        """
        ended = self.gate.close(wait_s)
        self.served.close()
        return (self.shadow is None or self.shadow.close(wait_s=SHADOW_S)) and ended

    @property
    def ready(self) -> bool:
        """Whether requests should come here."""
        return self.served.ready and not self.draining

    def metrics_text(self) -> bytes:
        """The metrics in Prometheus' format."""
        return self.metrics.text()

    def _note_model(self) -> None:
        """Set the metrics of the model. Each process does this itself, because it answers for all of them."""
        model = self.served.current if self.served.ready else None
        self.metrics.model(model, stale=bool(self.served.message))

    def classify(self, model: LoadedModel, faces: Images) -> Probabilities:
        """Classify faces u8 (n, 48, 48)."""
        probabilities = super().classify(model, faces)
        self.metrics.classified(probabilities)
        if self.shadow:
            self.shadow.offer(faces, probabilities, model.source)
        return probabilities
