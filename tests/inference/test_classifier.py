"""The classifier: any number of faces, clear refusals, and no training library in the process."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.support.onnx_files import write_linear

from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import InputError
from emotion_detection.inference.classifier import CHUNK, EmotionClassifier

RANDOM = np.random.default_rng(0).integers(0, 256, (2 * CHUNK + 3, 48, 48), dtype=np.uint8)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return EmotionClassifier(write_linear(tmp_path_factory.mktemp("onnx") / "model.onnx"))


@pytest.mark.parametrize("n", [0, 1, 2, CHUNK, CHUNK + 1, len(RANDOM)])
def test_any_number_of_faces(classifier, n):
    probabilities = classifier.probabilities(RANDOM[:n])
    assert probabilities.shape == (n, 7)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_a_face_has_the_same_result_whatever_its_companions(classifier):
    together = classifier.probabilities(RANDOM)
    assert len(np.unique(together.round(5), axis=0)) == len(RANDOM)  # a row in the wrong place would show
    order = np.random.default_rng(1).permutation(len(RANDOM))
    np.testing.assert_allclose(classifier.probabilities(RANDOM[order]), together[order], atol=1e-6)
    for row in (0, CHUNK - 1, CHUNK, len(RANDOM) - 1):
        np.testing.assert_allclose(classifier.probabilities(RANDOM[row : row + 1])[0], together[row], atol=1e-6)


def test_faces_are_fed_as_they_are(classifier, tmp_path):
    kernel = onnx.numpy_helper.to_array(onnx.load(write_linear(tmp_path / "model.onnx")).graph.initializer[0])
    logits = RANDOM[:5].reshape(5, -1).astype(np.float64) @ kernel
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.probabilities(RANDOM[:5]), expected, atol=1e-4)


def test_views_and_read_only_faces_will_do(classifier):
    turned = RANDOM[:4, ::-1, ::2].repeat(2, axis=2)
    turned.flags.writeable = False
    np.testing.assert_array_equal(classifier.probabilities(turned[::2]), classifier.probabilities(turned[::2].copy()))


def test_a_file_tells_its_temperature_and_an_older_one_has_none(classifier, tmp_path):
    assert classifier.temperature == 1.0
    assert classifier.about == {"labels": json.dumps(EMOTIONS)}
    graph = onnx.load(write_linear(tmp_path / "model.onnx"))
    helper.set_model_props(graph, {"labels": json.dumps(EMOTIONS), "temperature": "1.25", "dataset": "sample"})
    onnx.save(graph, tmp_path / "model.onnx")
    told = EmotionClassifier(tmp_path / "model.onnx")
    assert told.temperature == 1.25
    assert told.about["dataset"] == "sample"


def refused(path, *words):
    with pytest.raises(InputError) as error:
        EmotionClassifier(path)
    assert "\n" not in str(error.value)
    for word in (str(path), *words):
        assert word in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path / "absent.onnx", "cannot be loaded")


@pytest.mark.parametrize("content", [b"", b"no model\n", b"\x00" * 100])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    refused(tmp_path / "model.onnx")


def test_half_a_file_is_refused(tmp_path):
    path = write_linear(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path)


@pytest.mark.parametrize("labels", [None, json.dumps(EMOTIONS[::-1]), json.dumps(EMOTIONS[:6])])
def test_other_labels_are_refused(tmp_path, labels):
    refused(write_linear(tmp_path / "model.onnx", labels=labels), "labels", "angry", "export it")


@pytest.mark.parametrize("labels", ["angry,disgust", "7", ""])
def test_labels_that_are_no_json_list_are_refused(tmp_path, labels):
    refused(write_linear(tmp_path / "model.onnx", labels=labels), "labels")


@pytest.mark.parametrize("form", [{"side": 64}, {"dtype": TensorProto.FLOAT}])
def test_another_input_is_refused(tmp_path, form):
    refused(write_linear(tmp_path / "model.onnx", **form), "tensor(uint8) [n, 48, 48, 1]", "export it")


def test_a_fixed_batch_is_refused(tmp_path):
    graph = onnx.load(write_linear(tmp_path / "model.onnx"))
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(graph, tmp_path / "model.onnx")
    refused(tmp_path / "model.onnx", "export it")


def test_another_output_is_refused(tmp_path):
    graph = onnx.load(write_linear(tmp_path / "model.onnx"))
    graph.graph.node.append(helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0))
    graph.graph.output[0].CopyFrom(helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
    onnx.save(graph, tmp_path / "model.onnx")
    refused(tmp_path / "model.onnx")


def test_no_training_library_is_loaded(tmp_path):
    program = """
import sys
from pathlib import Path
import numpy as np
from emotion_detection.inference.classifier import EmotionClassifier
print(EmotionClassifier(Path(sys.argv[1])).probabilities(np.zeros((1, 48, 48), np.uint8)).shape)
print(sorted({"tensorflow", "keras", "torch", "jax", "mlflow", "onnx"} & set(sys.modules)))
"""
    path = write_linear(tmp_path / "model.onnx")
    told = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["(1, 7)", "[]"]
