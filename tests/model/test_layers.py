"""Batch normalization matches that of Keras, and the mirror layers are equivariant to mirroring their input."""

import keras
import numpy as np
import pytest
from keras import ops

from emotion_detection.model.layers import BatchNorm, MirrorConv2D, MirrorDense

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(2, 8, 8, 1)).astype(np.float32)
MAPS = RANDOM.normal(size=(2, 8, 8, 6)).astype(np.float32)
UNNORMALIZED = RANDOM.normal(2, 3, (6, 5, 4, 8)).astype(np.float32)


def compute(layer, inputs, **settings):
    return ops.convert_to_numpy(layer(inputs, **settings))


def train_step(layer):
    """Take a training step on mean(y^3); return the outputs, gradients, moving statistics and new predictions."""
    model = keras.Sequential([keras.Input(UNNORMALIZED.shape[1:]), layer])
    model.compile(keras.optimizers.SGD(1.0), lambda _, outputs: ops.mean(outputs**3))
    before = [ops.convert_to_numpy(weight) for weight in layer.trainable_weights]
    outputs = compute(layer, UNNORMALIZED, training=True)
    model.train_on_batch(UNNORMALIZED, np.zeros(len(UNNORMALIZED)))
    gradients = [old - ops.convert_to_numpy(new) for old, new in zip(before, layer.trainable_weights, strict=True)]
    moving = [ops.convert_to_numpy(weight) for weight in layer.non_trainable_weights]
    return [outputs, *gradients, *moving, compute(layer, UNNORMALIZED)]


def test_batch_norm_matches_keras():
    ours, expected = (train_step(kind(momentum=0.9)) for kind in (BatchNorm, keras.layers.BatchNormalization))
    for array, expected_array in zip(ours, expected, strict=True):
        # TensorFlow's kernel divides the variance of the 120 values of a channel by n - 1, Keras by n.
        np.testing.assert_allclose(array, expected_array, rtol=2e-2, atol=2e-3)


def test_batch_norm_groups_share_weights_and_average_statistics():
    layer = BatchNorm(2, momentum=0.0)
    train_step(layer)
    assert [weight.shape for weight in layer.weights] == 4 * [(4,)]
    mean = UNNORMALIZED.mean(axis=(0, 1, 2)).reshape(2, 4).mean(axis=0)
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-4)
    # In inference, a channel is normalized like its partner in the other group.
    outputs = compute(layer, np.tile(UNNORMALIZED[..., :4], 2))
    np.testing.assert_array_equal(outputs[..., :4], outputs[..., 4:])


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_keeps_bfloat16(training):
    layer = BatchNorm(2, dtype="mixed_bfloat16")
    outputs = layer(ops.cast(UNNORMALIZED, "bfloat16"), training=training)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert {weight.dtype for weight in layer.weights} == {"float32"}


def test_batch_norm_gives_the_same_result_with_another_backend(monkeypatch):
    fused = compute(BatchNorm(2), UNNORMALIZED, training=True)
    monkeypatch.setattr(keras.backend, "backend", lambda: "another")
    np.testing.assert_allclose(BatchNorm(2)(UNNORMALIZED, training=True), fused, atol=1e-5)


def mirrored(maps):
    """The maps (n,h,w,c) of the mirrored face: left and right are swapped, and so are the halves of the channels."""
    first, second = np.split(maps[:, :, ::-1], 2, axis=-1)
    return np.concatenate([second, first], axis=-1)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (2, 2), (4, 2)])
def test_mirror_conv_is_equivariant(kernel, stride):
    layer = MirrorConv2D(5, kernel, strides=stride)
    maps = compute(layer, MAPS)
    assert maps.shape == (2, 8 // stride, 8 // stride, 10)
    np.testing.assert_allclose(compute(layer, mirrored(MAPS)), mirrored(maps), atol=1e-5)
    assert np.abs(maps - mirrored(maps)).max() > 0.1  # but not invariant


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (4, 2)])
def test_mirror_conv_of_an_image_is_equivariant(kernel, stride):
    layer = MirrorConv2D(5, kernel, strides=stride, image_input=True)
    np.testing.assert_allclose(compute(layer, IMAGES[:, :, ::-1]), mirrored(compute(layer, IMAGES)), atol=1e-5)


def test_odd_kernel_with_a_stride_is_not_equivariant():
    """The reason why fer_resnet halves the resolution with even kernels."""
    layer = MirrorConv2D(5, 3, strides=2)
    assert np.abs(compute(layer, mirrored(MAPS)) - mirrored(compute(layer, MAPS))).max() > 0.1


def test_first_half_of_mirror_conv_is_an_ordinary_convolution():
    layer = MirrorConv2D(5, 3)
    first = compute(layer, MAPS)[..., :5]
    np.testing.assert_allclose(first, ops.conv(MAPS, layer.kernel, padding="same"), atol=1e-5)
    assert layer.kernel.shape == (3, 3, 6, 5)


def test_mirror_dense_weights_both_halves_equally():
    layer = MirrorDense(7)
    features = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    outputs = compute(layer, features)
    first, second = np.split(features, 2, axis=-1)
    np.testing.assert_allclose(outputs, (first + second) / 2 @ ops.convert_to_numpy(layer.kernel), atol=1e-5)
    np.testing.assert_allclose(compute(layer, np.concatenate([second, first], axis=-1)), outputs, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (BatchNorm(2, momentum=0.5, epsilon=1e-2), UNNORMALIZED),
        (MirrorConv2D(4, 3, activation="relu"), MAPS),
        (MirrorConv2D(4, 4, strides=2, image_input=True), IMAGES),
        (MirrorDense(7), MAPS[:, 0, 0]),
    ],
    ids=["BatchNorm", "MirrorConv2D", "MirrorConv2D of an image", "MirrorDense"],
)
def test_conversion_to_a_keras_layer_keeps_the_outputs(layer, inputs):
    layer.build(inputs.shape)
    for weight in layer.weights:
        weight.assign(weight + np.random.default_rng(0).uniform(0, 0.5, weight.shape))
    converted = layer.to_keras_layer()
    converted.build(inputs.shape)
    converted.set_weights([ops.convert_to_numpy(weight) for weight in layer.full_weights()])
    assert type(converted).__module__.startswith("keras.")
    np.testing.assert_allclose(compute(converted, inputs), compute(layer, inputs), atol=1e-5)
