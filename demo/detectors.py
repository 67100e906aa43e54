"""The face detectors that a page may choose. Each is loaded when it is first used: YuNet may have to be downloaded."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock

from emotion_detection.inference.detector import FaceDetector, load_detector

NAMES = ("haar", "yunet")
LABELS = {"haar": "Haar (built in)", "yunet": "YuNet (downloaded once)"}


class Detectors(Mapping[str, FaceDetector]):
    """Detectors by name, the default first. A lookup loads; it raises ModelError as `load_detector` does."""

    def __init__(self, default: str) -> None:
        """default: haar, yunet or the path of a YuNet file, which then stands for yunet. It is loaded at once."""
        first = default if default in NAMES else "yunet"
        self._sources = {first: default} | {name: name for name in NAMES if name != first}
        self._loaded = {first: load_detector(default)}
        self._lock = Lock()

    def __getitem__(self, name: str) -> FaceDetector:
        source = self._sources[name]
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load_detector(Path(source) if source not in NAMES else source)
            return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._sources  # without loading it

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def default(self) -> str:
        """The name of the first detector."""
        return next(iter(self))
