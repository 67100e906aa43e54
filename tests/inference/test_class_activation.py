"""Class activation maps: averaged over the face they are the logits, so they show what the network went by."""

import numpy as np
import onnx
import pytest
from tests.support.paths import PRETRAINED

from emotion_detection.errors import InputError
from emotion_detection.inference.class_activation import ClassActivation
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.model.architectures import plain
from emotion_detection.synthetic.sample import draw_faces
from emotion_detection.training.onnx_export import export_onnx
from emotion_detection.training.trainer import build_with

SHIPPED = PRETRAINED / "model.onnx"


@pytest.fixture(scope="module")
def faces():
    return draw_faces(per_class=1, seed=0)[0]


@pytest.fixture(scope="module")
def exported(params, tmp_path_factory):
    """Untaught networks of the zoo as files, with a temperature."""
    folder = tmp_path_factory.mktemp("exported")
    for name in ("fer_resnet", "mini_xception", "seed_cnn"):
        train = params.train.model_copy(update={"architecture": name, "widths": (8, 16), "blocks": (1, 1)})
        model = build_with(train, precision="float32", temperature=2.0)
        *_, bias = model.weights  # an untaught bias is 0, and would hide that it was forgotten
        if bias.shape == (7,):
            bias.assign(np.linspace(-1, 1, 7))
        export_onnx(plain(model), folder / f"{name}.onnx")
    return folder


def check(path, faces):
    heat = ClassActivation(path)
    logits = heat.evidence(faces).mean(axis=(2, 3))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = EmotionClassifier(path).probabilities(faces)
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), expected, atol=1e-5)
    maps = heat.maps(faces)
    assert maps.shape[:2] == (7, 7)
    assert maps.min() >= 0
    assert maps.max(axis=(1, 2, 3)) == pytest.approx(1)


@pytest.mark.parametrize("name", ["fer_resnet", "mini_xception"])
def test_the_maps_average_to_what_the_network_says(exported, faces, name):
    check(exported / f"{name}.onnx", faces)


def test_the_shipped_model_has_maps(faces):
    check(SHIPPED, faces)


def test_what_bends_the_logits_is_refused(exported, tmp_path):
    graph = onnx.load(exported / "fer_resnet.onnx")
    (dense,) = (node for node in graph.graph.node if "logits" in node.name and node.op_type == "MatMul")
    bent = onnx.helper.make_node("Relu", list(dense.output), ["bent"])
    for node in graph.graph.node:
        node.input[:] = ["bent" if name in dense.output else name for name in node.input]
    graph.graph.node.insert(list(graph.graph.node).index(dense) + 1, bent)
    onnx.save(graph, tmp_path / "bent.onnx")
    with pytest.raises(InputError, match="does not end with a global average"):
        ClassActivation(tmp_path / "bent.onnx")


def test_a_network_without_a_global_average_is_refused(exported):
    with pytest.raises(InputError, match=r"seed_cnn\.onnx does not end with a global average"):
        ClassActivation(exported / "seed_cnn.onnx")
