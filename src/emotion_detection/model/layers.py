"""Layers: batch normalization in one kernel, and layers that make a network invariant to mirroring the face.

The mirror layers are group convolutions (Cohen & Welling 2016, arXiv 1602.07576) for the group of two elements. Feature
maps have two halves of channels. The second half is what the first half would be for the mirrored face, mirrored back.
A layer stores only the weights of its first half and derives the others from them. This halves the number of weights;
a forward pass takes as long as with ordinary layers of the same kernels, which are what is saved and exported
(`architectures.to_keras_layers`).
"""

from typing import Any

import keras
from keras import layers, ops

Tensor = Any  # Keras tensors have no useful static type


class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalization of maps (n,h,w,c), faster than that of Keras.

    The channels form `groups` groups of equal size. Channels at the same position of their groups share their weights.

    Keras normalizes in float32 with one operation after the other. TensorFlow has a single kernel for all of them and
    one for their gradient, also in bfloat16 (benchmarks/training_speed.py). That kernel returns the unbiased variance
    of the batch, Keras the biased one.
    """

    def __init__(self, groups: int = 1, **settings: Any) -> None:
        super().__init__(**settings)
        self._groups = groups

    def build(self, input_shape: tuple[int, ...]) -> None:
        *other_axes, channels = input_shape
        super().build((*other_axes, channels // self._groups))
        self.input_spec = None  # it would require the channels of a single group

    def call(self, inputs: Tensor, training: bool | None = None, mask: None = None) -> Tensor:  # noqa: ARG002
        gamma, beta, mean, variance = self.full_weights()
        if training:
            outputs, *batch_statistics = _normalize_batch(inputs, beta, gamma, self.epsilon)
            moving_statistics = (self.moving_mean, self.moving_variance)
            for moving, statistic in zip(moving_statistics, batch_statistics, strict=True):
                shared = ops.mean(ops.reshape(statistic, (self._groups, -1)), axis=0)
                moving.assign(moving * self.momentum + shared * (1 - self.momentum))
        else:
            outputs = _normalize(inputs, mean, variance, beta, gamma, self.epsilon)
        return ops.cast(outputs, self.compute_dtype)

    def to_keras_layer(self) -> keras.layers.Layer:
        """Return a layer of Keras that takes the full weights."""
        return keras.layers.BatchNormalization.from_config(self.get_config())

    def full_weights(self) -> list[Tensor]:
        """Return gamma, beta, moving mean and moving variance, each (c,)."""
        return [ops.tile(weight, (self._groups,)) for weight in self.weights]


def _normalize_batch(inputs: Tensor, beta: Tensor, gamma: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalized inputs, and their mean and variance, each (c,)."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        fused: tuple[Tensor, Tensor, Tensor] = tf.compat.v1.nn.fused_batch_norm(
            inputs, gamma, beta, epsilon=epsilon, is_training=True
        )
        return fused
    mean, variance = ops.moments(ops.cast(inputs, "float32"), axes=(0, 1, 2))
    return _normalize(inputs, mean, variance, beta, gamma, epsilon), mean, variance


def _normalize(inputs: Tensor, mean: Tensor, variance: Tensor, beta: Tensor, gamma: Tensor, epsilon: float) -> Tensor:
    inputs = ops.cast(inputs, "float32")
    return ops.batch_normalization(inputs, mean, variance, axis=-1, offset=beta, scale=gamma, epsilon=epsilon)


class MirrorConv2D(layers.Conv2D):
    """A mirror-equivariant convolution of maps (n,h,w,c) to maps with 2 * filters channels, without a bias.

    Input and output have two halves of channels. With `image_input`, the input is an image without halves. A stride
    needs an even kernel if the width is even; otherwise the positions of the kernel are not symmetric.
    """

    def __init__(self, filters: int, kernel_size: Any, *, image_input: bool = False, **settings: Any) -> None:
        super().__init__(filters, kernel_size, **settings, use_bias=False, padding="same")
        self._image_input = image_input

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return super().convolution_op(inputs, self._full_kernel(kernel))

    def _full_kernel(self, kernel: Tensor) -> Tensor:
        mirrored = ops.flip(kernel, axis=1)
        if not self._image_input:
            mirrored = ops.roll(mirrored, kernel.shape[2] // 2, axis=2)  # swap the halves
        return ops.concatenate([kernel, mirrored], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        *other_axes, channels = super().compute_output_shape(input_shape)
        return (*other_axes, 2 * channels)

    def to_keras_layer(self) -> layers.Layer:
        """Return a layer of Keras that takes the full weights."""
        return layers.Conv2D.from_config(self.get_config() | {"filters": 2 * self.filters})

    def full_weights(self) -> list[Tensor]:
        """Return the kernel (h,w,c,2*filters)."""
        return [self._full_kernel(self.kernel)]


class MirrorDense(layers.Dense):
    """A mirror-invariant dense layer from features (n,c) in two halves to (n,units): both halves have equal weights."""

    def build(self, input_shape: tuple[int, ...]) -> None:
        *other_axes, features = input_shape
        super().build((*other_axes, features // 2))
        self.input_spec = None  # it would require the features of a single half

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:  # noqa: ARG002
        kernel, bias = self.full_weights()
        return ops.matmul(inputs, kernel) + bias

    def to_keras_layer(self) -> layers.Layer:
        """Return a layer of Keras that takes the full weights."""
        return layers.Dense.from_config(self.get_config())

    def full_weights(self) -> list[Tensor]:
        """Return the kernel (c,units) and the bias (units,)."""
        return [ops.tile(self.kernel / 2, (2, 1)), self.bias]
