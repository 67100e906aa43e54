"""The model as MLflow serves it: faces or encoded pictures in, the probability of each emotion by its name out.

MLflow copies this file into each registered model and runs it there, so it uses no other module of the project. Only
encoded pictures need the package emotion-detection, which finds the faces, in the environment of the model.
"""

import base64
import binascii
import json
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported

import mlflow
import numpy as np
import onnxruntime
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel

if TYPE_CHECKING:
    import pandas as pd

SIDE = 48  # px of a face
BATCH_SIZE = 256  # faces in one call of the network, to bound its memory
UNSURE_BELOW = 0.4  # as in the command line's readings
# The first bytes of encoded pictures: JPEG, PNG, GIF, WebP, TIFF, and BMP with its size.
SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"II*\0", b"MM\0*"),
    b"BM" + (SIDE * SIDE).to_bytes(4, "little"),
)


class EmotionModel(PythonModel):
    """Runs the ONNX file of the model, whose metadata has the names of the emotions."""

    def load_context(self, context: Any) -> None:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads sleep
        self._path, providers = context.artifacts["model"], ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(self._path, options, providers=providers)
        self._emotions = json.loads(self._session.get_modelmeta().custom_metadata_map["labels"])
        self._recognizer: Any = None

    # The type is a plain array, because MLflow takes a more precise one for a schema.
    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> Any:  # noqa: ARG002
        """Read faces, or encoded pictures in which the faces are found first.

        Faces are numbers from 0 to 255 of the shape (n, 48, 48, 1) or (n, 48, 48); the answer is a dictionary for each
        of them: emotion -> probability. Anything else is a column of n pictures: the bytes of a JPEG, PNG, ... or of
        48x48 pixels, or their base64 text. The answer is a table with a row for each picture: the probabilities of the
        largest face, `faces` with all of them from left to right, and `error`, which says why a picture cannot be
        read. It is empty otherwise; MLflow would give Spark a null as the text "nan".
        Raises MlflowException for any other input.
        """
        column = _only_column(model_input)
        if column.ndim == 1 and column.dtype.kind in "OUS" and not _is_numbers(_first(column)):
            return self._read_pictures([_content(cell) for cell in column])
        probabilities = self._probabilities(_faces(column))
        return [dict(zip(self._emotions, row, strict=True)) for row in probabilities.tolist()]

    def _probabilities(self, faces: np.ndarray) -> np.ndarray:
        """faces: uint8 (n, 48, 48, 1). Returns f32 (n, 7)."""
        name = self._session.get_inputs()[0].name
        starts = range(0, len(faces), BATCH_SIZE)
        batches = [self._session.run(None, {name: faces[start : start + BATCH_SIZE]})[0] for start in starts]
        return np.concatenate([np.empty((0, len(self._emotions)), np.float32), *batches])

    def _read_pictures(self, contents: "list[bytes | str]") -> "pd.DataFrame":
        """Read one row for each picture; a text instead of its bytes is the reason why it has none."""
        import pandas as pd

        crops = [place for place, content in enumerate(contents) if _is_crop(content)]
        pixels = b"".join(contents[place] for place in crops)  # type: ignore[misc]
        faces = np.frombuffer(pixels, np.uint8).reshape(-1, SIDE, SIDE, 1)
        of_crop = dict(zip(crops, self._probabilities(faces), strict=True))
        rows = [
            self._row([_reading([0, 0, SIDE, SIDE], self._emotions, of_crop[place])])
            if place in of_crop
            else self._read_picture(content)
            for place, content in enumerate(contents)
        ]
        return pd.DataFrame(rows, columns=[*self._emotions, "faces", "error"])

    def _read_picture(self, content: "bytes | str") -> dict[str, Any]:
        if isinstance(content, str):
            return self._row([], content)
        recognizer = self._load_recognizer()
        try:
            readings = recognizer.recognize(content)
        except Exception as error:  # one damaged picture must not stop a job of millions
            return self._row([], str(error) or type(error).__name__)
        boxes = [[one.box.left, one.box.top, one.box.width, one.box.height] for one in readings]
        pairs = zip(boxes, readings, strict=True)
        return self._row([_reading(box, self._emotions, one.probabilities) for box, one in pairs])

    def _row(self, faces: list[dict[str, Any]], error: str = "") -> dict[str, Any]:
        largest = max(faces, key=lambda face: face["box"][2] * face["box"][3], default=None)
        probabilities = largest["probabilities"] if largest else [None] * len(self._emotions)
        return dict(zip(self._emotions, probabilities, strict=True)) | {"faces": faces, "error": error}

    def _load_recognizer(self) -> Any:
        if self._recognizer is None:
            try:
                package = import_module("emotion_detection")  # not a dependency: see above
            except ImportError as error:
                raise MlflowException.invalid_parameter_value(
                    "encoded pictures need the package emotion-detection in the model's environment, which finds the "
                    "faces: install it there and use --env-manager local, or pass faces of 48x48 pixels"
                ) from error
            self._recognizer = package.Recognizer.load(self._path)
        return self._recognizer


