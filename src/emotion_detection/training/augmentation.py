"""Shuffled and augmented training batches, with NumPy and OpenCV (tens of microseconds per face)."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_detection.arrays import Images
from emotion_detection.config import Augment, Train
from emotion_detection.data.dataset import Faces

Targets = NDArray[np.float32]  # (n, 7) in the order of EMOTIONS
Teach = Callable[[Images], Targets]  # images u8 (b,48,48) -> what to add to their targets, f32 (b,7)

MID_GRAY = 127.5
# Random erasing after Zhong et al. 2017 (arXiv 1708.04896). They erase up to 40 % of an image, which includes
# background; a face crop has little background.
ERASED_AREA = (0.02, 0.2)  # fraction of the face
ERASED_ASPECT = (0.5, 2.0)  # height / width
JPEG_QUALITY = (20, 90)
MIN_BLUR = 0.05  # pixels; OpenCV needs more than 0, and this changes nothing
FINAL_SHIFT = 0.04  # fraction of the width


def augmentation(train: Train, epoch: int) -> Augment:
    """Return the augmentation of an epoch, counted from 1. The final epochs only flip and slightly shift the faces.

    Strong augmentation regularizes, but its faces differ from real ones. Bodhis4ttva/LHC_Net (2021) also trains its
    final epochs without it.
    """
    if epoch <= round(train.epochs * (1 - train.final_plain_fraction)):
        return train.augment
    off = {"rotate_deg": 0, "scale": (1, 1), "brightness": 0, "contrast": (1, 1), "erase": 0, "mixup": 0}
    off |= {"gamma": (1, 1), "gradient": 0, "blur": 0, "noise": 0, "jpeg": 0}
    return train.augment.model_copy(update=off | {"shift": min(train.augment.shift, FINAL_SHIFT)})


def batches(
    faces: Faces,
    targets: Targets,
    settings: Augment,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    soft_labels: Targets | None = None,
    teach: Teach | None = None,
    teachers_see: str = "augmented",
) -> Iterator[tuple[Images, Targets]]:
    """Yield images u8 (b,48,48,1) and targets f32 (b,7): every face, in an order drawn from (seed, epoch).

    soft_labels f32 (v,m,7) are added to the targets of the m augmented faces of each of the epochs 1 to v. Later epochs
    repeat these, because soft labels for other augmented faces do not exist. `teach` labels each batch instead, so that
    no view repeats: the batch itself, or with teachers_see="moved" its faces before `change` and mixup.

    The last batch is filled up with the first faces of the epoch. A smaller batch would make TensorFlow compile twice,
    and an odd batch size can crash it (gradients of separable convolutions by oneDNN in TensorFlow 2.21).
    An epoch depends on no state of earlier epochs, so it is the same after an interruption.
    """
    view = 1 + (epoch - 1) % len(soft_labels) if soft_labels is not None else epoch
    rng = np.random.default_rng([seed, view])
    steps = -(-len(faces) // batch_size)
    for step, rows in enumerate(np.resize(rng.permutation(len(faces)), (steps, batch_size))):
        moved, batch_targets = move(faces.images[rows], settings, rng), targets[rows]
        images = change(moved, settings, rng)
        if teach is not None and teachers_see == "moved":
            batch_targets = batch_targets + teach(moved)
        if settings.mixup:
            images, batch_targets = _mix(images, batch_targets, settings.mixup, rng)
        if soft_labels is not None:
            batch_targets = batch_targets + soft_labels[view - 1, step * batch_size :][:batch_size]
        if teach is not None and teachers_see == "augmented":
            batch_targets = batch_targets + teach(images)
        yield images[..., np.newaxis], batch_targets


def _mix(images: Images, targets: Targets, alpha: float, rng: np.random.Generator) -> tuple[Images, Targets]:
    """Mixup (Zhang et al. 2017, arXiv 1710.09412): blend images and targets with another face of the batch."""
    weights = rng.beta(alpha, alpha, len(images)).astype(np.float32)
    partners = rng.permutation(len(images))
    image_weights, target_weights = weights[:, np.newaxis, np.newaxis], weights[:, np.newaxis]
    blended = image_weights * images + (1 - image_weights) * images[partners] + 0.5
    return blended.astype(np.uint8), target_weights * targets + (1 - target_weights) * targets[partners]


def move(images: Images, settings: Augment, rng: np.random.Generator) -> Images:
    """Flip, shift, rotate and scale images u8 (n,48,48), each with its own random values; return u8 (n,48,48)."""
    moved = np.empty_like(images)
    for row, (image, matrix) in enumerate(zip(images, _matrices(images.shape, settings, rng), strict=True)):
        moved[row] = cv2.warpAffine(image, matrix, image.shape[::-1], borderMode=cv2.BORDER_REFLECT_101)
    return moved


def change(images: Images, settings: Augment, rng: np.random.Generator) -> Images:
    """Change the light of images u8 (n,48,48), blur, compress and partly erase them; return u8 (n,48,48)."""
    changed = _compress(_change_tones(_change_light(images, settings, rng), settings, rng), settings, rng)
    for erased in np.flatnonzero(rng.random(len(images)) < settings.erase):
        _erase(changed[erased], settings, rng)
    return changed


def _matrices(shape: tuple[int, ...], settings: Augment, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return an affine map (n,2,3) per face: scale and rotate around the center, flip, then shift."""
    count, height, width = shape
    angle = np.deg2rad(rng.uniform(-settings.rotate_deg, settings.rotate_deg, count))
    scale = rng.uniform(*settings.scale, count)
    flip = np.where(rng.random(count) < 0.5 * settings.flip, -1.0, 1.0)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.stack([np.stack([flip * cos, flip * sin], -1), np.stack([-sin, cos], -1)], 1)
    center = np.array([width - 1, height - 1]) / 2
    shift = rng.uniform(-settings.shift, settings.shift, (count, 2)) * width
    return np.concatenate([linear, (center - linear @ center + shift)[..., np.newaxis]], axis=2)


