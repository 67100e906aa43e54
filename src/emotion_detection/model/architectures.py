"""The zoo: one function per network, from scaled faces to logits; `build` adds the input, the scaling and softmax."""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from emotion_detection.config import Train
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE
from emotion_detection.model.layers import BatchNorm, MirrorConv2D, MirrorDense

Tensor = Any  # Keras tensors have no useful static type

STEM_SHARE = 3  # of the first width, for the one convolution that sees every pixel: the full resolution is dear
SQUEEZE = 8  # channels per unit of the squeeze-and-excitation bottleneck
# Keras's 0.99 averages over 100 batches: too slow for the short trainings this project is about.
BATCH_NORM_MOMENTUM = 0.95


def build(train: Train, *, temperature: float = 1.0) -> keras.Model:
    """Faces u8 (n,48,48,1) -> probabilities f32 (n,7); scaling to [-1,1] is inside, so that nobody can forget it.

    temperature divides the logits: 1 while training, what calibration found in the model that ships.
    """
    faces = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 1), dtype="uint8", name="faces")
    logits = NETWORKS[train.architecture](layers.Rescaling(1 / 127.5, offset=-1)(faces), train)
    # float32 whatever the policy: a bfloat16 probability has two digits.
    logits = layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(logits)
    probabilities = layers.Softmax(dtype="float32", name="probabilities")(logits)
    return keras.Model(faces, probabilities, name=train.architecture)


def plain(model: keras.Model) -> keras.Model:
    """The same network in Keras's own layers alone: what is saved needs no code of this project."""

    def own(layer: layers.Layer) -> layers.Layer:
        return layer.plain() if hasattr(layer, "plain") else layer.__class__.from_config(layer.get_config())

    twin = keras.models.clone_model(model, clone_function=own)
    for layer, source in zip(twin.layers, model.layers, strict=True):
        weights = source.whole_weights() if hasattr(source, "whole_weights") else source.weights
        layer.set_weights([ops.convert_to_numpy(weight) for weight in weights])
    return twin


def seed_cnn(x: Tensor, train: Train) -> Tensor:
    """The four-convolution network of atulapra/Emotion-detection; 2,345,607 parameters."""
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.Conv2D(64, 3, activation="relu")(x)
    x = layers.Dropout(0.25)(layers.MaxPooling2D()(x))
    x = layers.MaxPooling2D()(layers.Conv2D(128, 3, activation="relu")(x))
    x = layers.MaxPooling2D()(layers.Conv2D(128, 3, activation="relu")(x))
    x = layers.Flatten()(layers.Dropout(0.25)(x))
    return _logits(layers.Dense(1024, activation="relu")(x), train)


def paper_cnn(x: Tensor, train: Train) -> Tensor:
    """The same project's earlier TFLearn network, after Gudi 2015 (arXiv 1512.00743)."""
    for _ in range(2):
        x = layers.Conv2D(64, 5, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = layers.Conv2D(128, 4, padding="same", activation="relu")(x)
    x = layers.Flatten()(layers.Dropout(0.3)(x))
    return _logits(layers.Dense(3072, activation="relu")(x), train)


def mini_xception(x: Tensor, train: Train) -> Tensor:
    """mini-Xception (Arriaga et al. 2017, arXiv 1710.07557): separable residual blocks; 58,423 parameters."""
    for _ in range(2):
        x = _conv_norm(x, 8, padding="valid", activation="relu")
    for width in (16, 32, 64, 128):
        shortcut = _conv_norm(x, width, kernel=1, stride=2)
        x = layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(_norm(x))
        x = _norm(layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x))
        x = layers.Add()([layers.MaxPooling2D(3, strides=2, padding="same")(x), shortcut])
    x = layers.Conv2D(len(EMOTIONS), 3, padding="same")(layers.Dropout(train.dropout)(x))
    return layers.GlobalAveragePooling2D(dtype="float32")(x)


def fer_resnet(x: Tensor, train: Train) -> Tensor:
    """Residual blocks (He et al. 2016, arXiv 1512.03385) with squeeze-and-excitation (Hu et al. 2018, 1709.01507).

    Stem and shortcuts lose no pixel where the resolution halves, after He et al. 2019 (ResNet-D, arXiv 1812.01187).
    Every layer treats left and right alike: a face and its mirror image have the same probabilities. That is why only
    even widths of maps are halved.
    """
    if train.standardize:
        x = layers.LayerNormalization(axis=(1, 2, 3), center=False, scale=False, dtype="float32")(x)
    x = _mirror_conv_norm(x, train.widths[0] // STEM_SHARE, activation="relu", first=True)
    x = _mirror_conv_norm(x, train.widths[0], stride=train.stem_stride, activation="relu")
    for stage, (width, count) in enumerate(zip(train.widths, train.blocks, strict=True)):
        for block in range(count):
            x = _residual(x, width, stride=2 if stage and not block else 1)
    return _logits(layers.GlobalAveragePooling2D()(x), train, dense=MirrorDense)


def _half(width: int) -> int:
    """The channels of each half of a width, 1 at least."""
    return max(width // 2, 1)


def _logits(features: Tensor, train: Train, *, dense: type[layers.Dense] = layers.Dense) -> Tensor:
    return dense(len(EMOTIONS), dtype="float32", name="logits")(layers.Dropout(train.dropout)(features))


def _norm(x: Tensor, *, groups: int = 1) -> Tensor:
    return BatchNorm(groups, momentum=BATCH_NORM_MOMENTUM)(x)


def _conv_norm(
    x: Tensor,
    width: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    padding: str = "same",
    activation: str = "linear",
) -> Tensor:
    x = layers.Conv2D(width, kernel, strides=stride, padding=padding, use_bias=False, kernel_initializer="he_normal")(x)
    return layers.Activation(activation)(_norm(x))


def _mirror_conv_norm(
    x: Tensor, width: int, *, kernel: int = 3, stride: int = 1, activation: str = "linear", first: bool = False
) -> Tensor:
    kernel = kernel if stride == 1 else 2 * stride  # even, as MirrorConv2D asks
    x = MirrorConv2D(_half(width), kernel, strides=stride, kernel_initializer="he_normal", first=first)(x)
    return layers.Activation(activation)(_norm(x, groups=2))


def _residual(x: Tensor, width: int, *, stride: int) -> Tensor:
    y = _mirror_conv_norm(x, width, stride=stride, activation="relu")
    y = _excited(_mirror_conv_norm(y, width), width)
    if stride > 1 or x.shape[-1] != width:
        x = layers.AveragePooling2D(stride, padding="same")(x) if stride > 1 else x
        x = _mirror_conv_norm(x, width, kernel=1)
    return layers.ReLU()(layers.Add()([x, y]))


def _excited(x: Tensor, width: int) -> Tensor:
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = MirrorConv2D(_half(width // SQUEEZE), 1, activation="relu")(gate)
    return layers.Multiply()([x, MirrorConv2D(_half(width), 1, activation="sigmoid")(gate)])


NETWORKS: dict[str, Callable[[Tensor, Train], Tensor]] = {
    "seed_cnn": seed_cnn,
    "paper_cnn": paper_cnn,
    "mini_xception": mini_xception,
    "fer_resnet": fer_resnet,
}