def _only_column(model_input: Any) -> np.ndarray:
    """The input as an array; MLflow passes it by its name in the signature."""
    if isinstance(model_input, dict) and len(model_input) == 1:
        (model_input,) = model_input.values()
    elif hasattr(model_input, "columns") and len(model_input.columns) == 1:
        model_input = model_input[model_input.columns[0]].to_numpy(object)
    if isinstance(model_input, list) and model_input and isinstance(model_input[0], bytes | str):
        return np.array(model_input, object)  # an array of bytes would lose zeros at their ends
    return np.asarray(model_input)


def _first(column: np.ndarray) -> Any:
    """The first cell that is not null; None if there is none."""
    return next((cell for cell in column if cell is not None and not (isinstance(cell, float) and cell != cell)), None)


def _is_numbers(cell: Any) -> bool:
    return isinstance(cell, list | tuple | int | float) or (isinstance(cell, np.ndarray) and cell.ndim > 0)


def _faces(numbers: np.ndarray) -> np.ndarray:
    """The faces as uint8 (n, 48, 48, 1)."""
    try:
        is_plain = numbers.dtype != object
        values = numbers if is_plain else np.array([np.asarray(one).tolist() for one in numbers])
        faces = values.reshape(len(values), SIDE, SIDE, 1)
    except (TypeError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"faces of the shape {numbers.shape} cannot be read: pass (n, {SIDE}, {SIDE}, 1), or a column of encoded "
            "pictures"
        ) from error
    if faces.dtype != np.uint8 and (faces.dtype.kind not in "iu" or (faces.size and not _are_bytes(faces))):
        raise MlflowException.invalid_parameter_value("pixels must be whole numbers from 0 to 255: convert them")
    return faces.astype(np.uint8, copy=False)


def _are_bytes(values: np.ndarray) -> bool:
    return bool(values.min() >= 0 and values.max() <= 255)


def _content(cell: Any) -> "bytes | str":
    """The bytes of a picture, or why there are none."""
    if isinstance(cell, np.ndarray) and not cell.ndim:  # from JSON with a dictionary for each picture
        cell = cell.item()
    if isinstance(cell, str):
        try:
            return base64.b64decode(cell, validate=True)
        except (binascii.Error, ValueError):
            return "the text is not base64: encode the bytes of the picture"
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes(cell)
    return f"a picture must be bytes or base64 text, not {type(cell).__name__}"


def _is_crop(content: "bytes | str") -> bool:
    """Whether the content is the pixels of a face, and not an encoded picture that happens to have as many bytes."""
    if isinstance(content, str) or len(content) != SIDE * SIDE:
        return False
    return not content.startswith(SIGNATURES) and content[4:8] != b"ftyp"


def _reading(box: list[int], emotions: list[str], probabilities: np.ndarray) -> dict[str, Any]:
    confidence = float(probabilities.max())
    return {
        "box": box,
        "emotion": emotions[int(probabilities.argmax())],
        "confidence": confidence,
        "unsure": confidence < UNSURE_BELOW,
        "probabilities": probabilities.tolist(),
    }


mlflow.models.set_model(EmotionModel())
