"""Classify faces with an exported model. Needs onnxruntime only."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from emotion_detection.arrays import Images, Probabilities
from emotion_detection.decoding.onnx_file import PROVIDERS, check_onnx, refused, run_with_deadline, trial_session
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE
from emotion_detection.errors import ModelError, shorten

INPUT = ("tensor(uint8)", [IMAGE_SIZE, IMAGE_SIZE, 1])  # without the batch dimension
OUTPUT = ("tensor(float)", [len(EMOTIONS)])
BATCH_SIZE = 256  # large enough to use all cores, small enough to need little memory
SUM_TOLERANCE = 1e-3  # of the probabilities of a face


class EmotionClassifier:
    """An ONNX model of this project, loaded once."""

    def __init__(self, path: Path, *, name: str = "", threads: int = 0) -> None:
        """name: of the model in messages, instead of `path`. threads: of one call; 0 for one on each core.

        Raises ModelError if the file is not a usable model: see `check_model`.
        """
        check_model(path)
        self._name, self._session = name or str(path), _load(path, threads)
        self._input = self._session.get_inputs()[0].name

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata in the file: labels, input_size, temperature, run_id, dataset, architecture."""
        return _metadata(self._session)

    @property
    def temperature(self) -> float:
        """The divisor of the logits in the graph; 1.0 if the metadata does not contain it."""
        return float(self.metadata.get("temperature", 1))

    def probabilities(self, images: Images) -> Probabilities:
        """Classify any number of faces, including 0. Raises ModelError if a result is NaN or infinite."""
        starts = range(0, len(images), BATCH_SIZE)
        batches = [self._run(images[start : start + BATCH_SIZE]) for start in starts]
        return np.concatenate([np.empty((0, len(EMOTIONS)), np.float32), *batches])

    def _run(self, images: Images) -> Probabilities:
        probabilities: Probabilities = self._session.run(None, {self._input: images[..., np.newaxis]})[0]
        if not np.isfinite(probabilities).all():
            raise ModelError(f"{self._name} returned NaN or infinity for a face: train the model again")
        return probabilities


def check_model(path: Path) -> None:
    """Raise ModelError unless a file is a usable model.

    It must be an ONNX file with the operations, labels, input and output of this project, and return probabilities for
    two trial faces in bounded memory and time. Nothing of it runs before its operations are checked.
    """
    check_onnx(path)
    faces = np.zeros((2, IMAGE_SIZE, IMAGE_SIZE, 1), np.uint8)
    faces[1] = np.arange(IMAGE_SIZE**2).reshape(faces[1].shape) % 251
    try:
        with trial_session(path) as session:
            _check_labels(session, path)
            _check_temperature(session, path)
            _check_shapes(session, path)
            probabilities = run_with_deadline(session, {session.get_inputs()[0].name: faces})[0]
    except ModelError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no other common base
        raise refused(path, error) from error
    sums = probabilities.sum(axis=-1) if probabilities.shape == (2, len(EMOTIONS)) else np.array(math.nan)
    if not (np.abs(sums - 1) <= SUM_TOLERANCE).all() or (probabilities < 0).any():  # also if it is NaN
        raise ModelError(f"{path} does not return probabilities, but NaN or other values: train the model again")


def _load(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads sleep
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=PROVIDERS, enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions have no other common base
        raise refused(path, error) from error


def _metadata(session: onnxruntime.InferenceSession) -> dict[str, str]:
    return dict(session.get_modelmeta().custom_metadata_map)


def _check_labels(session: onnxruntime.InferenceSession, path: Path) -> None:
    """Probabilities carry no names, so the labels must be in the order of EMOTIONS."""
    labels = _metadata(session).get("labels")
    if labels != json.dumps(EMOTIONS):
        raise ModelError(
            f"{path} has the labels {shorten(labels)} instead of {list(EMOTIONS)}: use a model.onnx of the train stage"
        )


def _check_temperature(session: onnxruntime.InferenceSession, path: Path) -> None:
    text = _metadata(session).get("temperature", "1")
    try:
        is_valid = 0 < float(text) < math.inf
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ModelError(
            f"{path} has the temperature {shorten(text, 40)} instead of a number above 0: "
            "use a model.onnx of the train stage"
        )


def _check_shapes(session: onnxruntime.InferenceSession, path: Path) -> None:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if _forms(inputs) != [INPUT] or _forms(outputs)[:1] != [OUTPUT] or isinstance(inputs[0].shape[0], int):
        raise ModelError(
            f"{path} maps {_description(inputs)} to {_description(outputs)} instead of "
            f"{INPUT[0]} [n, {IMAGE_SIZE}, {IMAGE_SIZE}, 1] to {OUTPUT[0]} [n, {len(EMOTIONS)}]: "
            "use a model.onnx of the train stage"
        )


def _forms(values: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Type and shape of inputs or outputs, without the batch dimension."""
    return [(value.type, list(value.shape[1:])) for value in values if value.shape] + [
        ("scalar", []) for value in values if not value.shape
    ]


def _description(values: Sequence[Any]) -> str:
    return shorten(", ".join(f"{value.type} {value.shape}" for value in values[:5]) or "nothing")


def mirror_averaged(classifier: EmotionClassifier, images: Images) -> Probabilities:
    """The mean probabilities of each face and its mirror image."""
    both = np.stack([classifier.probabilities(images), classifier.probabilities(images[:, :, ::-1])])
    return both.mean(axis=0, dtype=np.float32)
