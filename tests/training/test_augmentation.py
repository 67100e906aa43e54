"""An epoch contains every face once, in an order drawn from (seed, epoch), augmented only as the params allow."""

from dataclasses import replace

import numpy as np
import pytest

from emotion_detection.config import Augment
from emotion_detection.data.dataset import Faces
from emotion_detection.training.augmentation import ERASED_AREA, _matrices, augmentation, batches, change, move

CENTER = 23.5
# The order of faces and the affine map of a face that NumPy's generator drew on 2026-11-26.
ORDER = [48, 20, 31, 17, 22, 27, 35, 19]
# The next random value after an augmentation with the settings that existed on 2026-11-26, drawn by that code.
NEXT = 0.10239894483410406
MATRIX = [[0.92468, 0.19514, 0.03628], [-0.19514, 0.92468, 6.048]]


def augment(images, settings, generator):
    return change(move(images, settings, generator), settings, generator)


def numbered(rows=50) -> Faces:
    """Faces that are filled with their own number; the label is that number modulo 7."""
    numbers = np.arange(rows, dtype=np.uint8)
    images = np.broadcast_to(numbers[:, None, None], (rows, 48, 48)).copy()
    return Faces(images, (numbers % 7).astype(np.uint8), np.zeros(rows, np.uint8), np.zeros(rows, bool))


def one_hot(faces):
    return np.eye(7, dtype=np.float32)[faces.labels]


def epoch_of(faces, plain, *, batch_size=16, seed=1, epoch=1):
    return list(batches(faces, one_hot(faces), plain, batch_size=batch_size, seed=seed, epoch=epoch))


def order_of(faces, plain, **settings) -> list[int]:
    return np.concatenate([images[:, 0, 0, 0] for images, _ in epoch_of(faces, plain, **settings)]).tolist()


def rng():
    return np.random.default_rng(7)


def augmented(images, plain: Augment, **settings):
    """The images with a single kind of augmentation."""
    return augment(images, plain.model_copy(update=settings), rng())


def blob(dx=0.0, dy=0.0, copies=64):
    """A blurred white spot on black, dx and dy pixels from the center."""
    x, y = np.meshgrid(np.arange(48) - CENTER - dx, np.arange(48) - CENTER - dy)
    spot = (255 * np.exp(-(x**2 + y**2) / 8)).round().astype(np.uint8)
    return np.tile(spot, (copies, 1, 1))


def centroids(images):
    """The positions of the spots, f64 (n,2), as x and y relative to the center."""
    weight = images.astype(float) / images.sum(axis=(1, 2), keepdims=True)
    positions = np.arange(48) - CENTER
    return np.stack([(weight * positions).sum(axis=(1, 2)), (weight * positions[:, None]).sum(axis=(1, 2))], axis=1)


def ramp(copies=64):
    """Images that contain all gray levels from 0 to 255, in order."""
    grays = np.linspace(0, 255, 48 * 48).round().astype(np.uint8)
    return np.tile(grays.reshape(48, 48), (copies, 1, 1))


def noise(copies=64):
    return np.random.default_rng(0).integers(0, 256, (copies, 48, 48), dtype=np.uint8)


def test_epoch_contains_every_face_once_and_fills_its_last_batch_with_the_first_faces(plain):
    for epoch in (1, 2):
        order = order_of(numbered(), plain, epoch=epoch)
        assert sorted(order[:50]) == list(range(50))
        assert order[50:] == order[:14]
    assert [len(labels) for _, labels in epoch_of(numbered(), plain)] == [16, 16, 16, 16]
    assert [len(labels) for _, labels in epoch_of(numbered(), plain, batch_size=120)] == [120]


def test_order_depends_only_on_seed_and_epoch(plain):
    orders = [order_of(numbered(), plain, seed=seed, epoch=epoch) for seed, epoch in ((1, 1), (1, 2), (2, 1), (2, 2))]
    assert len({tuple(order) for order in orders}) == 4
    assert list(range(50)) not in orders
    np.random.default_rng().random(3)
    assert orders[1] == order_of(numbered(), plain, seed=1, epoch=2)
    assert orders[1][:50] == order_of(numbered(), plain, seed=1, epoch=2, batch_size=10)


