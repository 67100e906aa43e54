"""Compare the shipped model with other architectures: time per face, multiply-accumulates, parameters and file size.

    python benchmarks/inference_speed.py [--repeats 300] [--threads 2] [--paper]

Prints the median times of onnxruntime for one face and for a batch of 64. The calls of the networks are interleaved,
and idle threads sleep. The other networks have random weights, which take the same time as trained weights. Parameters
are counted in the exported file, where batch normalization is folded into the convolutions. --paper adds paper_cnn,
whose export takes minutes.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnxruntime
import yaml
from onnx import shape_inference

from emotion_detection.commands.adopt import merged
from emotion_detection.config import check_params
from emotion_detection.inference import pretrained
from emotion_detection.training.onnx_export import export_onnx
from emotion_detection.training.trainer import build_with

ROOT = Path(__file__).parents[1]
WARM_UP = 3  # calls that are not measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=300, help="calls with one face; a tenth as many with 64")
    parser.add_argument("--threads", type=int, default=2, help="threads per call")
    parser.add_argument("--paper", action="store_true", help="include paper_cnn")
    arguments = parser.parse_args()
    others = ["seed_cnn", "mini_xception", *["paper_cnn"][: arguments.paper]]
    with tempfile.TemporaryDirectory() as folder:
        files = {"shipped": pretrained.MODEL} | {name: export_untrained(name, Path(folder)) for name in others}
        sessions = {name: create_session(path, threads=arguments.threads) for name, path in files.items()}
        single = median_times(sessions, count=1, repeats=arguments.repeats)
        batch = median_times(sessions, count=64, repeats=max(arguments.repeats // 10, 5))
        print(f"{'':16}{'parameters':>12}{'MMAC':>8}{'MB':>7}{'1 face':>10}{'64 faces':>11}{'vs seed_cnn':>16}")
        for name, path in files.items():
            parameters, macs = count_operations(path)
            ratios = f"{single[name] / single['seed_cnn']:.2f} / {batch[name] / batch['seed_cnn']:.2f}"
            print(
                f"{name:16}{parameters:12,}{macs / 1e6:8.1f}{path.stat().st_size / 1e6:7.1f}"
                f"{single[name]:7.2f} ms{batch[name] / 64:8.2f} ms{ratios:>16}"
            )


def export_untrained(name: str, folder: Path) -> Path:
    """Export an architecture with random weights to ONNX."""
    recipe = f"train:\n  architecture: {name}\n"
    tree = yaml.safe_load(merged((ROOT / "params.yaml").read_text(), recipe, source=name))
    path = folder / f"{name}.onnx"
    model = build_with(check_params(tree, name).train, precision="float32")
    rng = np.random.default_rng(0)
    for weight in model.weights:  # the export would remove a bias of 0 and its operation
        weight.assign(weight + rng.uniform(0, 0.01, weight.shape))
    export_onnx(model, path)
    return path


def create_session(path: Path, *, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Idle threads must sleep. Otherwise the spinning threads of a network occupy the cores that the next network needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def median_times(sessions: dict[str, onnxruntime.InferenceSession], *, count: int, repeats: int) -> dict[str, float]:
    """The median time of a call with `count` faces, in milliseconds, by network."""
    faces = np.random.default_rng(0).integers(0, 256, (count, 48, 48, 1), dtype=np.uint8)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for repeat in range(WARM_UP + repeats):
        for name, network in sessions.items():
            start = time.perf_counter()
            network.run(None, {network.get_inputs()[0].name: faces})
            if repeat >= WARM_UP:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: median(values) for name, values in times.items()}


def count_operations(path: Path) -> tuple[int, int]:
    """The parameters, and the multiply-accumulates per face of the convolutions and dense layers."""
    graph = shape_inference.infer_shapes(onnx.load(path)).graph
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    casts = (node for node in graph.node if node.op_type == "Cast" and node.input[0] in weights)
    weights |= {node.output[0]: weights[node.input[0]] for node in casts}  # from float16
    shapes = {
        value.name: [size.dim_value or 1 for size in value.type.tensor_type.shape.dim] for value in graph.value_info
    }
    macs = 0
    for node in graph.node:
        kernel = next((weights[name] for name in node.input[1:2] if name in weights), None)
        if node.op_type == "Conv" and kernel:
            positions = int(np.prod(shapes.get(node.output[0], [1, 1, 1, 1])[2:]))
            macs += positions * int(np.prod(kernel))
        elif node.op_type in ("MatMul", "Gemm") and kernel:
            macs += int(np.prod(kernel))
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    parameters = (tensor for tensor in graph.initializer if tensor.data_type in floats)  # integer tensors are shapes
    return sum(int(np.prod(tensor.dims)) for tensor in parameters), macs


if __name__ == "__main__":
    main()
