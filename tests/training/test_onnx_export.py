"""An exported ONNX file gives the same probabilities as the Keras model; a wrong one is not written."""

import json
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from tests.support.onnx_files import write_linear

from emotion_detection.emotions import EMOTIONS
from emotion_detection.evaluation.calibration import at_temperature
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.model.architectures import NETWORKS, to_keras_layers
from emotion_detection.training.onnx_export import HALF_TOLERANCE, TOLERANCE, Differences, export_onnx
from emotion_detection.training.trainer import build_with, fit

pytestmark = pytest.mark.slow

# tf2onnx copies every constant dozens of times: the dense layer of paper_cnn with its 226 MB takes minutes. A narrower
# layer has the same graph.
MAX_UNITS = 32
DENSE = layers.Dense


def randomized(train, seed=0):
    """A network with weights like those of a trained one: batch normalization is no identity, and biases are not 0."""
    model = to_keras_layers(build_with(train, precision="float32"))
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "seed" in variable.path:
            continue
        value = keras.ops.convert_to_numpy(variable) + rng.normal(0, 0.05, variable.shape)
        variable.assign(np.abs(value) + 0.1 if "variance" in variable.path else value)
    return model


@dataclass(frozen=True)
class Exported:
    """A model, and the folder that contains only its ONNX file."""

    model: keras.Model
    differences: Differences
    folder: Path

    @property
    def graph(self):
        return onnx.load(self.folder / "model.onnx").graph


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request, params, tmp_path_factory):
    settings = {"architecture": request.param, "widths": (16, 32), "blocks": (1, 1)}
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "paper_cnn":
            patch.setattr(layers, "Dense", lambda units, **settings: DENSE(min(units, MAX_UNITS), **settings))
        model = randomized(params.train.model_copy(update=settings))
    return Exported(model, export_onnx(model, folder / "model.onnx"), folder)


def test_exported_file_gives_the_same_probabilities(exported, drawn):
    differences = exported.differences
    assert differences.graph < 1e-4
    assert differences.graph < differences.file < HALF_TOLERANCE
    expected = exported.model.predict_on_batch(drawn.images[..., None])
    assert np.ptp(expected, axis=0).max() > 1e-3  # the faces differ in their probabilities
    classifier = EmotionClassifier(exported.folder / "model.onnx")
    # The exact graph was compared above; the weights of the file have three digits.
    np.testing.assert_allclose(classifier.probabilities(drawn.images), expected, atol=HALF_TOLERANCE)
    np.testing.assert_allclose(classifier.probabilities(drawn.images[:1]), expected[:1], atol=HALF_TOLERANCE)
    assert [path.name for path in exported.folder.iterdir()] == ["model.onnx"]


def test_exported_file_stores_its_kernels_as_float16(exported):
    kernels = [tensor for tensor in exported.graph.initializer if len(tensor.dims) > 1]
    types = {tensor.data_type for tensor in kernels if tensor.data_type != onnx.TensorProto.INT64}
    assert types == {onnx.TensorProto.FLOAT16}
    count = exported.model.count_params()
    if count > 500_000:  # in a small network, the names and the graph dominate
        assert (exported.folder / "model.onnx").stat().st_size < 2.2 * count


@pytest.mark.parametrize("exported", ["fer_resnet"], indirect=True)
def test_saved_keras_model_loads_without_code_of_this_project(exported, drawn, tmp_path):
    exported.model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    faces = drawn.images[:3, ..., None]
    np.testing.assert_allclose(loaded.predict_on_batch(faces), exported.model.predict_on_batch(faces), atol=1e-5)


def test_model_trained_in_bfloat16_is_exported_in_float32(tiny, drawn, tmp_path):
    train = tiny.model_copy(update={"precision": "mixed_bfloat16", "epochs": 1})
    result = fit(train, drawn, on_epoch=lambda _: None)
    assert export_onnx(result.model, tmp_path / "model.onnx").graph < 1e-4
    types = {tensor.data_type for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert onnx.TensorProto.BFLOAT16 not in types


def test_weights_beyond_the_range_of_float16_stay_float32(tmp_path, caplog):
    predict = EmotionClassifier(write_linear(tmp_path / "large.onnx", weight=1e10)).probabilities
    differences = export_onnx(FakeModel({"weight": 1e10}, predict), tmp_path / "model.onnx")
    assert differences.file == differences.graph <= TOLERANCE
    assert "keeps its weights in float32" in caplog.text
    types = {one.data_type for one in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in types


def test_exported_file_contains_metadata_and_applies_the_temperature(tiny, drawn, tmp_path):
    raw, warm = (to_keras_layers(build_with(tiny, precision="float32", temperature=t)) for t in (1.0, 1.7))
    about = {"temperature": "1.7", "run_id": "0123", "dataset": "sample", "architecture": "fer_resnet"}
    export_onnx(warm, tmp_path / "model.onnx", about=about)
    classifier = EmotionClassifier(tmp_path / "model.onnx")
    assert classifier.metadata == {"labels": json.dumps(EMOTIONS), "input_size": "48", **about}
    expected = at_temperature(raw.predict_on_batch(drawn.images[..., None]), classifier.temperature)
    np.testing.assert_allclose(classifier.probabilities(drawn.images), expected, atol=1e-3)


class FakeModel:
    """A stand-in for a Keras model whose exported graph can differ from its predictions."""

    def __init__(self, exported, predict):
        self._exported, self._predict = exported, predict

    def predict_on_batch(self, faces):
        return self._predict(faces[..., 0])

    def export(self, path, **_):
        write_linear(path, **self._exported)


@pytest.fixture
def predict(tmp_path):
    """The predictions of the file that write_linear writes by default."""
    return EmotionClassifier(write_linear(tmp_path / "linear.onnx")).probabilities


def test_wrong_graph_is_refused_and_the_old_file_is_kept(tmp_path, predict):
    path = tmp_path / "out" / "model.onnx"
    assert export_onnx(FakeModel({}, predict), path).graph == 0
    before = path.read_bytes()
    with pytest.raises(ArithmeticError, match=r"model\.onnx would differ"):
        export_onnx(FakeModel({"seed": 1}, predict), path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_wrong_graph_leaves_no_file(tmp_path, predict):
    with pytest.raises(ArithmeticError):
        export_onnx(FakeModel({"seed": 1}, predict), tmp_path / "out" / "model.onnx")
    assert not list((tmp_path / "out").iterdir())


def test_small_difference_is_returned_and_a_large_one_refused(tmp_path, predict):
    def off_by(amount):
        return FakeModel({}, lambda faces: predict(faces) + amount)

    difference = export_onnx(off_by(np.float32(TOLERANCE / 2)), tmp_path / "model.onnx").graph
    assert difference == pytest.approx(TOLERANCE / 2, rel=0.01)
    with pytest.raises(ArithmeticError):
        export_onnx(off_by(np.float32(2 * TOLERANCE)), tmp_path / "model.onnx")


def test_graph_that_computes_nan_is_refused(tmp_path, predict):
    with pytest.raises(ArithmeticError):
        export_onnx(FakeModel({"weight": np.nan}, predict), tmp_path / "model.onnx")