def test_augmentation_depends_only_on_seed_and_epoch(drawn, params):
    def pixels(epoch):
        return np.concatenate([images for images, _ in epoch_of(drawn, params.train.augment, epoch=epoch)])

    np.testing.assert_array_equal(pixels(1), pixels(1))
    assert sorted(map(np.sum, pixels(1))) != sorted(map(np.sum, pixels(2)))


def test_random_draws_do_not_change(plain):
    """The soft labels in recipes/soft_labels are those of the faces that these draws augment."""
    assert order_of(numbered(), plain, seed=1, epoch=2)[:8] == ORDER
    settings = plain.model_copy(update={"flip": True, "shift": 0.1, "rotate_deg": 15, "scale": (0.9, 1.1)})
    np.testing.assert_allclose(_matrices((2, 48, 48), settings, rng())[1], MATRIX, atol=1e-4)


def test_faces_keep_their_targets(plain):
    for images, targets in epoch_of(numbered(), plain):
        np.testing.assert_array_equal(targets.argmax(1), images[:, 0, 0, 0] % 7)


def test_mixup_blends_images_and_targets_with_the_same_weight(plain):
    faces = numbered(2)
    faces = replace(faces, images=faces.images * 200)  # black is label 0, gray 200 is label 1
    mixed = plain.model_copy(update={"mixup": 1.0})
    pairs = [batch for epoch in range(50) for batch in epoch_of(faces, mixed, batch_size=2, epoch=epoch)]
    images, targets = (np.concatenate(part) for part in zip(*pairs, strict=True))
    assert targets.sum(axis=1) == pytest.approx(1)
    assert images[:, 0, 0, 0] == pytest.approx(200 * targets[:, 1], abs=0.51)
    assert np.unique(images).size > 20


def test_final_epochs_only_flip_and_shift(params):
    train = params.train.model_copy(update={"epochs": 10, "final_plain_fraction": 0.2})
    tones = {"gamma": (0.5, 2), "gradient": 0.3, "blur": 1, "noise": 5, "jpeg": 0.5}
    strong = train.augment.model_copy(update={"mixup": 0.4, "erase": 0.5, "shift": 0.1, **tones})
    train = train.model_copy(update={"augment": strong})
    assert {augmentation(train, epoch) for epoch in range(1, 9)} == {strong}
    (final,) = {augmentation(train, epoch) for epoch in (9, 10)}
    assert (final.flip, final.shift, final.rotate_deg, final.scale) == (True, 0.04, 0, (1, 1))
    assert final.erase == final.mixup == 0
    assert (final.gamma, final.gradient, final.blur, final.noise, final.jpeg) == ((1, 1), 0, 0, 0, 0)
    assert augmentation(train.model_copy(update={"final_plain_fraction": 0}), 10) == strong


def test_shapes_and_dtypes(drawn, params):
    for images, targets in epoch_of(drawn, params.train.augment, batch_size=8):
        assert (images.shape, targets.shape) == ((8, 48, 48, 1), (8, 7))
        assert (images.dtype, targets.dtype) == (np.uint8, np.float32)


def test_pixels_are_unchanged_without_augmentation(drawn, plain):
    ((images, _),) = epoch_of(drawn, plain, batch_size=28)
    expected = {image.tobytes() for image in drawn.images}
    assert {image.tobytes() for image in images} == expected
    np.testing.assert_array_equal(augment(noise(), plain, rng()), noise())
    np.testing.assert_array_equal(augment(ramp(1), plain, rng()), ramp(1))


def test_input_faces_are_not_modified(params):
    strong = params.train.augment.model_copy(update={"erase": 0.9, "brightness": 0.5})
    faces = numbered()
    for source in (faces, replace(faces, images=faces.images[::-1])):
        before = source.images.copy()
        for images, labels in batches(source, one_hot(source), strong, batch_size=50, seed=0, epoch=1):
            images[:] = 0
            labels[:] = 0
        np.testing.assert_array_equal(source.images, before)
    np.testing.assert_array_equal(faces.labels, np.arange(50) % 7)


def test_each_face_is_augmented_differently(params):
    same = np.repeat(noise(1), 32, axis=0)
    assert len(np.unique(augment(same, params.train.augment, rng()), axis=0)) == 32


