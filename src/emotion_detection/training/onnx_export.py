"""Export a trained model to a compact ONNX file that is verified against the Keras model."""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from emotion_detection.atomic import atomic_output
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE
from emotion_detection.errors import ModelError
from emotion_detection.inference.classifier import EmotionClassifier

logger = logging.getLogger(__name__)

# The largest allowed difference of a probability between Keras and onnxruntime, with weights in float32 and in float16.
# Weights in float16 cost no accuracy on FER-2013 (EXPERIMENTS.md, 2026-11-23).
TOLERANCE = 1e-4
HALF_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Differences:
    """The largest differences of a probability from the Keras model: of the exported graph, and of the final file."""

    graph: float
    file: float


def export_onnx(model: keras.Model, path: Path, *, about: Mapping[str, str] | None = None) -> Differences:
    """Export a float32 model (faces u8 (n,48,48,1) -> probabilities) to `path` and return the differences.

    `about` is added to the metadata of the file, which also contains the labels and the input size. The file stores its
    kernels as float16 and computes in float32. If that changes a probability by more than HALF_TOLERANCE, it stores
    them as float32 and logs a warning.

    The exported graph is verified before its weights are rounded, because an export can succeed with a wrong graph.
    Raise ArithmeticError, and write nothing, if a probability then differs by more than TOLERANCE.
    """
    faces = np.random.default_rng(0).integers(0, 256, (64, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    expected = model.predict_on_batch(faces[..., np.newaxis])

    def save(graph: onnx.ModelProto) -> float:
        onnx.save(graph, temporary)
        try:
            return float(np.abs(EmotionClassifier(temporary).probabilities(faces) - expected).max())
        except ModelError as error:  # such as probabilities that are NaN
            logger.warning("the exported network cannot be used: %s", error)
            return math.inf

    with atomic_output(path) as temporary:
        model.export(temporary, format="onnx", verbose=False)
        graph = onnx.load(temporary)
        _set_metadata(graph, about or {})
        exact = save(graph)
        if not exact <= TOLERANCE:
            raise ArithmeticError(f"{path} would differ from the Keras model by {exact:.1e} in a probability")
        rounded = save(_with_float16_kernels(graph))
        if rounded <= HALF_TOLERANCE:
            return Differences(exact, rounded)
        logger.warning("%s keeps its weights in float32: float16 would change a probability by %.1e", path, rounded)
        return Differences(exact, save(graph))


def _set_metadata(graph: onnx.ModelProto, about: Mapping[str, str]) -> None:
    """Set the metadata that users of the file need: the meaning of its outputs, and its origin."""
    helper.set_model_props(graph, {"labels": json.dumps(EMOTIONS), "input_size": str(IMAGE_SIZE), **about})


def _with_float16_kernels(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with float16 kernels, each cast to float32. onnxruntime casts once, when it loads the file."""
    compact = onnx.ModelProto()
    compact.CopyFrom(graph)
    casts = []
    for kernel in compact.graph.initializer:
        values = numpy_helper.to_array(kernel)
        if values.dtype == np.float32 and values.ndim > 1:
            casts.append(helper.make_node("Cast", [f"{kernel.name}_half"], [kernel.name], to=TensorProto.FLOAT))
            with np.errstate(over="ignore"):  # export_onnx notices infinite weights by their probabilities
                half = values.astype(np.float16)
            kernel.CopyFrom(numpy_helper.from_array(half, casts[-1].input[0]))
    nodes = [*casts, *compact.graph.node]
    del compact.graph.node[:]
    compact.graph.node.extend(nodes)
    onnx.checker.check_model(compact)
    return compact
