"""The layers of this project: batch normalization in one kernel, and layers that treat left and right alike.

Layers that treat left and right alike, so that a face and its mirror image are read the same, by construction.

Group convolutions (Cohen & Welling 2016, arXiv 1602.07576) of the group of two: channels come in two halves, and the
second half is what the first one would be for the mirrored face, seen in the mirror. A layer keeps the weights of its
first half; those of the second follow from them. That halves what there is to learn; a face takes as long as with
ordinary layers of the same kernels, which are what is saved or exported (`architectures.plain`).
"""

from typing import Any

import keras
from keras import layers, ops

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


class MirrorConv2D(layers.Conv2D):
    """A convolution of maps (n,h,w,c) in two halves, to 2 * filters channels in two halves; no bias.

    first: the input is a picture, whose channels are no halves. Strides need an even kernel if the width is even, or
    its places would not be those of the mirror image.
    """

    def __init__(self, filters: int, kernel_size: Any, *, first: bool = False, **settings: Any) -> None:
        super().__init__(filters, kernel_size, **settings, use_bias=False, padding="same")
        self._first = first

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return super().convolution_op(inputs, self._whole(kernel))

    def _whole(self, kernel: Tensor) -> Tensor:
        mirrored = ops.flip(kernel, axis=1)
        if not self._first:
            mirrored = ops.roll(mirrored, kernel.shape[2] // 2, axis=2)  # the halves change places
        return ops.concatenate([kernel, mirrored], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        *places, channels = super().compute_output_shape(input_shape)
        return (*places, 2 * channels)

    def plain(self) -> layers.Layer:
        """A layer of Keras's own to take the whole weights."""
        return layers.Conv2D.from_config(self.get_config() | {"filters": 2 * self.filters})

    def whole_weights(self) -> list[Tensor]:
        return [self._whole(self.kernel)]


class MirrorDense(layers.Dense):
    """From features (n,c) in two halves to (n,units) that a mirror does not change: both halves weigh the same."""

    def build(self, input_shape: tuple[int, ...]) -> None:
        *count, features = input_shape
        super().build((*count, features // 2))
        self.input_spec = None  # which would ask for the features of one half

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:  # noqa: ARG002
        kernel, bias = self.whole_weights()
        return ops.matmul(inputs, kernel) + bias

    def plain(self) -> layers.Layer:
        """A layer of Keras's own to take the whole weights."""
        return layers.Dense.from_config(self.get_config())

    def whole_weights(self) -> list[Tensor]:
        return [ops.tile(self.kernel / 2, (2, 1)), self.bias]