def test_augmenting_no_face_returns_no_face(params):
    assert augment(noise(0), params.train.augment, rng()).shape == (0, 48, 48)


def test_flip_mirrors_about_half_of_the_faces_and_keeps_the_others(plain):
    images = noise(200)
    result = augmented(images, plain, flip=True)
    mirrored = (result == images[:, :, ::-1]).all(axis=(1, 2))
    np.testing.assert_array_equal(result[~mirrored], images[~mirrored])
    assert 70 <= mirrored.sum() <= 130


def test_shift_moves_the_face_by_up_to_its_fraction_of_the_width(plain):
    places = centroids(augmented(blob(), plain, shift=0.2))
    assert np.abs(places).max() <= 0.2 * 48 + 0.1
    assert (places.max(axis=0) > 7).all()
    assert (places.min(axis=0) < -7).all()
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.4  # x and y are independent


@pytest.mark.parametrize("settings", [{"rotate_deg": 45}, {"scale": (0.7, 1.4)}, {"flip": True}])
def test_rotation_scale_and_flip_keep_the_center(plain, settings):
    np.testing.assert_allclose(centroids(augmented(blob(), plain, **settings)), 0, atol=0.1)


def test_rotation_is_around_the_center_in_both_directions(plain):
    x, y = centroids(augmented(blob(dx=12), plain, rotate_deg=30)).T
    np.testing.assert_allclose(np.hypot(x, y), 12, atol=0.15)
    angle = np.rad2deg(np.arctan2(y, x))
    assert 24 < angle.max() < 31
    assert -31 < angle.min() < -24


def test_rotation_and_scale_have_the_same_limits_for_mirrored_faces(plain):
    x, y = centroids(augmented(blob(dx=12), plain, flip=True, rotate_deg=30, scale=(0.8, 1.2))).T
    assert 0.25 < (x < 0).mean() < 0.75
    assert np.abs(np.rad2deg(np.arctan2(y, np.abs(x)))).max() < 31
    assert np.hypot(x, y).min() > 12 * 0.79
    assert np.hypot(x, y).max() < 12 * 1.21


def test_scale_is_relative_to_the_center_and_equal_in_x_and_y(plain):
    x, y = centroids(augmented(blob(dx=10, dy=-6), plain, scale=(0.8, 1.25))).T
    np.testing.assert_allclose(x / 10, y / -6, atol=0.03)
    assert 0.78 < (x / 10).min() < 0.86
    assert 1.19 < (x / 10).max() < 1.27


def test_borders_are_filled_by_reflection(plain):
    white = np.full((32, 48, 48), 200, np.uint8)
    np.testing.assert_array_equal(augmented(white, plain, shift=0.3, rotate_deg=20, scale=(0.7, 1.0)), white)


def test_brightness_adds_a_constant_and_clips(plain):
    result = augmented(ramp(), plain, brightness=0.5).reshape(64, -1).astype(int)
    assert (np.diff(result, axis=1) >= 0).all()  # an overflow would decrease
    offset = result[:, 1152] - ramp(1).ravel()[1152]
    np.testing.assert_allclose(result, np.clip(ramp(1).reshape(1, -1) + offset[:, None], 0, 255), atol=1)
    assert -128 <= offset.min() < -90
    assert 90 < offset.max() <= 128


def test_contrast_scales_around_mid_gray_and_clips(plain):
    result = augmented(ramp(), plain, contrast=(0.5, 2.0)).reshape(64, -1).astype(float)
    assert (np.diff(result, axis=1) >= 0).all()
    np.testing.assert_allclose(result[:, 1151:1153].mean(axis=1), 127.5, atol=1)
    slope = (result[:, 1152 + 250] - result[:, 1152 - 250]) / 500 / (255 / 2304)
    assert 0.48 < slope.min() < 0.7
    assert 1.7 < slope.max() < 2.05
    assert (result[:, 0] == 0).any()
    assert (result[:, -1] == 255).any()


