"""Faces -> shuffled, augmented training batches, in numpy and OpenCV (tens of microseconds a face)."""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_detection.config import Augment, Train
from emotion_detection.data.dataset import Faces

Images = NDArray[np.uint8]
Targets = NDArray[np.float32]  # a probability per emotion

MID_GRAY = 127.5
# Random erasing after Zhong et al. 2017 (arXiv 1708.04896), who erase up to 40 % of an object in its scene;
# a face crop has no scene to spare.
ERASED_AREA = (0.02, 0.2)  # share of the face
FINISH_SHIFT = 0.04  # of the width
ERASED_ASPECT = (0.5, 2.0)  # height over width


def augmentation(train: Train, epoch: int) -> Augment:
    """The changes of an epoch, 1 the first: in the last ones, the finish, a face is only mirrored and shifted a little.

    Strong changes teach what stays the same, but on faces that nobody will ever show; Bodhis4ttva/LHC_Net (2021) too
    ends without them.
    """
    if epoch <= round(train.epochs * (1 - train.final_plain_fraction)):
        return train.augment
    calm = {"rotate_deg": 0, "scale": (1, 1), "brightness": 0, "contrast": (1, 1), "erase": 0, "mixup": 0}
    return train.augment.model_copy(update=calm | {"shift": min(train.augment.shift, FINISH_SHIFT)})


def batches(
    faces: Faces,
    targets: Targets,
    how: Augment,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    lessons: Targets | None = None,
) -> Iterator[tuple[Images, Targets]]:
    """Yield images u8 (b,48,48,1) and targets f32 (b,7): every face, in an order drawn from (seed, epoch).

    lessons f32 (v,m,7): what is added to the targets of the m changed faces of each of the epochs 1 to v; those after
    them are these epochs again, as nobody was asked about others.

    The last batch is filled up with faces from the epoch's beginning: a smaller one would make TensorFlow compile
    twice, and an odd one can crash it (oneDNN's gradients of separable convolutions in TensorFlow 2.21).
    Nothing outlives an epoch, so an epoch is the same whether or not training was interrupted before it.
    """
    view = 1 + (epoch - 1) % len(lessons) if lessons is not None else epoch
    rng = np.random.default_rng([seed, view])
    steps = -(-len(faces) // batch_size)
    for step, rows in enumerate(np.resize(rng.permutation(len(faces)), (steps, batch_size))):
        images, wanted = augment(faces.images[rows], how, rng), targets[rows]
        if how.mixup:
            images, wanted = _mixed(images, wanted, how.mixup, rng)
        if lessons is not None:
            wanted = wanted + lessons[view - 1, step * batch_size :][:batch_size]
        yield images[..., np.newaxis], wanted


def _mixed(images: Images, targets: Targets, alpha: float, rng: np.random.Generator) -> tuple[Images, Targets]:
    """Each face blended with another of its batch, pixels and targets alike (Zhang et al. 2017, arXiv 1710.09412)."""
    share = rng.beta(alpha, alpha, len(images)).astype(np.float32)
    other = rng.permutation(len(images))
    pixels, wanted = share[:, np.newaxis, np.newaxis], share[:, np.newaxis]
    blended = pixels * images + (1 - pixels) * images[other] + 0.5
    return blended.astype(np.uint8), wanted * targets + (1 - wanted) * targets[other]


def augment(images: Images, how: Augment, rng: np.random.Generator) -> Images:
    """Change images u8 (n,48,48) at random, each face on its own; returns u8 (n,48,48)."""
    changed = np.empty_like(images)
    for row, (image, matrix) in enumerate(zip(images, _matrices(images.shape, how, rng), strict=True)):
        changed[row] = cv2.warpAffine(image, matrix, image.shape[::-1], borderMode=cv2.BORDER_REFLECT_101)
    changed = _relit(changed, how, rng)
    for erased in np.flatnonzero(rng.random(len(images)) < how.erase):
        _erase(changed[erased], rng)
    return changed


def _matrices(shape: tuple[int, ...], how: Augment, rng: np.random.Generator) -> NDArray[np.float64]:
    """One affine map (n,2,3) per face: scale and turn about the centre, mirror, then shift."""
    count, height, width = shape
    angle = np.deg2rad(rng.uniform(-how.rotate_deg, how.rotate_deg, count))
    scale = rng.uniform(*how.scale, count)
    mirror = np.where(rng.random(count) < 0.5 * how.flip, -1.0, 1.0)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.stack([np.stack([mirror * cos, mirror * sin], -1), np.stack([-sin, cos], -1)], 1)
    centre = np.array([width - 1, height - 1]) / 2
    shift = rng.uniform(-how.shift, how.shift, (count, 2)) * width
    return np.concatenate([turn, (centre - turn @ centre + shift)[..., np.newaxis]], axis=2)


def _relit(images: Images, how: Augment, rng: np.random.Generator) -> Images:
    """Contrast about mid-gray, then brightness; clipped, so that a face stays a face of 0..255."""
    shape = (len(images), 1, 1)
    contrast = rng.uniform(*how.contrast, shape).astype(np.float32)
    brightness = 255 * rng.uniform(-how.brightness, how.brightness, shape).astype(np.float32)
    return np.clip((images - MID_GRAY) * contrast + MID_GRAY + brightness + 0.5, 0, 255).astype(np.uint8)


def _erase(image: Images, rng: np.random.Generator) -> None:
    """Fill one random rectangle of image u8 (h,w), in place, with noise."""
    size = np.sqrt(rng.uniform(*ERASED_AREA) * image.size)
    aspect = np.sqrt(np.exp(rng.uniform(*np.log(ERASED_ASPECT))))
    height, width = (max(1, int(side)) for side in np.minimum((size * aspect, size / aspect), image.shape))
    top, left = rng.integers(image.shape[0] - height + 1), rng.integers(image.shape[1] - width + 1)
    image[top : top + height, left : left + width] = rng.integers(0, 256, (height, width), dtype=np.uint8)
