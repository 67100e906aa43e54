"""Batch normalisation (Ioffe & Szegedy 2015, arXiv 1502.03167) in one kernel, which channels may share."""

from typing import Any

import keras
from keras import ops

Tensor = Any  # Keras tensors have no useful static type


class BatchNorm(keras.layers.BatchNormalization):
    """Keras's layer for maps (n,h,w,c); of `groups` equal groups of channels, the i-th ones share their weights.

    Keras normalises in float32, one operation after the other. TensorFlow has it all, and its gradient, in one kernel,
    for bfloat16 too (benchmarks/training_speed.py). It divides the variance that it hands out by one less.
    """

    def __init__(self, groups: int = 1, **settings: Any) -> None:
        super().__init__(**settings)
        self._groups = groups

    def build(self, input_shape: tuple[int, ...]) -> None:
        *places, channels = input_shape
        super().build((*places, channels // self._groups))
        self.input_spec = None  # which would ask for the channels of one group

    def call(self, inputs: Tensor, training: bool | None = None, mask: None = None) -> Tensor:  # noqa: ARG002
        gamma, beta, mean, variance = self.whole_weights()
        if training:
            normal, *batch = _normalized(inputs, beta, gamma, self.epsilon)
            for moving, statistic in zip((self.moving_mean, self.moving_variance), batch, strict=True):
                shared = ops.mean(ops.reshape(statistic, (self._groups, -1)), axis=0)
                moving.assign(moving * self.momentum + shared * (1 - self.momentum))
        else:
            normal = _applied(inputs, mean, variance, beta, gamma, self.epsilon)
        return ops.cast(normal, self.compute_dtype)

    def plain(self) -> keras.layers.Layer:
        """A layer of Keras's own to take the whole weights."""
        return keras.layers.BatchNormalization.from_config(self.get_config())

    def whole_weights(self) -> list[Tensor]:
        return [ops.tile(weight, (self._groups,)) for weight in self.weights]


def _normalized(inputs: Tensor, beta: Tensor, gamma: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs normalised by their own mean and variance, and these two, each (c,)."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        fused: tuple[Tensor, Tensor, Tensor] = tf.compat.v1.nn.fused_batch_norm(
            inputs, gamma, beta, epsilon=epsilon, is_training=True
        )
        return fused
    mean, variance = ops.moments(ops.cast(inputs, "float32"), axes=(0, 1, 2))
    return _applied(inputs, mean, variance, beta, gamma, epsilon), mean, variance


def _applied(inputs: Tensor, mean: Tensor, variance: Tensor, beta: Tensor, gamma: Tensor, epsilon: float) -> Tensor:
    inputs = ops.cast(inputs, "float32")
    return ops.batch_normalization(inputs, mean, variance, axis=-1, offset=beta, scale=gamma, epsilon=epsilon)
