"""Layers that treat left and right alike, so that a face and its mirror image are read the same, by construction.

Group convolutions (Cohen & Welling 2016, arXiv 1602.07576) of the group of two: channels come in two halves, and the
second half is what the first one would be for the mirrored face, seen in the mirror. A layer keeps the weights of its
first half; those of the second follow from them. That halves what there is to learn; a face takes as long as with
ordinary layers of the same kernels, which are what is saved or exported (`architectures.plain`).
"""

from typing import Any

from keras import layers, ops

Tensor = Any  # Keras tensors have no useful static type


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
