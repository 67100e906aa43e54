"""The zoo: every network in it is tested by being in it."""

from typing import get_args

import keras
import numpy as np
import pytest
import yaml
from tests.support.paths import ROOT

from emotion_detection.config import Train
from emotion_detection.model.architectures import NETWORKS, build, plain

RECIPE = ROOT / "recipes" / "fer_resnet.yaml"
FACES = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 1), dtype=np.uint8)
PARAMETERS = {"seed_cnn": 2_345_607, "paper_cnn": 56_883_015, "mini_xception": 58_423}


@pytest.fixture(scope="module", params=NETWORKS)
def model(request, params):
    keras.utils.set_random_seed(1)
    return build(params.train.model_copy(update={"architecture": request.param, "dropout": 0.37}))


def test_params_offer_exactly_the_networks_there_are():
    assert set(get_args(Train.model_fields["architecture"].annotation)) == set(NETWORKS)


@pytest.mark.parametrize("n", [1, 3])
def test_probabilities_of_any_number_of_faces(model, n):
    probabilities = model.predict_on_batch(FACES[:n])
    assert probabilities.shape == (n, 7)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_another_face_gives_other_probabilities(model):
    one, other, _ = model.predict_on_batch(FACES)
    assert np.abs(one - other).max() > 1e-7


def test_faces_are_scaled_inside(model):
    (faces,) = model.inputs
    assert (faces.dtype, faces.shape) == ("uint8", (None, 48, 48, 1))
    scaling = model.layers[1]
    assert isinstance(scaling, keras.layers.Rescaling)
    scaled = keras.ops.convert_to_numpy(scaling(np.array([0, 255], np.uint8).reshape(1, 1, 2, 1)))
    np.testing.assert_allclose(scaled.ravel(), [-1, 1], atol=1e-6)


def test_temperature_divides_the_logits_and_is_one_while_training(params):
    train = params.train.model_copy(update={"architecture": "fer_resnet", "widths": (8,), "blocks": (1,)})
    keras.utils.set_random_seed(1)
    raw = build(train)
    calibrated = build(train, temperature=2.5)
    calibrated.set_weights(raw.get_weights())
    logits = keras.Model(raw.inputs, raw.get_layer("logits").output).predict_on_batch(FACES)
    for model, temperature in ((raw, 1), (calibrated, 2.5)):
        expected = keras.ops.softmax(logits / temperature)
        np.testing.assert_allclose(model.predict_on_batch(FACES), expected, atol=1e-6)


def test_the_temperature_is_applied_in_float32_whatever_the_policy(params):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = build(params.train).get_layer("temperature")
    finally:
        keras.config.set_dtype_policy(before)
    assert layer.compute_dtype == "float32"


def test_dropout_before_the_last_layer_is_that_of_params(model):
    assert [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)][-1].rate == 0.37


def test_parameter_counts(model):
    if model.name in PARAMETERS:
        assert model.count_params() == PARAMETERS[model.name]


# The last two of the tests that share the models: they change them.
def test_its_plain_twin_is_of_keras_alone_and_answers_the_same(model):
    random = np.random.default_rng(0)
    for weight in model.weights:  # moving statistics too
        weight.assign(weight + random.uniform(0, 0.01, weight.shape))
    twin = plain(model)
    assert {type(layer).__module__.split(".")[0] for layer in twin.layers} == {"keras"}
    np.testing.assert_allclose(twin.predict_on_batch(FACES), model.predict_on_batch(FACES), atol=1e-5)


def test_every_trainable_weight_is_taught(model):
    model.compile(keras.optimizers.SGD(1.0), "categorical_crossentropy")
    before = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    # An even batch: TensorFlow 2.21's oneDNN kernels corrupt the heap when mini_xception is taught an odd one.
    model.train_on_batch(FACES[:2], np.eye(7, dtype=np.float32)[[0, 3]])
    for old, variable in zip(before, model.trainable_variables, strict=True):
        assert (keras.ops.convert_to_numpy(variable) != old).any(), f"{variable.path} was not taught"


def test_the_recipe_of_fer_resnet_is_small(params):
    recipe = params.train.model_copy(update=yaml.safe_load(RECIPE.read_text())["train"])
    assert 500_000 < build(recipe).count_params() < 2_000_000


def test_fer_resnet_is_as_wide_deep_and_coarse_as_params_say(params):
    train = params.train.model_copy(update={"widths": (8, 24), "blocks": (1, 3), "stem_stride": 2})
    sums = [layer.output.shape for layer in build(train).layers if isinstance(layer, keras.layers.Add)]
    assert sums == [(None, 24, 24, 8)] + 3 * [(None, 12, 12, 24)]
    fine = build(train.model_copy(update={"stem_stride": 1}))
    assert next(layer.output.shape for layer in fine.layers if isinstance(layer, keras.layers.Add)) == (None, 48, 48, 8)


def test_fer_resnet_reads_a_face_and_its_mirror_image_alike(params):
    """Whatever its weights: here they and the moving statistics are random."""
    settings = {
        "architecture": "fer_resnet",
        "widths": (8, 24),
        "blocks": (1, 2),
        "stem_stride": 2,
        "standardize": True,
    }
    keras.utils.set_random_seed(1)
    model = build(params.train.model_copy(update=settings))
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + random.normal(0, 0.02, weight.shape))
    mirrored = model.predict_on_batch(FACES[:, :, ::-1])
    np.testing.assert_allclose(mirrored, model.predict_on_batch(FACES), atol=1e-5)
    turned = model.predict_on_batch(FACES.transpose(0, 2, 1, 3))
    assert np.abs(mirrored - turned).max() > 1e-3


def test_the_seed_decides_the_weights(params):
    def first_weights(seed):
        keras.utils.set_random_seed(seed)
        return build(params.train).get_weights()[0]

    np.testing.assert_array_equal(first_weights(1), first_weights(1))
    assert (first_weights(1) != first_weights(2)).any()
