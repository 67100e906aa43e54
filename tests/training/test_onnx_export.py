"""The ONNX file computes what the Keras model computes, or it does not get its name."""

import json

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from tests.support.onnx_files import write_linear

from emotion_detection.emotions import EMOTIONS
from emotion_detection.evaluation.calibration import at_temperature
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.model.architectures import NETWORKS, plain
from emotion_detection.training.onnx_export import HALF_TOLERANCE, TOLERANCE, export_onnx
from emotion_detection.training.trainer import build_with, fit

# tf2onnx copies every constant dozens of times: paper_cnn's 226 MB of one dense layer take minutes. A narrower
# layer has the same graph.
WIDEST = 32
DENSE = layers.Dense


def narrow(units, **settings):
    return DENSE(min(units, WIDEST), **settings)


def seasoned(train, seed=0):
    """The plain network with weights as after a training: no batch norm is the identity, no bias 0."""
    model = plain(build_with(train, precision="float32"))
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "seed" in variable.path:
            continue
        value = keras.ops.convert_to_numpy(variable) + rng.normal(0, 0.05, variable.shape)
        variable.assign(np.abs(value) + 0.1 if "variance" in variable.path else value)
    return model


@pytest.mark.parametrize("architecture", NETWORKS)
def test_every_network_computes_the_same_as_onnx(architecture, params, drawn, tmp_path, monkeypatch):
    if architecture == "paper_cnn":
        monkeypatch.setattr(layers, "Dense", narrow)
    model = seasoned(
        params.train.model_copy(update={"architecture": architecture, "widths": (16, 32), "blocks": (1, 1)})
    )
    differences = export_onnx(model, tmp_path / "model.onnx")
    assert differences.graph < 1e-4
    assert differences.graph < differences.file < HALF_TOLERANCE
    expected = model.predict_on_batch(drawn.images[..., None])
    assert np.ptp(expected, axis=0).max() > 1e-3  # else every graph would do
    classifier = EmotionClassifier(tmp_path / "model.onnx")
    # The graph itself was compared above; the file's weights have three digits.
    np.testing.assert_allclose(classifier.probabilities(drawn.images), expected, atol=HALF_TOLERANCE)
    np.testing.assert_allclose(classifier.probabilities(drawn.images[:1]), expected[:1], atol=HALF_TOLERANCE)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    (labels,) = [entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props if entry.key == "labels"]
    assert json.loads(labels) == list(EMOTIONS)


def test_a_model_taught_in_bfloat16_is_exported_in_float32(params, drawn, tmp_path):
    small = {"architecture": "fer_resnet", "widths": (8,), "blocks": (1,), "stem_stride": 2}
    train = params.train.model_copy(update={**small, "precision": "mixed_bfloat16", "epochs": 1, "batch_size": 8})
    fitted = fit(train, drawn, checkpoint=tmp_path / "checkpoint", on_epoch=lambda _: None)
    assert export_onnx(fitted.model, tmp_path / "model.onnx").graph < 1e-4
    types = {tensor.data_type for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert onnx.TensorProto.BFLOAT16 not in types


def test_the_file_holds_its_kernels_in_half_the_bytes(params, tmp_path):
    model = plain(build_with(params.train.model_copy(update={"architecture": "fer_resnet"}), precision="float32"))
    export_onnx(model, tmp_path / "model.onnx")
    kernels = [one for one in onnx.load(tmp_path / "model.onnx").graph.initializer if len(one.dims) > 1]
    held = {one.data_type for one in kernels if one.data_type != onnx.TensorProto.INT64}
    assert held == {onnx.TensorProto.FLOAT16}
    assert (tmp_path / "model.onnx").stat().st_size < 2.2 * model.count_params()


def test_weights_that_half_precision_cannot_hold_stay_as_they_are(tmp_path, capsys):
    """They would be infinite in the file; a training must not be lost to a smaller file."""
    answer = EmotionClassifier(write_linear(tmp_path / "far.onnx", weight=1e10)).probabilities
    differences = export_onnx(Linear({"weight": 1e10}, answer), tmp_path / "model.onnx")
    assert differences.file == differences.graph <= TOLERANCE
    assert "keeps its weights in float32" in capsys.readouterr().out
    types = {one.data_type for one in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in types


def test_the_file_tells_what_it_is_and_computes_with_its_temperature(params, drawn, tmp_path):
    train = params.train.model_copy(update={"architecture": "fer_resnet", "widths": (8,), "blocks": (1,)})
    raw, warm = (plain(build_with(train, precision="float32", temperature=t)) for t in (1.0, 1.7))
    about = {"temperature": "1.7", "run_id": "0123", "dataset": "sample", "architecture": "fer_resnet"}
    export_onnx(warm, tmp_path / "model.onnx", about=about)
    classifier = EmotionClassifier(tmp_path / "model.onnx")
    assert classifier.about == {"labels": json.dumps(EMOTIONS), "input_size": "48", **about}
    expected = at_temperature(raw.predict_on_batch(drawn.images[..., None]), classifier.temperature)
    np.testing.assert_allclose(classifier.probabilities(drawn.images), expected, atol=1e-3)


class Linear:
    """Stands for a Keras model whose export writes another function than it computes."""

    def __init__(self, exported, answer):
        self._exported, self._answer = exported, answer

    def predict_on_batch(self, faces):
        return self._answer(faces[..., 0])

    def export(self, path, **_):
        write_linear(path, **self._exported)


@pytest.fixture
def honest(tmp_path):
    """What the file of write_linear answers."""
    return EmotionClassifier(write_linear(tmp_path / "honest.onnx")).probabilities


def test_a_graph_that_differs_is_refused_and_the_old_file_stays(tmp_path, honest):
    path = tmp_path / "out" / "model.onnx"
    assert export_onnx(Linear({}, honest), path).graph == 0
    before = path.read_bytes()
    with pytest.raises(ArithmeticError, match=r"model\.onnx would differ"):
        export_onnx(Linear({"seed": 1}, honest), path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_a_graph_that_differs_leaves_no_file(tmp_path, honest):
    with pytest.raises(ArithmeticError):
        export_onnx(Linear({"seed": 1}, honest), tmp_path / "out" / "model.onnx")
    assert not list((tmp_path / "out").iterdir())


def test_a_small_difference_is_told_and_a_large_one_refused(tmp_path, honest):
    def off_by(amount):
        return Linear({}, lambda faces: honest(faces) + amount)

    told = export_onnx(off_by(np.float32(TOLERANCE / 2)), tmp_path / "model.onnx").graph
    assert told == pytest.approx(TOLERANCE / 2, rel=0.01)
    with pytest.raises(ArithmeticError):
        export_onnx(off_by(np.float32(2 * TOLERANCE)), tmp_path / "model.onnx")


def test_a_graph_that_computes_no_number_is_refused(tmp_path, honest):
    with pytest.raises(ArithmeticError):
        export_onnx(Linear({"weight": np.nan}, honest), tmp_path / "model.onnx")


def test_a_saved_model_comes_back_without_this_projects_code(params, drawn, tmp_path):
    model = seasoned(params.train)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    faces = drawn.images[:3, ..., None]
    np.testing.assert_allclose(again.predict_on_batch(faces), model.predict_on_batch(faces), atol=1e-5)
