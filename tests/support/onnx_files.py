"""Write small ONNX models without a training library: valid ones, and ones with other labels, inputs or graphs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from emotion_detection.emotions import EMOTIONS

LABELS = json.dumps(EMOTIONS)


def write_linear(
    path: Path,
    *,
    labels: str | None = LABELS,
    side: int = 48,
    dtype: int = TensorProto.UINT8,
    weight: float = 1.0,
    seed: int = 0,
) -> Path:
    """Softmax of a random linear map of the pixels: faces (n, side, side, 1) -> probabilities (n, 7)."""
    kernel = np.random.default_rng(seed).normal(0, weight / 255 / side, (side * side, len(EMOTIONS)))
    nodes = [
        helper.make_node("Cast", ["faces"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "kernel"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    return _write(path, nodes, {"kernel": kernel.astype(np.float32)}, labels=labels, side=side, dtype=dtype)


def write_pooled(path: Path, *, dense: bool, activation: str | None = None, seed: int = 0) -> Path:
    """A convolutional network that ends with global average pooling and a softmax at temperature 2.

    With `dense`, a dense layer with float16 weights follows the pooling; without it, the feature maps are the logits.
    `activation` is a nonlinear operation after the dense layer.
    """
    rng = np.random.default_rng(seed)
    channels = 16 if dense else len(EMOTIONS)
    weights: dict[str, NDArray[Any]] = {
        "kernel": rng.normal(0, 0.01, (channels, 1, 8, 8)).astype(np.float32),
        "axes": np.array([2, 3], np.int64),
        "scale": np.array([0.5], np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["faces"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["image"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["image", "kernel"], ["features"], strides=[8, 8]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Squeeze", ["pooled", "axes"], ["logits"]),
    ]
    if dense:
        weights |= {
            "dense": rng.normal(0, 1, (channels, len(EMOTIONS))).astype(np.float16),
            "bias": np.linspace(-1, 1, len(EMOTIONS), dtype=np.float32),
        }
        nodes += [
            helper.make_node("Cast", ["dense"], ["dense_float"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["logits", "dense_float"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["sum"]),
        ]
    last = nodes[-1].output[0]
    if activation:
        nodes.append(helper.make_node(activation, [last], ["activated"]))
        last = "activated"
    nodes += [
        helper.make_node("Mul", [last, "scale"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["probabilities"]),
    ]
    return _write(path, nodes, weights)


def write_reader(path: Path, *, row: int, logit: float = 3.0) -> Path:
    """A model that reads its answer from one row of a face: of the first seven pixels, the white one is the emotion.

    All answers have the same confidence; a logit of 3 makes it .77.
    """
    kernel = np.zeros((48, 48, len(EMOTIONS)), np.float32)
    kernel[row, np.arange(len(EMOTIONS)), np.arange(len(EMOTIONS))] = logit / 255
    nodes = [
        helper.make_node("Cast", ["faces"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "kernel"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    return _write(path, nodes, {"kernel": kernel.reshape(48 * 48, -1)})


def draw_answers(answers: Sequence[NDArray[np.intp]]) -> NDArray[np.uint8]:
    """Faces (n, 48, 48) for the models of `write_reader`: the model of row r returns answers[r], (n,)."""
    images = np.zeros((len(answers[0]), 48, 48), np.uint8)
    for row, answer in enumerate(answers):
        images[np.arange(len(answer)), row, answer] = 255
    return images


def _write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, NDArray[Any]],
    *,
    labels: str | None = LABELS,
    side: int = 48,
    dtype: int = TensorProto.UINT8,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("faces", dtype, ["n", side, side, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(EMOTIONS)])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if labels is not None:
        helper.set_model_props(model, {"labels": labels})
    onnx.save(model, path)
    return path
