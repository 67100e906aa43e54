"""An ONNX file is a program of a stranger: it runs only with known operations, bounded memory and bounded time."""

import itertools
import resource
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.support.onnx_files import LABELS, write_linear
from tests.support.paths import ROOT

from emotion_detection.decoding import onnx_file
from emotion_detection.decoding.onnx_file import check_onnx, run_with_deadline, trial_session
from emotion_detection.errors import ModelError
from emotion_detection.inference.classifier import EmotionClassifier

MODEL = ROOT / "src/emotion_detection/pretrained/model.onnx"
FACES = helper.make_tensor_value_info("faces", TensorProto.UINT8, ["n", 48, 48, 1])
PROBABILITIES = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 7])
# Softmax of zeros plus whatever "extra" is.
BEFORE = [
    helper.make_node("Cast", ["faces"], ["floats"], to=TensorProto.FLOAT),
    helper.make_node("Flatten", ["floats"], ["flat"]),
    helper.make_node("MatMul", ["flat", "zeros"], ["logits"]),
]
AFTER = [helper.make_node("Add", ["logits", "extra"], ["sum"]), helper.make_node("Softmax", ["sum"], ["probabilities"])]


def write(path, nodes, constants=None, **changes):
    """A network whose logits are zeros plus `extra`, which the nodes compute."""
    arrays = {"zeros": np.zeros((2304, 7), np.float32)} | (constants or {})
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph([*BEFORE, *nodes, *AFTER], "network", [FACES], [PROBABILITIES], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    helper.set_model_props(model, {"labels": LABELS} | changes)
    onnx.save(model, path)
    return path


def refusal(path, load=EmotionClassifier):
    with pytest.raises(ModelError) as error:
        load(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) < 600
    return message


def loop_forever():
    body = helper.make_graph(
        [helper.make_node("Identity", ["condition"], ["again"])],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, [])],
    )
    return helper.make_node("Loop", ["", "true"], [], body=body)


def constant(value):
    return helper.make_node("Constant", [], ["extra"], value=numpy_helper.from_array(value))