def _change_light(images: Images, settings: Augment, rng: np.random.Generator) -> Images:
    """Change the contrast around mid-gray, then the brightness, and clip to 0..255."""
    shape = (len(images), 1, 1)
    contrast = rng.uniform(*settings.contrast, shape).astype(np.float32)
    brightness = 255 * rng.uniform(-settings.brightness, settings.brightness, shape).astype(np.float32)
    return np.clip((images - MID_GRAY) * contrast + MID_GRAY + brightness + 0.5, 0, 255).astype(np.uint8)


def _change_tones(images: Images, settings: Augment, rng: np.random.Generator) -> Images:
    """Apply gamma, a gradient of light, blur and noise, which a network that standardizes each face does not undo.

    Draw random values only for settings that are on: the draws of all others must not change with a new setting.
    """
    shape, changed = (len(images), 1, 1), images.astype(np.float32)
    if settings.gamma != (1, 1):
        low, high = (float(np.log(limit)) for limit in settings.gamma)
        exponents = np.exp(rng.uniform(low, high, shape))
        changed = (255 * (changed / 255) ** exponents).astype(np.float32)
    if settings.gradient:
        changed += 255 * rng.uniform(0, settings.gradient, shape).astype(np.float32) * _slopes(images.shape, rng)
    for row, sigma in enumerate(rng.uniform(0, settings.blur, len(images))) if settings.blur else ():
        changed[row] = cv2.GaussianBlur(changed[row], (0, 0), max(sigma, MIN_BLUR))
    if settings.noise:
        deviation = rng.uniform(0, settings.noise, shape).astype(np.float32)
        changed += deviation * rng.standard_normal(images.shape, dtype=np.float32)
    return np.clip(changed + 0.5, 0, 255).astype(np.uint8)


def _slopes(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return planes (n,h,w) from -0.5 to 0.5, each in its own direction."""
    count, height, width = shape
    angle = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    across, down = np.cos(angle), np.sin(angle)
    x, y = np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height)[:, np.newaxis]
    return ((x * across + y * down) / (np.abs(across) + np.abs(down))).astype(np.float32)


def _compress(images: Images, settings: Augment, rng: np.random.Generator) -> Images:
    """Compress some of the images as JPEG, in place; draw nothing if the setting is off."""
    for row in np.flatnonzero(rng.random(len(images)) < settings.jpeg) if settings.jpeg else ():
        quality = int(rng.integers(*JPEG_QUALITY, endpoint=True))
        _, encoded = cv2.imencode(".jpg", images[row], [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
        assert decoded is not None
        images[row] = decoded
    return images


def _erase(image: Images, settings: Augment, rng: np.random.Generator) -> None:
    """Fill a random rectangle of image u8 (h,w) with noise or with the mean of the image, in place.

    Noise of all gray levels changes the mean and the deviation of the face, and so each pixel of a standardized face.
    """
    size = np.sqrt(rng.uniform(*ERASED_AREA) * image.size)
    aspect = np.sqrt(np.exp(rng.uniform(*np.log(ERASED_ASPECT))))
    height, width = (max(1, int(side)) for side in np.minimum((size * aspect, size / aspect), image.shape))
    top, left = rng.integers(image.shape[0] - height + 1), rng.integers(image.shape[1] - width + 1)
    rectangle = image[top : top + height, left : left + width]
    if settings.erase_with == "mean":
        rectangle[:] = round(float(image.mean()))
    else:
        rectangle[:] = rng.integers(0, 256, (height, width), dtype=np.uint8)
