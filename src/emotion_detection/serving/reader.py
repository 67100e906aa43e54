"""Reads pictures and faces with the served model, whatever server the requests come from."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from emotion_detection.arrays import Images, Probabilities
from emotion_detection.decoding.images import decode
from emotion_detection.errors import TooLargeError
from emotion_detection.inference.detector import FaceDetector, to_gray, to_model_input
from emotion_detection.inference.reading import Reading
from emotion_detection.inference.recognizer import FaceCrops, Recognizer
from emotion_detection.serving.served_model import LoadedModel, ServedModel
from emotion_detection.serving.settings import Limits

FacesMode = Literal["all", "largest"]
Result = TypeVar("Result")


@dataclass(frozen=True)
class ReadPicture:
    """A picture that was read."""

    source: str
    width: int
    height: int
    readings: Sequence[Reading]


class Queue(Protocol):
    """Runs work in threads."""

    async def run(
        self, client: str, work: Callable[[], Result], *, size: int, left: Callable[[], Awaitable[bool]]
    ) -> Result:
        """Call `work` when it is the turn of the client, an address. size: bytes of the request.

        left: whether the client has left meanwhile. Raises RequestError if too many requests wait.
        """
        ...


class Reader:
    """The served model, a detector, and the queue in which requests wait. Thread-safe but for `queue`."""

    def __init__(self, served: ServedModel[Any], detector: FaceDetector, queue: Queue, limits: Limits) -> None:
        self.served, self.detector, self.queue, self.limits = served, detector, queue, limits

    @property
    def ready(self) -> bool:
        """Whether requests should come here."""
        return self.served.ready

    def classify(self, model: LoadedModel, faces: Images) -> Probabilities:
        """Classify faces u8 (n, 48, 48)."""
        return model.classifier.probabilities(faces)

    def read(
        self, model: LoadedModel, content: bytes, source: str, *, faces: FacesMode = "all", crops: bool = False
    ) -> ReadPicture:
        """Read the faces in a picture. crops: the complete picture is one face.

        Raises MediaError if the picture cannot be read, and TooLargeError if it has too many pixels or faces.
        """
        frame = decode(content, source, max_pixels=self.limits.pixels)
        detector = FaceCrops() if crops else self.detector
        gray = to_gray(frame)
        boxes = Recognizer(model.classifier, detector, faces=faces).select(detector.detect(gray))
        if len(boxes) > self.limits.faces:
            raise TooLargeError(f"{source} has more than {self.limits.faces} faces: send a part of it")
        probabilities = self.classify(model, to_model_input(gray, boxes, margin=detector.margin))
        readings = [Reading(box, row) for box, row in zip(boxes, probabilities, strict=True)]
        return ReadPicture(source, frame.shape[1], frame.shape[0], readings)
