"""The networks. Most tests run for every network in NETWORKS."""

from typing import get_args

import keras
import numpy as np
import pytest
import yaml
from keras import layers
from tests.support.paths import ROOT

from emotion_detection.config import Train
from emotion_detection.model.architectures import NETWORKS, build, to_keras_layers

RECIPE = ROOT / "recipes" / "fer_resnet.yaml"
FACES = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 1), dtype=np.uint8)
PARAMETERS = {"seed_cnn": 2_345_607, "paper_cnn": 56_883_015, "mini_xception": 58_423}
SMALL = {"widths": (8, 24), "blocks": (1, 1), "stem_stride": 2, "standardize": True, "dropout": 0.37}
DENSE = layers.Dense


@pytest.fixture(scope="module", params=NETWORKS)
def model(request, params):
    """A network whose dense layers are narrow: those of paper_cnn have 56 million weights."""
    keras.utils.set_random_seed(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "Dense", lambda units, **settings: DENSE(min(units, 32), **settings))
        return build(params.train.model_copy(update={**SMALL, "architecture": request.param}))


def test_params_offer_exactly_the_existing_networks():
    assert set(get_args(Train.model_fields["architecture"].annotation)) == set(NETWORKS)


@pytest.mark.parametrize("n", [1, 3])
def test_output_is_a_probability_distribution_per_face(model, n):
    probabilities = model.predict_on_batch(FACES[:n])
    assert probabilities.shape == (n, 7)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_different_faces_get_different_probabilities(model):
    first, second, _ = model.predict_on_batch(FACES)
    assert np.abs(first - second).max() > 1e-7


def test_network_scales_the_pixels(model):
    (faces,) = model.inputs
    assert (faces.dtype, faces.shape) == ("uint8", (None, 48, 48, 1))
    scaling = model.layers[1]
    assert isinstance(scaling, layers.Rescaling)
    scaled = keras.ops.convert_to_numpy(scaling(np.array([0, 255], np.uint8).reshape(1, 1, 2, 1)))
    np.testing.assert_allclose(scaled.ravel(), [-1, 1], atol=1e-6)


def test_temperature_divides_the_logits_and_is_1_by_default(params):
    train = params.train.model_copy(update={"architecture": "fer_resnet", "widths": (8,), "blocks": (0,)})
    keras.utils.set_random_seed(1)
    raw = build(train)
    calibrated = build(train, temperature=2.5)
    calibrated.set_weights(raw.get_weights())
    logits = keras.Model(raw.inputs, raw.get_layer("logits").output)([FACES])
    for model, temperature in ((raw, 1), (calibrated, 2.5)):
        np.testing.assert_allclose(model(FACES), keras.ops.softmax(logits / temperature), atol=1e-6)


def test_temperature_is_applied_in_float32_under_any_policy(params):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = build(params.train.model_copy(update=SMALL)).get_layer("temperature")
    finally:
        keras.config.set_dtype_policy(policy)
    assert layer.compute_dtype == "float32"


def test_dropout_before_the_last_layer_has_the_rate_of_params(model):
    assert [layer for layer in model.layers if isinstance(layer, layers.Dropout)][-1].rate == 0.37


@pytest.mark.parametrize(("architecture", "count"), PARAMETERS.items())
def test_parameter_counts(params, architecture, count):
    with keras.StatelessScope(initialize_variables=False):  # creates no arrays: those of paper_cnn would take 228 MB
        network = build(params.train.model_copy(update={"architecture": architecture}))
    assert network.count_params() == count


# The next two tests change the weights of the shared models, so they are the last ones that use them.
def test_conversion_to_keras_layers_keeps_the_probabilities(model):
    random = np.random.default_rng(0)
    for weight in model.weights:  # including the moving statistics
        weight.assign(weight + random.uniform(0, 0.01, weight.shape))
    converted = to_keras_layers(model)
    assert {type(layer).__module__.split(".")[0] for layer in converted.layers} == {"keras"}
    np.testing.assert_allclose(converted(FACES), model.predict_on_batch(FACES), atol=1e-5)


def test_training_changes_every_trainable_weight(model):
    model.compile(keras.optimizers.SGD(1.0), "categorical_crossentropy")
    before = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    # An even batch: the oneDNN kernels of TensorFlow 2.21 corrupt the heap when mini_xception trains on an odd one.
    model.train_on_batch(FACES[:2], np.eye(7, dtype=np.float32)[[0, 3]])
    for old, variable in zip(before, model.trainable_variables, strict=True):
        assert (keras.ops.convert_to_numpy(variable) != old).any(), f"{variable.path} did not change"


def test_recipe_of_fer_resnet_is_small(params):
    recipe = params.train.model_copy(update=yaml.safe_load(RECIPE.read_text())["train"])
    assert 500_000 < build(recipe).count_params() < 2_000_000


def test_fer_resnet_follows_widths_blocks_and_stem_stride(params):
    def block_shapes(**settings):
        network = build(params.train.model_copy(update={"architecture": "fer_resnet", **settings}))
        return [layer.output.shape for layer in network.layers if isinstance(layer, layers.Add)]

    coarse = block_shapes(widths=(8, 24), blocks=(1, 3), stem_stride=2)
    assert coarse == [(None, 24, 24, 8)] + 3 * [(None, 12, 12, 24)]
    assert block_shapes(widths=(8,), blocks=(1,), stem_stride=1) == [(None, 48, 48, 8)]


@pytest.mark.parametrize("architecture", ["fer_resnet", "fer_vgg"])
def test_network_is_mirror_invariant(params, architecture):
    """With any weights: here the weights and the moving statistics are random."""
    keras.utils.set_random_seed(1)
    model = build(params.train.model_copy(update={**SMALL, "architecture": architecture, "blocks": (1, 2)}))
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + random.normal(0, 0.02, weight.shape))
    mirrored = keras.ops.convert_to_numpy(model(FACES[:, :, ::-1]))
    np.testing.assert_allclose(mirrored, model(FACES), atol=1e-5)
    transposed = keras.ops.convert_to_numpy(model(FACES.transpose(0, 2, 1, 3)))
    assert np.abs(mirrored - transposed).max() > 1e-3


@pytest.mark.parametrize("architecture", ["fer_resnet", "fer_vgg"])
def test_head_widens_the_features_and_keeps_the_mirror_invariance(params, architecture):
    keras.utils.set_random_seed(1)
    train = params.train.model_copy(update={**SMALL, "architecture": architecture, "head": 32})
    model = build(train)
    assert model.get_layer("logits").input.shape == (None, 32)
    np.testing.assert_allclose(model(FACES[:, :, ::-1]), model(FACES), atol=1e-5)
    without = build(train.model_copy(update={"head": 0}))
    assert without.get_layer("logits").input.shape == (None, 24)


def test_seed_determines_the_initial_weights(params):
    train = params.train.model_copy(update={"architecture": "fer_resnet", "widths": (8,), "blocks": (0,)})

    def initial_weights(seed):
        keras.utils.set_random_seed(seed)
        return build(train).get_weights()[0]

    np.testing.assert_array_equal(initial_weights(1), initial_weights(1))
    assert (initial_weights(1) != initial_weights(2)).any()
