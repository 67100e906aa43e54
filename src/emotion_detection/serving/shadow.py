"""A challenger that sees a share of the champion's faces. It never delays an answer and never changes one."""

import logging
import os
import queue
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from emotion_detection.arrays import Images, Probabilities
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import UsageError
from emotion_detection.serving.comparison import Comparison
from emotion_detection.serving.metrics import ShadowMetrics
from emotion_detection.serving.served_model import POLL_S, LoadedModel, ServedModel, load_model, shown_source

MAX_FACES = 32  # of a request; a large batch would keep a core busy
LOWEST_PRIORITY = 19  # as of `nice`

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Offer:
    """Faces that the champion has classified."""

    crops: Images
    probabilities: Probabilities
    champion: str  # its source


@dataclass
class Evidence:
    """Counts about one champion and one challenger. No face and no probability of a face is kept."""

    champion: str = ""  # sources
    challenger: str = ""
    difference: float = 0.0  # sum over faces
    # Rows: the champion's emotions. Columns: the challenger's.
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((len(EMOTIONS), len(EMOTIONS)), np.int64))

    def add(self, champion: Probabilities, challenger: Probabilities) -> None:
        """Count faces by the probabilities of both models, f32 (n, 7)."""
        np.add.at(self.counts, (champion.argmax(axis=1), challenger.argmax(axis=1)), 1)
        self.difference += float(np.abs(champion - challenger).mean(axis=1).sum())

    def comparison(self) -> Comparison:
        """The counts so far."""
        faces = int(self.counts.sum())
        return Comparison(
            champion=shown_source(self.champion),
            challenger=shown_source(self.challenger),
            faces=faces,
            agreement=float(self.counts.trace() / faces) if faces else None,
            mean_difference=self.difference / faces if faces else None,
            emotions=list(EMOTIONS),
            counts=self.counts.tolist(),
        )


class Shadow:
    """Classifies a share of the faces again, in a thread with the lowest priority.

    A request that comes while the thread is busy is skipped and counted: nothing waits.
    """

    def __init__(
        self,
        source: str,
        metrics: ShadowMetrics,
        *,
        share: float = 0.1,
        choose: Callable[[], float] = random.random,
    ) -> None:
        """source: the challenger, as for `ServedModel`. share: of the requests, 0 to 1.

        Raises UsageError if the share or the name is wrong, and ModelError if a file is not a usable model.
        """
        if not 0 <= share <= 1:
            raise UsageError(f"the share of the shadow is {share}: use a number from 0 to 1")
        self.model = ServedModel[LoadedModel](source, partial(load_model, threads=1))
        self._metrics, self._share, self._choose = metrics, share, choose
        self._offers = queue.Queue[Offer | None](maxsize=1)
        self._evidence, self._counting = Evidence(), threading.Lock()
        self._worker: threading.Thread | None = None

    def follow(self, *, poll_s: float = POLL_S) -> None:
        """Follow the registry, and compare what is offered."""
        self.model.follow(poll_s=poll_s)
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, daemon=True, name="shadow")
            self._worker.start()

    def close(self, *, wait_s: float = 5) -> bool:
        """Tell both threads to end, wait for each of them, and return whether the one that classifies has ended."""
        self.model.close(wait_s=wait_s)
        if self._worker is None:
            return True
        with suppress(queue.Full):  # the worker does not respond
            self._offers.put(None, timeout=wait_s)
        self._worker.join(wait_s)
        return not self._worker.is_alive()

    def offer(self, crops: Images, probabilities: Probabilities, champion: str = "") -> None:
        """Let the challenger see faces u8 (n, 48, 48) or (n, 48, 48, 1), by chance. Never waits.

        probabilities: what the champion, whose source is `champion`, has answered, f32 (n, 7).
        """
        if not len(crops) or self._choose() >= self._share:
            return
        faces = crops[:MAX_FACES].reshape(-1, *crops.shape[1:3]).copy()
        try:
            self._offers.put_nowait(Offer(faces, probabilities[:MAX_FACES].copy(), champion))
        except queue.Full:
            self._metrics.result("skipped")

    def evidence(self) -> Comparison:
        """The comparison of the present champion and challenger in this process."""
        with self._counting:
            return self._evidence.comparison()

    def _work(self) -> None:
        with suppress(OSError, AttributeError):  # Linux has a priority for each thread
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        while (offer := self._offers.get()) is not None:
            try:
                self._compare(offer)
            except Exception as error:  # a broken challenger must not stop the service
                self._metrics.result("failed")
                logger.warning("The shadow could not classify a face: %s", error)

    def _compare(self, offer: Offer) -> None:
        if not self.model.ready:
            self._metrics.result("skipped")
            return
        challenger = self.model.current
        probabilities = challenger.classifier.probabilities(offer.crops)
        with self._counting:
            if (self._evidence.champion, self._evidence.challenger) != (offer.champion, challenger.source):
                self._evidence = Evidence(offer.champion, challenger.source)
            self._evidence.add(offer.probabilities, probabilities)
        self._metrics.compared(offer.probabilities, probabilities)
