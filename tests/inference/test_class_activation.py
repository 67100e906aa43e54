"""The mean of a class activation map is the logit, so the maps show the evidence for the network's output."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tests.support.onnx_files import write_linear, write_pooled
from tests.support.paths import PRETRAINED

from emotion_detection.errors import ModelError
from emotion_detection.inference.class_activation import ClassActivationMapper
from emotion_detection.inference.classifier import EmotionClassifier


def check_maps(path, faces):
    mapper = ClassActivationMapper(path)
    logits = mapper.evidence(faces).mean(axis=(2, 3))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = EmotionClassifier(path).probabilities(faces)
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), expected, atol=1e-5)
    heatmaps = mapper.heatmaps(faces)
    assert heatmaps.shape[:2] == (len(faces), 7)
    assert heatmaps.min() >= 0
    assert heatmaps.max(axis=(1, 2, 3)) == pytest.approx(1)


@pytest.mark.parametrize("dense", [True, False])
def test_mean_of_the_maps_is_the_logit(dense, drawn_faces, tmp_path):
    check_maps(write_pooled(tmp_path / "model.onnx", dense=dense), drawn_faces)


def test_shipped_model_has_maps(drawn_faces):
    check_maps(PRETRAINED / "model.onnx", drawn_faces)


@pytest.mark.slow
def test_exported_mini_xception_has_maps(params, drawn_faces, tmp_path):
    from emotion_detection.model.architectures import build, to_keras_layers
    from emotion_detection.training.onnx_export import export_onnx

    train = params.train.model_copy(update={"architecture": "mini_xception", "widths": (8, 16), "blocks": (1, 1)})
    model = build(train, temperature=2.0)
    *_, bias = model.weights
    assert bias.shape == (7,)
    bias.assign(np.linspace(-1, 1, 7))  # initially 0, which would hide a missing bias
    export_onnx(to_keras_layers(model), tmp_path / "model.onnx")
    check_maps(tmp_path / "model.onnx", drawn_faces)


def test_nonlinear_operation_after_pooling_is_rejected(tmp_path):
    path = write_pooled(tmp_path / "model.onnx", dense=True, activation="Relu")
    with pytest.raises(ModelError, match=r"model\.onnx does not end with global average pooling"):
        ClassActivationMapper(path)


def test_network_without_global_average_pooling_is_rejected(tmp_path):
    with pytest.raises(ModelError, match=r"model\.onnx does not end with global average pooling"):
        ClassActivationMapper(write_linear(tmp_path / "model.onnx"))


def test_weights_of_another_shape_are_refused(tmp_path):
    model = onnx.load(write_pooled(tmp_path / "model.onnx", dense=True))
    model.graph.node.insert(5, helper.make_node("Concat", ["logits", "logits"], ["twice"], axis=1))
    model.graph.node[7].input[0] = "twice"
    dense = next(tensor for tensor in model.graph.initializer if tensor.name == "dense")
    dense.CopyFrom(numpy_helper.from_array(np.zeros((32, 7), np.float16), "dense"))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="global average pooling"):
        ClassActivationMapper(tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [b"", b"no model"])
def test_other_file_is_refused(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be loaded as an ONNX model"):
        ClassActivationMapper(tmp_path / "model.onnx")
