"""Which model answers: the registry's champion, followed when it moves, or a file."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from emotion_detection.errors import InputError
from emotion_detection.inference import pretrained
from emotion_detection.inference.class_activation import ClassActivation
from emotion_detection.inference.classifier import EmotionClassifier

POLL_S = 5


@dataclass(frozen=True)
class Model:
    """A loaded model, where it comes from, and its heat map, if its network has one."""

    classifier: EmotionClassifier
    heat: ClassActivation | None
    path: Path
    source: str  # a file, or models:/name/number
    tags: dict[str, str]


class Serving:
    """The model in use; it may change between two frames, and every part of a frame is read by one model."""

    def __init__(self, source: str | None) -> None:
        """source: an ONNX file, models:/name@alias, or None: the registry's champion.

        A registry is asked in the background, since MLflow takes seconds to load: until it has answered, the model
        that ships does the work. InputError if a file is none of ours.
        """
        is_file = source is not None and not source.startswith("models:/")
        self.uri = None if is_file else (source or pretrained.CHAMPION)
        self.message = "" if is_file else "The registry has not answered yet: this is the model that ships."
        self._looking = threading.Lock()
        self.model = load(Path(source)) if is_file and source else load(pretrained.MODEL)
        if self.uri:
            threading.Thread(target=self._follow, daemon=True, name="registry").start()

    def use(self, uri: str) -> None:
        """Serve another alias or version from now on; waits until it does or cannot."""
        with self._looking:
            self.uri = uri
            self._look()

    def _follow(self) -> None:
        while True:
            with self._looking:
                self._look()
            time.sleep(POLL_S)

    def _look(self) -> None:
        """Ask the registry which version the uri stands for now, and load it if it is another one."""
        from emotion_detection.experiments import registry  # MLflow, see above

        uri = self.uri
        try:
            if uri == pretrained.CHAMPION:
                pretrained.seed()
            version = registry.resolve(str(uri))
            source = f"models:/{version.name}/{version.number}"
            if source != self.model.source:
                self.model = load(registry.fetch(source), source=source, tags=version.tags)
            self.message = ""
        except Exception as error:  # whatever a registry answers, the faces go on being read
            self.message = f"{' '.join(str(error).split())}. Still serving {self.model.source}."

    def versions(self) -> list[dict[str, str]]:
        """A row for each registered version, the newest first; none without a registry."""
        from emotion_detection.experiments import registry

        if not self.uri:
            return []
        name = self.uri.removeprefix("models:/").partition("@")[0].partition("/")[0]
        try:
            found = registry.versions(name)
        except InputError:
            return []
        told = ("dataset", "val_accuracy", "val_macro_f1", "test_accuracy", "test_macro_f1", "run_id", "git_commit")
        return [
            {"version": str(one.number), "aliases": ", ".join(one.aliases)}
            | {key: one.tags.get(key, "") for key in told}
            for one in found
        ]


def load(path: Path, *, source: str | None = None, tags: dict[str, str] | None = None) -> Model:
    classifier = EmotionClassifier(path)
    try:
        heat = ClassActivation(path)
    except InputError:  # the network has no maps to show
        heat = None
    return Model(classifier, heat, path, source or str(path), tags or {})