def test_erasing_changes_a_single_rectangle_of_the_allowed_area(plain):
    images = np.full((400, 48, 48), 99, np.uint8)
    changed = augmented(images, plain, erase=0.5) != images
    erased = changed.any(axis=(1, 2))
    assert 0.4 < erased.mean() < 0.6
    areas, places = [], []
    for mask in changed[erased]:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.mean() > 0.9  # the noise contains the old gray level, too
        areas.append(box.size / mask.size)
        places.append((rows[0], columns[0], rows[-1], columns[-1]))
    smallest, largest = ERASED_AREA
    assert 0.6 * smallest < min(areas) < 2 * smallest  # the sides are rounded down
    assert 0.8 * largest < max(areas) <= largest
    assert np.min(places, axis=0)[:2].tolist() == [0, 0]
    assert np.max(places, axis=0)[2:].tolist() == [47, 47]


def test_settings_that_are_off_draw_nothing(plain):
    """Otherwise the soft labels in recipes/soft_labels would belong to other faces."""
    settings = plain.model_copy(update={"erase": 0.5, "rotate_deg": 15, "shift": 0.1, "flip": True, "brightness": 0.1})
    generator = rng()
    augment(noise(), settings, generator)
    assert generator.random() == NEXT


def test_gamma_bends_the_gray_levels_within_its_limits(plain):
    result = augmented(ramp(), plain, gamma=(0.5, 2.0)).reshape(64, -1).astype(float)
    assert (np.diff(result, axis=1) >= 0).all()
    assert (result[:, 0] == 0).all()
    assert (result[:, -1] == 255).all()
    exponents = np.log(result[:, 1152] / 255) / np.log(ramp(1).ravel()[1152] / 255)
    assert 0.48 < exponents.min() < 0.7
    assert 1.5 < exponents.max() < 2.05
    assert 0.3 < (exponents < 1).mean() < 0.7  # darker and brighter equally often


def test_gradient_lights_one_side_and_keeps_the_mean(plain):
    gray = np.full((64, 48, 48), 128, np.uint8)
    result = augmented(gray, plain, gradient=0.4).astype(float)
    spread = result.max(axis=(1, 2)) - result.min(axis=(1, 2))
    assert spread.max() <= 0.4 * 255 + 1
    assert spread.max() > 0.3 * 255
    np.testing.assert_allclose(result.mean(axis=(1, 2)), 128, atol=1)
    brightest = result.reshape(64, -1).argmax(axis=1)
    assert len(set(brightest.tolist())) > 3  # corners and edges: in every direction


def test_blur_removes_details_and_keeps_the_mean(plain):
    result = augmented(noise(), plain, blur=2)
    details = np.abs(np.diff(result.astype(int), axis=2)).mean(axis=(1, 2))
    sharp = np.abs(np.diff(noise().astype(int), axis=2)).mean()
    assert details.min() < 0.2 * sharp
    assert details.max() > 0.8 * sharp
    np.testing.assert_allclose(result.mean(axis=(1, 2)), noise().mean(axis=(1, 2)), atol=2)


def test_noise_has_up_to_its_standard_deviation(plain):
    deviation = augmented(np.full((64, 48, 48), 128, np.uint8), plain, noise=20).std(axis=(1, 2))
    assert deviation.max() < 21
    assert deviation.max() > 15
    assert deviation.min() < 5


def test_jpeg_changes_its_share_of_the_faces(plain):
    changed = (augmented(noise(200), plain, jpeg=0.4) != noise(200)).any(axis=(1, 2))
    assert 0.3 < changed.mean() < 0.5


def test_erasing_with_the_mean_keeps_mean_and_deviation(plain):
    """A network that standardizes each face would otherwise see all pixels changed."""
    faces = ramp(200) // 4 + 20  # dark: noise has another mean
    with_noise, with_mean = (augmented(faces, plain, erase=0.99, erase_with=kind) for kind in ("noise", "mean"))
    erased = (with_mean != faces).any(axis=(1, 2))
    assert erased.mean() > 0.9
    for measure in (np.mean, np.std):
        before = measure(faces, axis=(1, 2))
        change = [np.abs(measure(each, axis=(1, 2)) - before).mean() for each in (with_noise, with_mean)]
        assert change[1] < change[0] / 3 or change[1] < 1
    values = [np.unique(after[after != before]) for after, before in zip(with_mean, faces, strict=True)]
    assert all(len(each) <= 1 for each in values)
