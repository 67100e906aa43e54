"""Layers for which left and right are alike: what a mirror does to their input, it does to their output."""

import numpy as np
import pytest
from keras import ops

from emotion_detection.model.layers import MirrorConv2D, MirrorDense

RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.normal(size=(2, 8, 8, 1)).astype(np.float32)
MAPS = RANDOM.normal(size=(2, 8, 8, 6)).astype(np.float32)


def mirrored(maps):
    """What the maps (n,h,w,c) would be for the mirrored face: left and right change places, and so do the halves."""
    first, second = np.split(maps[:, :, ::-1], 2, axis=-1)
    return np.concatenate([second, first], axis=-1)


def answer(layer, inputs):
    return ops.convert_to_numpy(layer(inputs))


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (2, 2), (4, 2)])
def test_a_mirrored_input_gives_the_mirrored_output(kernel, stride):
    layer = MirrorConv2D(5, kernel, strides=stride)
    maps = answer(layer, MAPS)
    assert maps.shape == (2, 8 // stride, 8 // stride, 10)
    np.testing.assert_allclose(answer(layer, mirrored(MAPS)), mirrored(maps), atol=1e-5)
    assert np.abs(maps - mirrored(maps)).max() > 0.1  # it does see left and right


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (4, 2)])
def test_the_first_layer_makes_halves_of_a_picture(kernel, stride):
    layer = MirrorConv2D(5, kernel, strides=stride, first=True)
    np.testing.assert_allclose(answer(layer, PICTURES[:, :, ::-1]), mirrored(answer(layer, PICTURES)), atol=1e-5)


def test_an_odd_kernel_with_a_stride_would_break_it():
    """Why the networks here halve the resolution with even kernels."""
    layer = MirrorConv2D(5, 3, strides=2)
    assert np.abs(answer(layer, mirrored(MAPS)) - mirrored(answer(layer, MAPS))).max() > 0.1


def test_the_first_half_is_an_ordinary_convolution():
    layer = MirrorConv2D(5, 3)
    first = answer(layer, MAPS)[..., :5]
    np.testing.assert_allclose(first, ops.conv(MAPS, layer.kernel, padding="same"), atol=1e-5)
    assert layer.kernel.shape == (3, 3, 6, 5)


def test_dense_weighs_both_halves_the_same():
    layer = MirrorDense(7)
    features = RANDOM.normal(size=(3, 6)).astype(np.float32)
    scores = answer(layer, features)
    first, second = np.split(features, 2, axis=-1)
    np.testing.assert_allclose(scores, (first + second) / 2 @ ops.convert_to_numpy(layer.kernel), atol=1e-5)
    np.testing.assert_allclose(answer(layer, np.concatenate([second, first], axis=-1)), scores, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (MirrorConv2D(4, 3, activation="relu"), MAPS),
        (MirrorConv2D(4, 4, strides=2, first=True), PICTURES),
        (MirrorDense(7), MAPS[:, 0, 0]),
    ],
)
def test_a_plain_twin_answers_the_same(layer, inputs):
    expected = answer(layer, inputs)
    twin = layer.plain()
    twin.build(inputs.shape)
    twin.set_weights([ops.convert_to_numpy(weight) for weight in layer.whole_weights()])
    assert type(twin).__module__.startswith("keras.")
    np.testing.assert_allclose(answer(twin, inputs), expected, atol=1e-5)
