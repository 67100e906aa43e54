"""The networks: one function each, from scaled faces to logits. `build` adds the input, the scaling and the softmax."""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from emotion_detection.config import Train
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE
from emotion_detection.model.layers import BatchNorm, MirrorConv2D, MirrorDense

Tensor = Any  # Keras tensors have no useful static type

STEM_DIVISOR = 3  # the convolution at full resolution has widths[0] // 3 channels, because it is slow
SQUEEZE_RATIO = 8  # of the squeeze-and-excitation bottleneck
# The default of Keras, 0.99, averages over about 100 batches. That is too slow for a short training.
BATCH_NORM_MOMENTUM = 0.95


def build(train: Train, *, temperature: float = 1.0) -> keras.Model:
    """Build a network from faces u8 (n,48,48,1) to probabilities f32 (n,7). It scales the pixels to [-1,1] itself.

    temperature divides the logits: 1 during training, the result of the calibration in a trained model.
    """
    faces = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 1), dtype="uint8", name="faces")
    logits = NETWORKS[train.architecture](layers.Rescaling(1 / 127.5, offset=-1)(faces), train)
    # float32 under any dtype policy: bfloat16 has only two to three significant digits.
    logits = layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(logits)
    probabilities = layers.Softmax(dtype="float32", name="probabilities")(logits)
    return keras.Model(faces, probabilities, name=train.architecture)


def to_keras_layers(model: keras.Model) -> keras.Model:
    """Return a copy that contains only layers of Keras, so that a saved model can be loaded without this project."""

    def clone_layer(layer: layers.Layer) -> layers.Layer:
        if hasattr(layer, "to_keras_layer"):
            return layer.to_keras_layer()
        return layer.__class__.from_config(layer.get_config())

    clone = keras.models.clone_model(model, clone_function=clone_layer)
    for layer, source in zip(clone.layers, model.layers, strict=True):
        weights = source.full_weights() if hasattr(source, "full_weights") else source.weights
        layer.set_weights([ops.convert_to_numpy(weight) for weight in weights])
    return clone


def seed_cnn(x: Tensor, train: Train) -> Tensor:
    """The network of atulapra/Emotion-detection, with four convolutions and 2,345,607 parameters."""
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.Conv2D(64, 3, activation="relu")(x)
    x = layers.Dropout(0.25)(layers.MaxPooling2D()(x))
    x = layers.MaxPooling2D()(layers.Conv2D(128, 3, activation="relu")(x))
    x = layers.MaxPooling2D()(layers.Conv2D(128, 3, activation="relu")(x))
    x = layers.Flatten()(layers.Dropout(0.25)(x))
    return _logits(layers.Dense(1024, activation="relu")(x), train)


def paper_cnn(x: Tensor, train: Train) -> Tensor:
    """The earlier TFLearn network of atulapra/Emotion-detection, after Gudi 2015 (arXiv 1512.00743)."""
    for _ in range(2):
        x = layers.Conv2D(64, 5, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = layers.Conv2D(128, 4, padding="same", activation="relu")(x)
    x = layers.Flatten()(layers.Dropout(0.3)(x))
    return _logits(layers.Dense(3072, activation="relu")(x), train)


def mini_xception(x: Tensor, train: Train) -> Tensor:
    """mini-Xception (Arriaga et al. 2017, arXiv 1710.07557): separable residual blocks, 58,423 parameters."""
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

    The stem and the shortcuts use every pixel when they halve the resolution (ResNet-D, He et al. 2019,
    arXiv 1812.01187). All layers are mirror-equivariant: a face and its mirror image get the same probabilities. This
    requires an even width of the feature maps at every stride of 2.
    """
    x = _standardized(x, train)
    x = _mirror_conv_norm(x, train.widths[0] // STEM_DIVISOR, activation="relu", image_input=True)
    x = _mirror_conv_norm(x, train.widths[0], stride=train.stem_stride, activation="relu")
    for stage, (width, count) in enumerate(zip(train.widths, train.blocks, strict=True)):
        for block in range(count):
            x = _residual_block(x, width, stride=2 if stage and not block else 1)
    if train.head:  # half of the last maps mirror the others, which leaves few features for the classes
        x = _mirror_conv_norm(x, train.head, kernel=1, activation="relu")
    return _logits(layers.GlobalAveragePooling2D()(x), train, dense=MirrorDense)


def fer_vgg(x: Tensor, train: Train) -> Tensor:
    """Plain convolutions and max pooling (Simonyan & Zisserman 2015, arXiv 1409.1556) at full resolution.

    Khaireddin & Chen 2021 (arXiv 2105.03588) use such a network for FER-2013. It is mirror-equivariant like fer_resnet,
    but has no residual blocks, so that it makes other mistakes as a teacher.
    """
    x = _standardized(x, train)
    for width, count in zip(train.widths, train.blocks, strict=True):
        for _ in range(count):
            x = _mirror_conv_norm(x, width, activation="relu", image_input=x.shape[-1] == 1)
        x = layers.MaxPooling2D()(x)
    if train.head:
        x = _mirror_conv_norm(x, train.head, kernel=1, activation="relu")
    return _logits(layers.GlobalAveragePooling2D()(x), train, dense=MirrorDense)


def _standardized(x: Tensor, train: Train) -> Tensor:
    if not train.standardize:
        return x
    return layers.LayerNormalization(axis=(1, 2, 3), center=False, scale=False, dtype="float32")(x)


def _half(width: int) -> int:
    """The number of channels in each half, at least 1."""
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
    x: Tensor, width: int, *, kernel: int = 3, stride: int = 1, activation: str = "linear", image_input: bool = False
) -> Tensor:
    kernel = kernel if stride == 1 else 2 * stride  # MirrorConv2D requires an even kernel
    x = MirrorConv2D(_half(width), kernel, strides=stride, kernel_initializer="he_normal", image_input=image_input)(x)
    return layers.Activation(activation)(_norm(x, groups=2))


def _residual_block(x: Tensor, width: int, *, stride: int) -> Tensor:
    y = _mirror_conv_norm(x, width, stride=stride, activation="relu")
    y = _squeeze_excite(_mirror_conv_norm(y, width), width)
    if stride > 1 or x.shape[-1] != width:
        x = layers.AveragePooling2D(stride, padding="same")(x) if stride > 1 else x
        x = _mirror_conv_norm(x, width, kernel=1)
    return layers.ReLU()(layers.Add()([x, y]))


def _squeeze_excite(x: Tensor, width: int) -> Tensor:
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = MirrorConv2D(_half(width // SQUEEZE_RATIO), 1, activation="relu")(gate)
    return layers.Multiply()([x, MirrorConv2D(_half(width), 1, activation="sigmoid")(gate)])


NETWORKS: dict[str, Callable[[Tensor, Train], Tensor]] = {
    "seed_cnn": seed_cnn,
    "paper_cnn": paper_cnn,
    "mini_xception": mini_xception,
    "fer_resnet": fer_resnet,
    "fer_vgg": fer_vgg,
}
