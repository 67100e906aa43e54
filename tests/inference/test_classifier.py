"""The classifier takes any number of faces, reports unsuitable files and loads no training library."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.support.onnx_files import write_linear

from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import ModelError
from emotion_detection.inference.classifier import BATCH_SIZE, EmotionClassifier

IMAGES = np.random.default_rng(0).integers(0, 256, (2 * BATCH_SIZE + 3, 48, 48), dtype=np.uint8)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return EmotionClassifier(write_linear(tmp_path_factory.mktemp("onnx") / "model.onnx"))


@pytest.mark.parametrize("n", [0, 1, 2, BATCH_SIZE, BATCH_SIZE + 1, len(IMAGES)])
def test_any_number_of_faces_is_classified(classifier, n):
    probabilities = classifier.probabilities(IMAGES[:n])
    assert probabilities.shape == (n, 7)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_result_does_not_depend_on_the_batch(classifier):
    together = classifier.probabilities(IMAGES)
    assert len(np.unique(together.round(5), axis=0)) == len(IMAGES)  # so that a swapped row is noticed
    order = np.random.default_rng(1).permutation(len(IMAGES))
    np.testing.assert_allclose(classifier.probabilities(IMAGES[order]), together[order], atol=1e-6)
    for row in (0, BATCH_SIZE - 1, BATCH_SIZE, len(IMAGES) - 1):
        np.testing.assert_allclose(classifier.probabilities(IMAGES[row : row + 1])[0], together[row], atol=1e-6)


def test_pixels_are_not_scaled(classifier, tmp_path):
    kernel = onnx.numpy_helper.to_array(onnx.load(write_linear(tmp_path / "model.onnx")).graph.initializer[0])
    logits = IMAGES[:5].reshape(5, -1).astype(np.float64) @ kernel
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.probabilities(IMAGES[:5]), expected, atol=1e-4)


def test_views_and_read_only_arrays_are_classified(classifier):
    view = IMAGES[:4, ::-1, ::2].repeat(2, axis=2)
    view.flags.writeable = False
    np.testing.assert_array_equal(classifier.probabilities(view[::2]), classifier.probabilities(view[::2].copy()))


def test_metadata_and_temperature_are_read(classifier, tmp_path):
    assert classifier.temperature == 1.0
    assert classifier.metadata == {"labels": json.dumps(EMOTIONS)}
    graph = onnx.load(write_linear(tmp_path / "model.onnx"))
    helper.set_model_props(graph, {"labels": json.dumps(EMOTIONS), "temperature": "1.25", "dataset": "sample"})
    onnx.save(graph, tmp_path / "model.onnx")
    calibrated = EmotionClassifier(tmp_path / "model.onnx")
    assert calibrated.temperature == 1.25
    assert calibrated.metadata["dataset"] == "sample"


def assert_rejected(path, *words):
    with pytest.raises(ModelError) as error:
        EmotionClassifier(path)
    assert "\n" not in str(error.value)
    for word in (str(path), *words):
        assert word in str(error.value)


def test_missing_file_is_rejected(tmp_path):
    assert_rejected(tmp_path / "absent.onnx", "cannot be loaded")


@pytest.mark.parametrize("content", [b"", b"no model\n", b"\x00" * 100])
def test_other_file_is_rejected(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    assert_rejected(tmp_path / "model.onnx")


def test_truncated_file_is_rejected(tmp_path):
    path = write_linear(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert_rejected(path)


@pytest.mark.parametrize("labels", [None, json.dumps(EMOTIONS[::-1]), json.dumps(EMOTIONS[:6])])
def test_other_labels_are_rejected(tmp_path, labels):
    assert_rejected(write_linear(tmp_path / "model.onnx", labels=labels), "labels", "angry", "train stage")


@pytest.mark.parametrize("labels", ["angry,disgust", "7", ""])
def test_labels_that_are_not_a_json_list_are_rejected(tmp_path, labels):
    assert_rejected(write_linear(tmp_path / "model.onnx", labels=labels), "labels")


@pytest.mark.parametrize("form", [{"side": 64}, {"dtype": TensorProto.FLOAT}])
def test_other_input_is_rejected(tmp_path, form):
    path = write_linear(tmp_path / "model.onnx", **form)
    assert_rejected(path, "tensor(uint8) [n, 48, 48, 1]", "train stage")


def test_fixed_batch_size_is_rejected(tmp_path):
    graph = onnx.load(write_linear(tmp_path / "model.onnx"))
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(graph, tmp_path / "model.onnx")
    assert_rejected(tmp_path / "model.onnx", "train stage")


def test_other_output_is_rejected(tmp_path):
    graph = onnx.load(write_linear(tmp_path / "model.onnx"))
    graph.graph.node.append(helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0))
    graph.graph.output[0].CopyFrom(helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
    onnx.save(graph, tmp_path / "model.onnx")
    assert_rejected(tmp_path / "model.onnx")


def test_model_without_inputs_is_rejected(tmp_path):
    nodes = [helper.make_node("RandomNormal", [], ["probabilities"], shape=[1, 7])]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 7])]
    model = helper.make_model(helper.make_graph(nodes, "constant", [], outputs), ir_version=8)
    model.opset_import[0].version = 17
    helper.set_model_props(model, {"labels": json.dumps(EMOTIONS)})
    onnx.save(model, tmp_path / "model.onnx")
    assert_rejected(tmp_path / "model.onnx", "maps nothing to")


def test_no_training_library_is_loaded(tmp_path):
    program = """
import sys
from pathlib import Path
import numpy as np
from emotion_detection.inference.classifier import EmotionClassifier
print(EmotionClassifier(Path(sys.argv[1])).probabilities(np.zeros((1, 48, 48), np.uint8)).shape)
print(sorted({"tensorflow", "keras", "torch", "jax", "mlflow", "onnx"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", program, str(write_linear(tmp_path / "model.onnx"))]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.splitlines() == ["(1, 7)", "[]"]


def test_waiting_threads_sleep(classifier):
    options = classifier._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
