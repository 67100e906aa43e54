"""A trained model -> the ONNX file that ships, proved to compute the same, in half the bytes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from emotion_detection.atomic import atomic_output
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE
from emotion_detection.inference.classifier import EmotionClassifier

# The largest difference of a probability between Keras and onnxruntime, and the same with weights in float16: these
# cost no accuracy on FER-2013 (EXPERIMENTS.md, 2026-11-23).
TOLERANCE = 1e-4
HALF_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Differences:
    """The largest differences of a probability from the Keras model's: of the exported graph, and of the file kept."""

    graph: float
    file: float


def export_onnx(model: keras.Model, path: Path, *, about: Mapping[str, str] | None = None) -> Differences:
    """Write a float32 model (faces u8 (n,48,48,1) -> probabilities) to `path`; returns how much that changed.

    `about` goes into the file's metadata, beside the labels and the size of its input. The file keeps its weights in
    float16 and computes in float32; where the rounding changes a probability by more than HALF_TOLERANCE, it keeps them
    in float32 and says so.

    It is read back and compared before its weights are rounded, too: some graphs export "successfully" and compute
    something else. ArithmeticError if a probability differs by more than TOLERANCE then, and nothing is written.
    """
    faces = np.random.default_rng(0).integers(0, 256, (64, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    expected = model.predict_on_batch(faces[..., np.newaxis])

    def saved(graph: onnx.ModelProto) -> float:
        onnx.save(graph, written)
        return float(np.abs(EmotionClassifier(written).probabilities(faces) - expected).max())

    with atomic_output(path) as written:
        model.export(written, format="onnx", verbose=False)
        graph = onnx.load(written)
        _describe(graph, about or {})
        exact = saved(graph)
        if not exact <= TOLERANCE:  # also when it is no number
            raise ArithmeticError(f"{path} would differ from the Keras model by {exact:.1e} in a probability")
        rounded = saved(_halved(graph))
        if rounded <= HALF_TOLERANCE:
            return Differences(exact, rounded)
        print(f"{path} keeps its weights in float32: rounding them would change a probability by {rounded:.1e}")
        return Differences(exact, saved(graph))


def _describe(graph: onnx.ModelProto, about: Mapping[str, str]) -> None:
    """Put into the file what its user needs: the meaning of its outputs, and where it comes from."""
    told = {"labels": json.dumps(EMOTIONS), "input_size": str(IMAGE_SIZE), **about}
    helper.set_model_props(graph, told)


def _halved(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Its kernels as float16, each with a cast to float32, which onnxruntime does once, when it loads the file."""
    halved = onnx.ModelProto()
    halved.CopyFrom(graph)
    casts = []
    for kernel in halved.graph.initializer:
        values = numpy_helper.to_array(kernel)
        if values.dtype == np.float32 and values.ndim > 1:
            casts.append(helper.make_node("Cast", [f"{kernel.name}_half"], [kernel.name], to=TensorProto.FLOAT))
            with np.errstate(over="ignore"):  # an infinite weight shows in what the file answers
                half = values.astype(np.float16)
            kernel.CopyFrom(numpy_helper.from_array(half, casts[-1].input[0]))
    nodes = [*casts, *halved.graph.node]
    del halved.graph.node[:]
    halved.graph.node.extend(nodes)
    onnx.checker.check_model(halved)
    return halved
