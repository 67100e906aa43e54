"""Writes ONNX files of the project's form without a training library, and some that are not of its form."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from emotion_detection.emotions import EMOTIONS


def write_linear(
    path: Path,
    *,
    labels: str | None = json.dumps(EMOTIONS),
    side: int = 48,
    dtype: int = TensorProto.UINT8,
    weight: float = 1.0,
    seed: int = 0,
) -> Path:
    """Softmax of a random linear map of the pixels: faces (n,side,side,1) -> probabilities (n,7)."""
    kernel = np.random.default_rng(seed).normal(0, weight / 255 / side, (side * side, len(EMOTIONS)))
    nodes = [
        helper.make_node("Cast", ["faces"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "kernel"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("faces", dtype, ["n", side, side, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(EMOTIONS)])],
        [numpy_helper.from_array(kernel.astype(np.float32), "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if labels is not None:
        helper.set_model_props(model, {"labels": labels})
    onnx.save(model, path)
    return path
