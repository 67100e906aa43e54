"""The model that the demo serves: the registry's champion, also after its alias moves, or a file."""

import threading
from dataclasses import dataclass
from pathlib import Path

from emotion_detection.errors import ModelError, UsageError
from emotion_detection.inference import pretrained
from emotion_detection.inference.class_activation import ClassActivationMapper
from emotion_detection.inference.classifier import EmotionClassifier

POLL_S = 5
URI_CHARACTERS = 200
SHOWN_TAGS = ("dataset", "val_accuracy", "val_macro_f1", "test_accuracy", "test_macro_f1", "run_id", "git_commit")


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory. class_activation is None if its network has no class activation maps."""

    classifier: EmotionClassifier
    class_activation: ClassActivationMapper | None
    source: str  # a file, or models:/NAME/NUMBER
    tags: dict[str, str]


def load_model(path: Path, *, source: str | None = None, tags: dict[str, str] | None = None) -> LoadedModel:
    """Load an ONNX file; `source` is its name in the registry."""
    classifier = EmotionClassifier(path)
    try:
        class_activation = ClassActivationMapper(path)
    except ModelError:
        class_activation = None
    return LoadedModel(classifier, class_activation, source or str(path), tags or {})


class ServedModel:
    """Holds the current model. Take `current` once per frame: another thread may replace it at any time."""

    def __init__(self, source: str | None) -> None:
        """source: an ONNX file, models:/NAME@ALIAS, or None for the registry's champion.

        The shipped model is served until the registry has responded. Raises ModelError if a file cannot be loaded.
        """
        is_file = source is not None and not source.startswith("models:/")
        self.uri = None if is_file else (source or pretrained.CHAMPION)
        self.message = "" if is_file else "The registry has not responded yet. Serving the shipped model."
        self._updating = threading.Lock()
        self._listing = threading.Lock()
        self._connected = False
        self._listed = True  # whether the list of versions is as new as the last query
        self._closed = threading.Event()
        self._versions: list[dict[str, str]] = []
        self._follower: threading.Thread | None = None
        self.current = load_model(Path(source)) if is_file and source else load_model(pretrained.MODEL)

    def follow(self) -> None:
        """Query the registry every few seconds in a background thread. A file is never replaced."""
        if self.uri and self._follower is None:
            self._follower = threading.Thread(target=self._poll, daemon=True, name="registry")
            self._follower.start()

    def close(self, *, wait_s: float = 1) -> None:
        """Stop following the registry. A query of a server that does not answer is not waited for any longer."""
        self._closed.set()
        if self._follower is not None:
            self._follower.join(wait_s)

    def _poll(self) -> None:
        while not self._closed.is_set():
            self.update()
            self._closed.wait(POLL_S)

    def switch(self, uri: str) -> None:
        """Serve another alias or version. If it cannot be loaded, the current one stays, and `message` says why.

        Raises UsageError if `uri` does not name a registered model.
        """
        from emotion_detection.experiments.registry import parse_model_uri  # MLflow takes seconds to import

        if len(uri) > URI_CHARACTERS:
            raise UsageError(f"the model's name is longer than {URI_CHARACTERS} characters: use models:/NAME@ALIAS")
        parse_model_uri(uri)
        with self._updating:
            if self._update(uri):
                self.uri = uri
        self.follow()  # an alias may move

    def update(self) -> None:
        """Load the version that `uri` currently names, unless it is loaded already."""
        with self._updating:
            if self.uri:
                self._update(self.uri)

    def _update(self, uri: str) -> bool:
        """Load what `uri` names, unless it is loaded already; return whether that worked.

        This is one read of the registry. Only the first one writes, and only in a new store.
        """
        from emotion_detection.experiments import registry, runs

        try:
            if not self._connected:
                runs.connect()
                pretrained.seed_new_store()
                self._connected = True
            version = registry.look_up(uri)
            source = f"models:/{version.name}/{version.number}"
            if source != self.current.source:
                self.current = load_model(registry.fetch(source), source=source, tags=version.tags)
            self.message = ""
        except Exception as error:  # a broken registry must not stop the demo
            self.message = f"{' '.join(str(error).split())}. Still serving {self.current.source}."
            self._listed = not isinstance(error, registry.NotRegisteredError)
            return False
        self._listed = False
        return True

    @property
    def name(self) -> str:
        """The registered model that `uri` names; empty for a file."""
        from emotion_detection.experiments.registry import parse_model_uri

        return parse_model_uri(self.uri).name if self.uri else ""

    def versions(self) -> list[dict[str, str]]:
        """A row for each registered version of the project's models; empty without a registry.

        The served model comes first, and of each model the newest version. Each data set has its own model. The
        registry is asked at most once after each update, so that only pages that show the list cost it something.
        """
        if not self._listed and self._listing.acquire(blocking=False):
            try:
                self._listed = True
                self._list_versions()
            finally:
                self._listing.release()
        return list(self._versions)

    def _list_versions(self) -> None:
        from emotion_detection.experiments import registry

        try:
            names = {name for name in registry.model_names() if name.startswith(pretrained.MODEL_NAME)} | {self.name}
            found = [version for name in sorted(names, key=self._place) for version in registry.versions(name)]
        except Exception:  # `message` has the reason; the last list stays
            return
        self._versions = [
            {"model": version.name, "version": str(version.number), "aliases": ", ".join(version.aliases)}
            | {key: version.tags.get(key, "") for key in SHOWN_TAGS}
            for version in found
        ]

    def _place(self, name: str) -> tuple[bool, str]:
        return name != self.name, name
