"""The model that the demo serves: the registry's champion, also after its alias moves, or a file."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emotion_detection.errors import ModelError, UsageError
from emotion_detection.experiments.model_uri import parse_model_uri
from emotion_detection.inference import pretrained
from emotion_detection.inference.class_activation import ClassActivationMapper
from emotion_detection.serving import served_model

POLL_S = 5.0
URI_CHARACTERS = 200
SHOWN_TAGS = ("dataset", "val_accuracy", "val_macro_f1", "test_accuracy", "test_macro_f1", "run_id", "git_commit")


@dataclass(frozen=True)
class LoadedModel(served_model.LoadedModel):
    """A model in memory. class_activation is None if its network has no class activation maps."""

    class_activation: ClassActivationMapper | None


def load_model(path: Path, source: str, tags: Mapping[str, str]) -> LoadedModel:
    """Load an ONNX file; `source` is its path or its name in the registry."""
    model = served_model.load_model(path, source, tags)
    try:
        class_activation = ClassActivationMapper(path)
    except ModelError:
        class_activation = None
    return LoadedModel(model.classifier, model.source, model.sha256, model.tags, class_activation)


class ServedModel(served_model.ServedModel[LoadedModel]):
    """The model of the demo, which people may switch, and the list of what they can switch to."""

    def __init__(self, source: str | None) -> None:
        """source: an ONNX file, models:/NAME@ALIAS, or None for the registry's champion.

        The shipped model is served until the registry has responded. Raises ModelError if a file cannot be loaded.
        """
        source = source or pretrained.CHAMPION
        is_file = not source.startswith(served_model.REGISTERED)
        first = None if is_file else served_model.load_file(pretrained.MODEL, load_model)
        super().__init__(source, load_model, first=first, seeds=True)
        if not is_file:
            self.message = "The registry has not responded yet. Serving the shipped model."
        self._listing = threading.Lock()
        self._listed = True  # whether the list of versions is as new as the last query
        self._versions: list[dict[str, str]] = []

    def follow(self, *, poll_s: float | None = None) -> None:
        """Ask the registry every few seconds in a background thread. A file is never replaced."""
        super().follow(poll_s=POLL_S if poll_s is None else poll_s)

    def switch(self, uri: str) -> None:
        """Serve another alias or version. If it cannot be loaded, the current one stays, and `message` says why.

        Raises UsageError if `uri` does not name a registered model.
        """
        if len(uri) > URI_CHARACTERS:
            raise UsageError(f"the model's name is longer than {URI_CHARACTERS} characters: use models:/NAME@ALIAS")
        parse_model_uri(uri)
        with self._updating:
            self._refused = served_model.NOTHING_REFUSED
            if self._update(uri):
                self.uri = uri
        self.follow()  # an alias may move

    def _update(self, uri: str) -> bool:
        worked = super()._update(uri)
        if worked:
            self._listed = False
        return worked

    def _note_failure(self, error: Exception) -> None:
        from emotion_detection.experiments.registry import NotRegisteredError

        super()._note_failure(error)
        self._listed = not isinstance(error, NotRegisteredError)

    @property
    def name(self) -> str:
        """The registered model that `uri` names; empty for a file."""
        return parse_model_uri(self.uri).name if self.uri else ""

    @property
    def known_versions(self) -> list[dict[str, str]]:
        """What `versions` has returned last; asks nothing."""
        return list(self._versions)

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
