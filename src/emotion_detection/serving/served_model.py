"""The model that a service answers with: what an alias of the registry names, also after the alias moves, or a file."""

import hashlib
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from emotion_detection.decoding.onnx_file import MAX_BYTES, refused
from emotion_detection.emotions import IMAGE_SIZE
from emotion_detection.errors import ModelError, shorten
from emotion_detection.experiments.model_uri import parse_model_uri
from emotion_detection.inference import pretrained
from emotion_detection.inference.classifier import EmotionClassifier

POLL_S = 5.0
RETRY_S = 60.0  # after a version was refused
REGISTERED = "models:/"
NOTHING_REFUSED = ("", 0.0, "")
DIGITS = 12  # of the SHA-256 that stand for the version of a file

logger = logging.getLogger(__name__)
_importing = threading.Lock()  # champion and challenger import MLflow at the same time


class NotReadyError(ModelError):
    """No model is loaded yet."""


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, and what an answer says about it."""

    classifier: EmotionClassifier
    source: str  # a file, or models:/NAME/NUMBER
    sha256: str  # of the ONNX file that is in memory
    tags: Mapping[str, str]

    @property
    def name(self) -> str:
        """The name in the registry; for a file, that of the project's model."""
        return parse_model_uri(self.source).name if self.source.startswith(REGISTERED) else pretrained.MODEL_NAME

    @property
    def version(self) -> str:
        """The number in the registry; for a file, the first digits of its SHA-256."""
        return self.source.rpartition("/")[2] if self.source.startswith(REGISTERED) else self.sha256[:DIGITS]


def shown_source(source: str) -> str:
    """A source for clients: models:/NAME/NUMBER, or the name of a file without its folder."""
    return source if source.startswith(REGISTERED) else Path(source).name


Model = TypeVar("Model", bound=LoadedModel, covariant=True)
Followed = TypeVar("Followed", bound=LoadedModel)


class Loader(Protocol[Model]):
    """Loads the file `path`, which is gone afterwards. `source` and `tags` describe it."""

    def __call__(self, path: Path, source: str, tags: Mapping[str, str]) -> Model: ...


