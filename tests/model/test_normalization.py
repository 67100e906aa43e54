"""Batch normalisation in one kernel computes what Keras's own does, and groups of channels share their weights."""

import keras
import numpy as np
import pytest
from keras import ops

from emotion_detection.model.layers import BatchNorm

MAPS = np.random.default_rng(0).normal(2, 3, (6, 5, 4, 8)).astype(np.float32)


def taught(layer, maps=MAPS):
    """A layer after one training step on mean(y^3), as arrays: its outputs, gradients, moving statistics, answers."""
    model = keras.Sequential([keras.Input(maps.shape[1:]), layer])
    model.compile(keras.optimizers.SGD(1.0), lambda _, normal: ops.mean(normal**3))
    before = [ops.convert_to_numpy(weight) for weight in layer.trainable_weights]
    outputs = ops.convert_to_numpy(layer(maps, training=True))
    model.train_on_batch(maps, np.zeros(len(maps)))
    steps = [old - ops.convert_to_numpy(new) for old, new in zip(before, layer.trainable_weights, strict=True)]
    moving = [ops.convert_to_numpy(weight) for weight in layer.non_trainable_weights]
    return [outputs, *steps, *moving, model.predict_on_batch(maps)]


def test_it_computes_what_keras_does():
    ours, keras_own = (taught(kind(momentum=0.9)) for kind in (BatchNorm, keras.layers.BatchNormalization))
    for mine, theirs in zip(ours, keras_own, strict=True):
        # TensorFlow's kernel divides the variance that it hands out by n - 1, Keras by n: 120 values here.
        np.testing.assert_allclose(mine, theirs, rtol=2e-2, atol=2e-3)


def test_groups_share_their_weights_and_average_their_statistics():
    layer = BatchNorm(2, momentum=0.0)
    taught(layer)
    assert [weight.shape for weight in layer.weights] == 4 * [(4,)]
    mean = MAPS.mean(axis=(0, 1, 2)).reshape(2, 4).mean(axis=0)
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-4)
    # Without its own statistics a channel and its partner are treated the same.
    same = np.tile(MAPS[..., :4], 2)
    answers = ops.convert_to_numpy(layer(same))
    np.testing.assert_array_equal(answers[..., :4], answers[..., 4:])


@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_stays_bfloat16(training):
    layer = BatchNorm(2, dtype="mixed_bfloat16")
    normal = layer(ops.cast(MAPS, "bfloat16"), training=training)
    assert keras.backend.standardize_dtype(normal.dtype) == "bfloat16"
    assert {weight.dtype for weight in layer.weights} == {"float32"}


def test_another_backend_normalises_the_same(monkeypatch):
    fused = ops.convert_to_numpy(BatchNorm(2)(MAPS, training=True))
    monkeypatch.setattr(keras.backend, "backend", lambda: "another")
    np.testing.assert_allclose(BatchNorm(2)(MAPS, training=True), fused, atol=1e-5)


def test_its_plain_twin_answers_the_same():
    layer = BatchNorm(2, momentum=0.5, epsilon=1e-2)
    taught(layer)
    twin = layer.plain()
    twin.build(MAPS.shape)
    twin.set_weights([ops.convert_to_numpy(weight) for weight in layer.whole_weights()])
    assert type(twin) is keras.layers.BatchNormalization
    np.testing.assert_allclose(twin(MAPS), layer(MAPS), atol=1e-5)
