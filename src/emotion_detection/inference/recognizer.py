"""Read the expressions of all faces in a picture, with one call of the network."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import cv2
import numpy as np

from emotion_detection.arrays import Frame, Gray
from emotion_detection.decoding.images import MAX_PIXELS, decode, read_image, to_8_bits
from emotion_detection.errors import MediaError, ModelError
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.inference.detector import FaceDetector, HaarDetector, to_gray, to_model_input
from emotion_detection.inference.pretrained import MODEL
from emotion_detection.inference.reading import Box, Reading

if TYPE_CHECKING:
    from PIL import Image

    Picture: TypeAlias = Frame | str | Path | bytes | Image.Image


class Recognizer:
    """Reads single pictures. `face_tracker.FaceTracker` reads videos with it."""

    def __init__(
        self, classifier: EmotionClassifier, detector: FaceDetector, *, faces: Literal["all", "largest"] = "all"
    ) -> None:
        self.classifier, self.detector, self.faces = classifier, detector, faces

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        detector: FaceDetector | None = None,
        faces: Literal["all", "largest"] = "all",
    ) -> "Recognizer":
        """Load a model: an ONNX file, models:/<name>@<alias>, models:/<name>/<version>, or the shipped model.

        Raises ModelError if the model does not exist or is not a model of this project.
        """
        return cls(EmotionClassifier(_model_path(model)), detector or HaarDetector(), faces=faces)

    def recognize(self, picture: "Picture") -> list[Reading]:
        """Return the readings of a picture from left to right.

        picture: a uint8 RGB array (height, width, 3), the path or the bytes of a picture file, or a PIL picture.
        Raises TypeError for anything else, ValueError for an array of another form, and MediaError for a file that
        cannot be read.
        """
        gray = to_gray(to_frame(picture))
        return self.read(gray, self.select(self.detector.detect(gray)))

    def select(self, boxes: Sequence[Box]) -> list[Box]:
        """All boxes from left to right, or only the largest one."""
        if self.faces == "largest":
            return sorted(boxes, key=lambda box: box.width * box.height)[-1:]
        return sorted(boxes, key=lambda box: (box.left, box.top))

    def read(self, gray: Gray, boxes: Sequence[Box]) -> list[Reading]:
        """Classify the face in each box."""
        faces = to_model_input(gray, boxes, margin=self.detector.margin)
        return [Reading(box, row) for box, row in zip(boxes, self.classifier.probabilities(faces), strict=True)]


class FaceCrops:
    """Stands in for a detector when each picture is a face already: the face is the complete picture."""

    margin = 0.0

    def detect(self, gray: Gray, *, smallest_px: int = 0, largest_px: int = 0) -> list[Box]:  # noqa: ARG002
        """The box of the complete picture."""
        height, width = gray.shape
        return [Box(0, 0, width, height)]


def to_frame(picture: "Picture") -> Frame:
    """Convert what `Recognizer.recognize` takes to a frame u8 (height, width, 3). Raises the same errors."""
    if isinstance(picture, np.ndarray):
        return picture  # to_gray checks its form
    if isinstance(picture, str | Path):
        return read_image(picture)
    if isinstance(picture, bytes | bytearray | memoryview):
        return decode(bytes(picture), "the picture")
    from PIL import Image

    if isinstance(picture, Image.Image):
        return _from_pil(picture)
    raise TypeError(
        "a picture must be a uint8 array (height, width, 3) in RGB, a path, the bytes of a file or a PIL picture, "
        f"not {type(picture).__name__}"
    )


def _from_pil(picture: "Image.Image") -> Frame:
    """Convert a PIL picture of any mode, upright by its EXIF orientation. Transparency is dropped, as in files."""
    from PIL import ImageOps

    name = str(getattr(picture, "filename", "") or "the PIL picture")
    if not picture.width * picture.height:
        raise ValueError(f"{name} is empty ({picture.width}x{picture.height} px): use a picture with pixels in it")
    if picture.width * picture.height > MAX_PIXELS:
        raise MediaError(f"{name} has more than {MAX_PIXELS / 1e6:.3g} megapixels: scale the image down")
    try:
        upright = ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, ValueError) as error:  # PIL reads a file lazily
        raise MediaError(f"{name} is damaged or not a readable image: use a JPEG or PNG") from error
    if upright.mode.startswith(("I", "F")):  # PIL would cut values above 255 off
        return cv2.cvtColor(to_8_bits(np.array(upright)), cv2.COLOR_GRAY2RGB)
    return np.array(upright.convert("RGB"))


def _model_path(model: str | Path | None) -> Path:
    if model is None:
        return MODEL
    if not str(model).startswith("models:/"):
        return Path(model)
    try:
        from emotion_detection.experiments.registry import fetch  # MLflow takes seconds to import
    except ModuleNotFoundError as error:
        raise ModelError(f"{model} needs the package {error.name}: pip install {error.name}") from error
    return fetch(str(model))