BOMBS = {
    "Loop": ([loop_forever()], {"true": np.array(True)}),
    "ConstantOfShape": (
        [helper.make_node("ConstantOfShape", ["shape"], ["extra"])],
        {"shape": np.array([10**5, 10**6])},
    ),
    "Expand": (
        [helper.make_node("Expand", ["one", "shape"], ["extra"])],
        {"one": np.ones(1), "shape": np.array([10**10])},
    ),
    "Tile": ([helper.make_node("Tile", ["one", "times"], ["extra"])], {"one": np.ones(1), "times": np.array([10**10])}),
    "Constant": ([constant(np.zeros(7, np.float32))], {}),
    "Unknown": ([helper.make_node("Unknown", ["logits"], ["extra"])], {}),
    "an extension": ([helper.make_node("Add", ["logits", "logits"], ["extra"], domain="com.microsoft")], {}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_operation_that_no_export_has_is_refused_before_it_runs(tmp_path, name):
    nodes, constants = BOMBS[name]
    path = write(tmp_path / "model.onnx", nodes, constants)
    assert name in refusal(path, check_onnx) or "extension" in refusal(path, check_onnx)


def in_limited_process(path):
    """Load a model in a process of its own; return its message and by how many MB its peak memory grew."""
    program = """
import resource, sys
from pathlib import Path
from emotion_detection.errors import EmotionDetectionError
from emotion_detection.inference.classifier import EmotionClassifier
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
EmotionClassifier(Path(sys.argv[2]))
before = peak()
try:
    EmotionClassifier(Path(sys.argv[1]))
except EmotionDetectionError as error:
    print(error)
print(peak() - before)
"""
    limit = 6 * 2**30
    command = [sys.executable, "-c", program, str(path), str(MODEL)]
    finished = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert finished.stderr == ""
    message, growth = finished.stdout.splitlines()
    return message, int(growth)


def outer_sum():
    """Two vectors of 400 kB whose sums are a matrix of 40 GB."""
    rows, columns = np.zeros((100_000, 1), np.float32), np.zeros((1, 100_000), np.float32)
    nodes = [
        helper.make_node("Add", ["rows", "columns"], ["matrix"]),
        helper.make_node("ReduceMean", ["matrix"], ["extra"], keepdims=0),
    ]
    return nodes, {"rows": rows, "columns": columns}


def doubling():
    """Thirty times twice as long."""
    names = ["logits", *(f"twice{number}" for number in range(30))]
    nodes = [helper.make_node("Concat", [a, a], [b], axis=1) for a, b in itertools.pairwise(names)]
    return [*nodes, helper.make_node("ReduceMean", [names[-1]], ["extra"], axes=[1])], {}


def padding():
    shape = {"shape": np.array([1, 1, 1, -1])}
    pool = helper.make_node("MaxPool", ["image"], ["large"], kernel_shape=[300_000, 300_000], pads=4 * [250_000])
    reduce = helper.make_node("ReduceMean", ["large"], ["extra"], keepdims=0)
    return [helper.make_node("Reshape", ["logits", "shape"], ["image"]), pool, reduce], shape


@pytest.mark.parametrize("bomb", [outer_sum, doubling, padding])
def test_memory_bomb_of_allowed_operations_is_refused(tmp_path, bomb):
    message, growth = in_limited_process(write(tmp_path / "model.onnx", *bomb()))
    assert "cannot be loaded as an ONNX model" in message
    assert growth < 300


def test_endless_trial_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "DEADLINE_S", 0.2)
    side = 1200
    names = ["matrix", *(f"power{number}" for number in range(40))]
    nodes = [helper.make_node("MatMul", [a, "matrix"], [b]) for a, b in itertools.pairwise(names)]
    nodes.append(helper.make_node("ReduceMean", [names[-1]], ["extra"], keepdims=0))
    path = write(tmp_path / "model.onnx", nodes, {"matrix": np.full((side, side), 1 / side, np.float32)})
    assert "two faces take more than" in refusal(path)


@pytest.mark.parametrize(("value", "expected"), [(np.nan, "NaN"), (np.inf, "NaN")])
def test_network_that_returns_nan_is_refused(tmp_path, value, expected):
    path = write(tmp_path / "model.onnx", [], {"extra": np.full(7, value, np.float32)})
    assert expected in refusal(path)


def test_output_that_is_no_probability_is_refused(tmp_path):
    model = onnx.load(write(tmp_path / "model.onnx", [], {"extra": np.zeros(7, np.float32)}))
    model.graph.node[-1].op_type = "Relu"
    onnx.save(model, tmp_path / "model.onnx")
    assert "does not return probabilities" in refusal(tmp_path / "model.onnx")


@pytest.mark.parametrize("temperature", ["abc", "", "nan", "inf", "0", "-1", 90_000 * "9"])
def test_temperature_that_is_no_number_above_zero_is_refused(tmp_path, temperature):
    path = write(tmp_path / "model.onnx", [], {"extra": np.zeros(7, np.float32)}, temperature=temperature)
    assert "instead of a number above 0" in refusal(path)


def test_long_labels_are_not_repeated(tmp_path):
    path = write(tmp_path / "model.onnx", [], {"extra": np.zeros(7, np.float32)}, labels=90_000 * "x")
    assert "instead of ['angry'" in refusal(path)


def changed(path, change):
    model = onnx.load(write_linear(path))
    change(model)
    onnx.save(model, path)
    return path


def scalar_input(model):
    del model.graph.input[0].type.tensor_type.shape.dim[:]


def no_outputs(model):
    del model.graph.output[:]


def no_inputs(model):
    del model.graph.input[:]


def no_graph(model):
    model.ClearField("graph")


def external_data(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def missing_values(model):
    model.graph.initializer[0].dims[:] = [10**6, 10**6]


def negative_dimension(model):
    model.graph.initializer[0].dims[:] = [-1, 7]


def sparse_constant(model):
    model.graph.sparse_initializer.add().dims[:] = [10**6, 10**6]


def function(model):
    model.functions.add().name = "f"


def long_metadata(model):
    helper.set_model_props(model, {"labels": LABELS, "note": 200_000 * "x"})


@pytest.mark.parametrize(
    "change",
    [
        scalar_input,
        no_outputs,
        no_inputs,
        no_graph,
        external_data,
        missing_values,
        negative_dimension,
        sparse_constant,
        function,
        long_metadata,
    ],
)
def test_malformed_model_is_refused(tmp_path, change):
    refusal(changed(tmp_path / "model.onnx", change))


def test_nothing_is_printed_for_a_name_that_is_no_text(tmp_path, capfd):
    content = write_linear(tmp_path / "model.onnx").read_bytes().replace(b"labels", b"lab\xffls")
    (tmp_path / "model.onnx").write_bytes(content)
    refusal(tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"", b"\x3a", b"\xff" * 100, b"\x38" * 3_000_000, b"PK\x03\x04", b"{}"])
def test_other_content_is_refused(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    assert "cannot be loaded as an ONNX model" in refusal(tmp_path / "model.onnx", check_onnx)


def test_large_sparse_file_and_folder_are_refused(tmp_path):
    with (tmp_path / "large.onnx").open("wb") as stream:
        stream.truncate(10**11)
    for path in (tmp_path / "large.onnx", tmp_path):
        assert "cannot be loaded as an ONNX model" in refusal(path, check_onnx)


def test_every_cut_of_a_small_model_is_refused(tmp_path):
    content = write_linear(tmp_path / "whole.onnx", side=48).read_bytes()
    for length in [*range(0, 200, 7), *range(200, len(content) - 1, 9000)]:
        (tmp_path / "model.onnx").write_bytes(content[:length])
        refusal(tmp_path / "model.onnx")


def test_shipped_model_passes():
    check_onnx(MODEL)
    with trial_session(MODEL) as session:
        (probabilities,) = run_with_deadline(
            session, {session.get_inputs()[0].name: np.zeros((1, 48, 48, 1), np.uint8)}
        )
    expected = EmotionClassifier(MODEL).probabilities(np.zeros((1, 48, 48), np.uint8))
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
