"""The shipped model beside the original's network and mini-Xception: time a face, multiplications, size.

    python benchmarks/inference_speed.py [--repeats 300] [--threads 2] [--paper]

onnxruntime, one face and a batch of 64, calls interleaved in one run, idle threads asleep; medians. The other networks
have random weights, which take as long as trained ones. Parameters are those of the exported file, which has its batch
normalisations folded into the convolutions: a few less than Keras counts. --paper adds paper_cnn, whose export takes
minutes.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=300, help="calls with one face; a tenth of it with 64")
    parser.add_argument("--threads", type=int, default=2, help="of every call")
    parser.add_argument("--paper", action="store_true", help="paper_cnn too")
    arguments = parser.parse_args()
    others = ["seed_cnn", "mini_xception", *["paper_cnn"][: arguments.paper]]
    with tempfile.TemporaryDirectory() as folder:
        files = {"shipped": pretrained.MODEL} | {name: exported(name, Path(folder)) for name in others}
        sessions = {name: session(path, threads=arguments.threads) for name, path in files.items()}
        one = timed(sessions, count=1, repeats=arguments.repeats)
        many = timed(sessions, count=64, repeats=max(arguments.repeats // 10, 5))
        print(f"{'':16}{'parameters':>12}{'MMAC':>8}{'MB':>7}{'1 face':>10}{'64 faces':>11}{'of seed_cnn':>16}")
        for name, path in files.items():
            parameters, macs = counted(path)
            ratios = f"{one[name] / one['seed_cnn']:.2f} / {many[name] / many['seed_cnn']:.2f}"
            print(
                f"{name:16}{parameters:12,}{macs / 1e6:8.1f}{path.stat().st_size / 1e6:7.1f}"
                f"{one[name]:7.2f} ms{many[name] / 64:8.2f} ms{ratios:>16}"
            )


def exported(name: str, folder: Path) -> Path:
    """An untaught network of the zoo as a file."""
    recipe = f"train:\n  architecture: {name}\n"
    tree = yaml.safe_load(merged((ROOT / "params.yaml").read_text(), recipe, source=name))
    path = folder / f"{name}.onnx"
    model = build_with(check_params(tree, name).train, precision="float32")
    random = np.random.default_rng(0)
    for weight in model.weights:  # the export leaves out a bias of 0, and the work it is
        weight.assign(weight + random.uniform(0, 0.01, weight.shape))
    export_onnx(model, path)
    return path


def session(path: Path, *, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # An idle thread sleeps: else those of one network, spinning, would hold the cores that the next one needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def timed(sessions: dict[str, onnxruntime.InferenceSession], *, count: int, repeats: int) -> dict[str, float]:
    """Milliseconds of one call with so many faces, by network."""
    faces = np.random.default_rng(0).integers(0, 256, (count, 48, 48, 1), dtype=np.uint8)
    spent: dict[str, list[float]] = {name: [] for name in sessions}
    for repeat in range(repeats + 3):
        for name, network in sessions.items():
            start = time.perf_counter()
            network.run(None, {network.get_inputs()[0].name: faces})
            if repeat >= 3:
                spent[name].append(1000 * (time.perf_counter() - start))
    return {name: median(times) for name, times in spent.items()}


def counted(path: Path) -> tuple[int, int]:
    """Parameters, and multiplications with additions for one face, of convolutions and dense layers."""
    graph = shape_inference.infer_shapes(onnx.load(path)).graph
    weights = {one.name: list(one.dims) for one in graph.initializer}
    halves = (node for node in graph.node if node.op_type == "Cast" and node.input[0] in weights)
    weights |= {node.output[0]: weights[node.input[0]] for node in halves}
    shapes = {
        value.name: [size.dim_value or 1 for size in value.type.tensor_type.shape.dim] for value in graph.value_info
    }
    macs = 0
    for node in graph.node:
        known = next((weights[name] for name in node.input[1:2] if name in weights), None)
        if node.op_type == "Conv" and known:
            places = int(np.prod(shapes.get(node.output[0], [1, 1, 1, 1])[2:]))
            macs += places * int(np.prod(known))
        elif node.op_type in ("MatMul", "Gemm") and known:
            macs += int(np.prod(known))
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    learnt = (one for one in graph.initializer if one.data_type in floats)  # the others are shapes
    return sum(int(np.prod(one.dims)) for one in learnt), macs


if __name__ == "__main__":
    main()