def load_model(path: Path, source: str, tags: Mapping[str, str], *, threads: int = 0) -> LoadedModel:
    """Load an ONNX file and classify a face with it, which prepares onnxruntime for the first request.

    threads: of onnxruntime for one call; 0 for one on each core. Raises ModelError if the file is not a usable model.
    """
    classifier = EmotionClassifier(path, name=source, threads=threads)
    classifier.probabilities(np.zeros((1, IMAGE_SIZE, IMAGE_SIZE), np.uint8))
    return LoadedModel(classifier, source, sha256_of(path), tags)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class ServedModel(Generic[Followed]):
    """Holds the current model. Take `current` once per request: another thread may replace it at any time.

    A file is loaded once. For a name in the registry, `follow` starts a thread that asks every few seconds what the
    name stands for. A new version is fetched into a private folder, compared with its SHA-256 in the registry, loaded
    and tried there, and then takes the place of the old one in one assignment. If any of this fails, the old version
    stays, and `message` says why. Rights to read the registry are enough.
    """

    def __init__(
        self,
        source: str,
        load: Loader[Followed],
        *,
        first: Followed | None = None,
        seeds: bool = False,
        observe: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """source: an ONNX file, models:/NAME@ALIAS or models:/NAME/NUMBER.

        first: what to serve until the registry has responded. observe: called after each query of the registry.
        seeds: register the shipped model in the project's own SQLite file if that never had a champion. Without it,
        nothing is written to the registry.
        Raises ModelError if a file is not a usable model, and UsageError for a malformed name.
        """
        self.uri = source if source.startswith(REGISTERED) else None
        self.message = ""
        self._load, self._observe, self._clock = load, observe, clock
        self._seeds = seeds
        self._current = first
        self._updating = threading.Lock()
        self._connected = False
        self._refused = NOTHING_REFUSED  # the refused version, when to try it again, and the reason
        self._closed = threading.Event()
        self._follower: threading.Thread | None = None
        if self.uri:
            parse_model_uri(self.uri)
            self.message = f"{self.uri} is not loaded yet: the registry has not responded."
        else:
            self._current = load_file(Path(source), load)

    @property
    def ready(self) -> bool:
        """Whether there is a model to answer with."""
        return self._current is not None

    @property
    def current(self) -> Followed:
        """The model to answer with. Raises NotReadyError until the first one is loaded."""
        model = self._current
        if model is None:
            raise NotReadyError(self.message)
        return model

    @current.setter
    def current(self, model: Followed) -> None:
        self._current = model

    def follow(self, *, poll_s: float = POLL_S) -> None:
        """Ask the registry every few seconds in a background thread. A file is never replaced."""
        if self.uri and self._follower is None:
            self._follower = threading.Thread(target=self._poll, args=(poll_s,), daemon=True, name="registry")
            self._follower.start()

    def close(self, *, wait_s: float = 1) -> None:
        """Stop following the registry. A query of a server that does not answer is not waited for any longer."""
        self._closed.set()
        if self._follower is not None:
            self._follower.join(wait_s)

    def _poll(self, poll_s: float) -> None:
        while not self._closed.is_set():
            self.update()
            self._closed.wait(poll_s)

    def update(self) -> None:
        """Load the version that the name currently stands for, unless it is loaded already."""
        with self._updating:
            if self.uri:
                self._update(self.uri)
                self._observe()

    def _update(self, uri: str) -> bool:
        """Load what `uri` names, unless it is loaded already; return whether that worked.

        This is one read of the registry. Only the first one may write: see `seeds`.
        """
        try:
            self._load_named(uri)
        except Exception as error:  # a broken registry must not stop the service
            self._note_failure(error)
            return False
        self.message = ""
        return True

    def _note_failure(self, error: Exception) -> None:
        served = f"Still serving {self._current.source}." if self._current else "No model is served."
        message = f"{shorten(error, 600).rstrip('.')}. {served}"
        if message != self.message:
            logger.warning("%s", message)
        self.message = message

    def _load_named(self, uri: str) -> None:
        with _importing:
            from emotion_detection.experiments import registry, runs  # MLflow takes seconds to import

        if not self._connected:
            runs.connect()
            if self._seeds and parse_model_uri(uri).name == pretrained.MODEL_NAME:
                pretrained.seed_new_store()
            self._connected = True
        version = registry.look_up(uri)
        source = f"{REGISTERED}{version.name}/{version.number}"
        if self._current is not None and source == self._current.source:
            return
        refused_source, retry_at, reason = self._refused
        if source == refused_source and self._clock() < retry_at:
            raise ModelError(reason)
        try:
            with tempfile.TemporaryDirectory(prefix="emotion-detection-") as folder:
                self._current = _load_copy(registry.fetch(source, Path(folder)), self._load, source, version.tags)
        except ModelError as error:  # another try would download the same file
            self._refused = (source, self._clock() + RETRY_S, str(error))
            raise
        logger.info("Serving %s.", source)


def load_file(path: Path, load: Loader[Model]) -> Model:
    """Load an ONNX file. The bytes that are hashed are those that are loaded, even if the file changes meanwhile."""
    with tempfile.TemporaryDirectory(prefix="emotion-detection-") as folder:
        copy = Path(folder) / "model.onnx"
        try:
            with path.open("rb") as stream:
                copy.write_bytes(stream.read(MAX_BYTES + 1))
        except OSError as error:
            raise refused(path, error.strerror) from error
        return _load_copy(copy, load, str(path), {})


def _load_copy(copy: Path, load: Loader[Model], source: str, tags: Mapping[str, str]) -> Model:
    try:
        return load(copy, source, tags)
    except ModelError as error:
        raise ModelError(str(error).replace(str(copy), source)) from error
