"""Training targets combine labels and soft labels, and soft labels for other data or settings are refused."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.support.onnx_files import write_linear
from tests.support.paths import PRETRAINED

from emotion_detection.config import Distillation
from emotion_detection.errors import ConfigError, ModelError
from emotion_detection.inference.classifier import EmotionClassifier, mirror_averaged
from emotion_detection.training.augmentation import batches
from emotion_detection.training.content_addressed import write_content_addressed
from emotion_detection.training.distillation import (
    Teachers,
    augmentation_settings,
    check_teachers,
    read_soft_labels,
    save_soft_labels,
    teacher_digests,
)
from emotion_detection.training.distillation import targets as targets_of
from emotion_detection.training.initial_weights import save_initial_weights
from emotion_detection.training.trainer import fit


@pytest.fixture(scope="module")
def train_faces(drawn):
    return drawn.of("train")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_linear(tmp_path_factory.mktemp("teacher") / "model.onnx")


@pytest.fixture(scope="module")
def classifier(teacher):
    return EmotionClassifier(teacher)


@pytest.fixture(scope="module")
def saved(train_faces, teacher, classifier, tmp_path_factory):
    """Soft labels of the unchanged faces."""
    probabilities = mirror_averaged(classifier, train_faces.images)
    return save_soft_labels(probabilities, train_faces, [teacher], tmp_path_factory.mktemp("soft_labels"))


def distillation(path, weight=0.7, temperature=1.0):
    return Distillation(
        soft_labels=path and str(path), teachers=(), teachers_see="augmented", weight=weight, temperature=temperature
    )


@pytest.fixture
def targets(params):
    """A function for the targets of unchanged faces."""

    def compute(settings, faces):
        result, soft_labels = targets_of(params.train.model_copy(update={"distillation": settings}), faces)
        assert soft_labels is None
        return result

    return compute


def test_targets_without_soft_labels_are_one_hot(train_faces, targets):
    result = targets(distillation(None, weight=0), train_faces)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, np.eye(7)[train_faces.labels])


def test_mirror_averaged_probabilities_are_equal_for_a_mirrored_face(train_faces, classifier):
    averaged = mirror_averaged(classifier, train_faces.images)
    np.testing.assert_allclose(averaged, mirror_averaged(classifier, train_faces.images[:, :, ::-1]), atol=1e-6)
    assert np.abs(averaged - classifier.probabilities(train_faces.images)).max() > 1e-3


def test_weight_interpolates_between_label_and_soft_label(train_faces, classifier, saved, targets):
    one_hot, soft_labels = np.eye(7)[train_faces.labels], mirror_averaged(classifier, train_faces.images)
    np.testing.assert_allclose(targets(distillation(saved, weight=1.0), train_faces), soft_labels, atol=1e-3)
    np.testing.assert_allclose(targets(distillation(saved), train_faces), 0.3 * one_hot + 0.7 * soft_labels, atol=1e-3)


def test_temperature_softens_the_soft_labels(train_faces, saved, targets):
    hard, soft = (targets(distillation(saved, weight=1.0, temperature=t), train_faces) for t in (1, 4))
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(soft.argmax(axis=1), hard.argmax(axis=1))
    assert (soft.max(axis=1) < hard.max(axis=1)).all()
    expected = hard[0] ** 0.25 / (hard[0] ** 0.25).sum()  # p^(1/4), normalized
    np.testing.assert_allclose(soft[0], expected, rtol=1e-4)


def test_file_name_depends_on_the_content(train_faces, teacher, saved, tmp_path, targets):
    probabilities = targets(distillation(saved, weight=1.0), train_faces)
    first, second = (save_soft_labels(probabilities, train_faces, [teacher], tmp_path / name) for name in "ab")
    assert first.name == second.name
    assert save_soft_labels(1 - probabilities, train_faces, [teacher], tmp_path).name != first.name


def test_renamed_file_is_refused(train_faces, saved, tmp_path, targets):
    renamed = shutil.copy(saved, tmp_path / "0123456789ab.npz")
    with pytest.raises(ModelError, match=r"was changed or renamed, .*emotion-detection soft-labels"):
        targets(distillation(renamed), train_faces)


def test_soft_labels_of_other_faces_are_refused(drawn, saved, targets):
    with pytest.raises(ModelError, match="was made for other training faces"):
        targets(distillation(saved), drawn.of("val"))


def test_missing_file_is_refused(train_faces, tmp_path, targets):
    with pytest.raises(ModelError, match=r"gone\.npz cannot be read .*emotion-detection soft-labels"):
        targets(distillation(tmp_path / "gone.npz"), train_faces)


def test_initial_weights_are_refused(targets, train_faces, tmp_path):
    weights = save_initial_weights([np.zeros(3, np.float32)], tmp_path)
    with pytest.raises(ModelError, match="contains no soft labels"):
        targets(distillation(weights), train_faces)


@pytest.mark.parametrize(("soft_labels", "weight"), [(None, 0.5), ("some.npz", 0.0)])
def test_soft_labels_without_weight_and_the_reverse_are_refused(soft_labels, weight):
    with pytest.raises(ValueError, match="needs both soft_labels and a weight above 0, or neither"):
        distillation(soft_labels, weight=weight)


EPOCHS = 2


def batches_of(train, faces, epoch):
    targets, soft_labels = targets_of(train, faces)
    settings = {"batch_size": train.batch_size, "seed": train.seed, "epoch": epoch, "soft_labels": soft_labels}
    return list(batches(faces, targets, train.augment, **settings))


def augmented_soft_labels(train, faces, classifier, folder):
    """Save the probabilities that the classifier predicts for the augmented faces of two epochs."""
    settings = train.model_copy(update={"distillation": distillation(None, weight=0)})
    probabilities = [
        [classifier.probabilities(images[..., 0]) for images, _ in batches_of(settings, faces, epoch)]
        for epoch in range(1, EPOCHS + 1)
    ]
    stacked = np.stack([np.concatenate(epoch) for epoch in probabilities])
    return save_soft_labels(stacked, faces, [], folder, augmentation=augmentation_settings(train))


@pytest.fixture(scope="module")
def augmented(tiny, train_faces, classifier, tmp_path_factory):
    """Settings of a training with soft labels of augmented faces."""
    path = augmented_soft_labels(tiny, train_faces, classifier, tmp_path_factory.mktemp("augmented"))
    return tiny.model_copy(update={"distillation": distillation(path, weight=0.75)})


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_augmented_face_gets_the_soft_label_of_the_augmented_face(tiny, train_faces, classifier, tmp_path, mixup):
    train = tiny.model_copy(update={"augment": tiny.augment.model_copy(update={"mixup": mixup})})
    expected_batches = [batches_of(train, train_faces, epoch) for epoch in range(1, EPOCHS + 1)]
    path = augmented_soft_labels(train, train_faces, classifier, tmp_path)
    train = train.model_copy(update={"distillation": distillation(path, weight=0.75)})
    for epoch in (1, 2, 3):  # the third epoch repeats the first
        pairs = zip(batches_of(train, train_faces, epoch), expected_batches[(epoch - 1) % EPOCHS], strict=True)
        for (images, targets), (expected_images, labels) in pairs:
            np.testing.assert_array_equal(images, expected_images)
            expected = 0.25 * labels + 0.75 * classifier.probabilities(images[..., 0])
            np.testing.assert_allclose(targets, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, r"train.seed 1 \(not 2\): use the same settings"),
        ({"batch_size": 32}, r"train.batch_size 6 \(not 32\): use the same settings"),
        ({"final_plain_fraction": 0.5}, r"train.final_plain_fraction 0 \(not 0.5\): use the same settings"),
    ],
)
def test_soft_labels_of_another_augmentation_are_refused(augmented, train_faces, change, message):
    with pytest.raises(ConfigError, match=f"was made with {message}"):
        targets_of(augmented.model_copy(update=change), train_faces)


def test_soft_labels_of_augmented_faces_are_not_those_of_the_unchanged_ones(augmented, train_faces):
    with pytest.raises(ModelError, match="contains soft labels for augmented faces only"):
        read_soft_labels(Path(augmented.distillation.soft_labels), train_faces)


@pytest.mark.slow
def test_training_uses_soft_labels_of_augmented_faces(augmented, drawn):
    history = fit(augmented, drawn, on_epoch=lambda _: None).history
    # The cross-entropy of targets that sum to 1. Without the soft labels they would sum to 0.25, and so would the loss.
    assert 1.2 < history[0]["loss"] < 3


def write_variant(folder, saved, **changes):
    """A copy of a soft-label file with some arrays replaced; None removes one."""
    with np.load(saved) as arrays:
        content = {name: arrays[name] for name in arrays.files} | changes
    stream = io.BytesIO()
    np.savez(stream, **{name: array for name, array in content.items() if array is not None})
    return write_content_addressed(stream.getvalue(), folder)


def uniform(*shape):
    return np.full(shape, 1 / 7, np.float16)


def with_value(value):
    probabilities = uniform(14, 7)
    probabilities[3, 2] = value
    return probabilities


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"probabilities": uniform(14, 1)}, r"\(14, 1\) instead of float16 probabilities of 14 faces"),
        ({"probabilities": uniform(1, 7)}, r"\(1, 7\) instead of"),
        ({"probabilities": uniform(7)}, r"\(7,\) instead of"),
        ({"probabilities": uniform(2, 14, 7)}, r"\(2, 14, 7\) instead of"),
        ({"probabilities": uniform(0, 7)}, r"\(0, 7\) instead of"),
        ({"probabilities": uniform(14, 7).astype(np.float64)}, "float64"),
        ({"probabilities": np.ones((14, 7), np.int8)}, "int8"),
        ({"probabilities": np.full((14, 7), "x")}, "instead of float16"),
        ({"probabilities": with_value(np.nan)}, "no probabilities"),
        ({"probabilities": with_value(np.inf)}, "no probabilities"),
        ({"probabilities": with_value(-0.1)}, "no probabilities"),
        ({"probabilities": with_value(0.9)}, "no probabilities"),
        ({"probabilities": uniform(14, 7) * 0}, "no probabilities"),
        ({"probabilities": None}, "contains no soft labels"),
        ({"faces": None}, "contains no soft labels"),
        ({"faces": np.zeros(3)}, "contains no soft labels"),
        ({"changes": np.array([0x7FFFFFFF], np.uint32).view("U1").reshape(())}, "contains no soft labels"),
        ({"changes": np.array("{")}, "settings of its augmentation"),
        ({"changes": np.array("[" * 5000)}, "settings of its augmentation"),
        ({"changes": np.array("[]")}, "settings of its augmentation"),
        ({"changes": np.array('{"batch_size": 0}')}, "settings of its augmentation"),
        ({"changes": np.array('{"batch_size": 4}')}, r"\(14, 7\) instead of"),
    ],
)
def test_damaged_soft_labels_are_refused(train_faces, saved, targets, tmp_path, changes, words):
    path = write_variant(tmp_path, saved, **changes)
    with pytest.raises(ModelError, match=words) as error:
        targets(distillation(path), train_faces)
    assert str(error.value).endswith("prints the settings for params.yaml")
    assert len(str(error.value)) < 500


def test_soft_labels_with_fewer_settings_are_refused(augmented, train_faces, tmp_path):
    path = write_variant(tmp_path, augmented.distillation.soft_labels, changes=np.array('{"batch_size": 6}'))
    with pytest.raises(ConfigError, match="was made with fewer settings"):
        targets_of(augmented.model_copy(update={"distillation": distillation(path)}), train_faces)


def test_soft_labels_of_objects_are_refused(train_faces, targets, tmp_path):
    stream = io.BytesIO()
    np.savez(stream, probabilities=np.array([{}] * 14, dtype=object), faces=np.array("x"))
    with pytest.raises(ModelError, match=r"cannot be used .* contains objects"):
        targets(distillation(write_content_addressed(stream.getvalue(), tmp_path)), train_faces)


def test_settings_without_later_keys_have_the_text_of_older_files(params):
    """So that older files fit, and equal settings give equal files."""
    train = params.train
    assert set(json.loads(augmentation_settings(train))["augment"]) == {
        "flip", "shift", "rotate_deg", "scale", "brightness", "contrast", "erase", "mixup"
    }  # fmt: skip
    changed = train.model_copy(update={"augment": train.augment.model_copy(update={"noise": 4})})
    assert json.loads(augmentation_settings(changed))["augment"]["noise"] == 4


def test_older_soft_labels_do_not_fit_a_later_augmentation(augmented, train_faces):
    augment = augmented.augment.model_copy(update={"gamma": (0.5, 2.0)})
    with pytest.raises(ConfigError, match=r"train.augment.gamma \[1, 1\] \(not \[0.5, 2.0\]\): use the same settings"):
        targets_of(augmented.model_copy(update={"augment": augment}), train_faces)


def matching(*teachers, weight=0.75, temperature=1.0):
    """Settings of function matching."""
    paths = tuple(str(teacher) for teacher in teachers)
    return Distillation(
        soft_labels=None, teachers=paths, teachers_see="augmented", weight=weight, temperature=temperature
    )


def matched_batches(train, faces, epoch):
    targets, soft_labels = targets_of(train, faces)
    assert soft_labels is None
    settings = {"batch_size": train.batch_size, "seed": train.seed, "epoch": epoch}
    settings["teachers_see"] = train.distillation.teachers_see
    return list(batches(faces, targets, train.augment, **settings, teach=Teachers(train.distillation)))


def test_teachers_label_each_view_as_the_student_sees_it(tiny, train_faces, teacher, classifier):
    augment = tiny.augment.model_copy(update={"mixup": 0.4})
    plain = tiny.model_copy(update={"augment": augment})
    train = plain.model_copy(update={"distillation": matching(teacher)})
    views = []
    for epoch in (1, 2, 3):
        pairs = zip(matched_batches(train, train_faces, epoch), batches_of(plain, train_faces, epoch), strict=True)
        for (images, targets), (expected_images, labels) in pairs:
            np.testing.assert_array_equal(images, expected_images)
            expected = 0.25 * labels + 0.75 * classifier.probabilities(images[..., 0])
            np.testing.assert_allclose(targets, expected, atol=1e-5)
            assert targets.dtype == np.float32
            views.append(images.tobytes())
    assert len(set(views)) == len(views)  # no view repeats


def test_teachers_can_label_each_view_before_it_is_changed_and_mixed(tiny, train_faces, teacher, classifier):
    """The student sees a changed face, and learns what the teacher says about the face before the change."""
    off = {"brightness": 0, "contrast": (1, 1), "gamma": (1, 1), "gradient": 0, "blur": 0, "noise": 0, "jpeg": 0}
    off |= {"erase": 0, "mixup": 0}
    moved = tiny.model_copy(update={"augment": tiny.augment.model_copy(update=off)})
    settings = matching(teacher, weight=1.0).model_copy(update={"teachers_see": "moved"})
    changed = moved.model_copy(
        update={"augment": moved.augment.model_copy(update={"brightness": 0.4}), "distillation": settings}
    )
    (images, targets), *_ = matched_batches(changed, train_faces, epoch=1)
    (before, _), *_ = batches_of(moved, train_faces, epoch=1)
    assert (images != before).any()
    np.testing.assert_allclose(targets, classifier.probabilities(before[..., 0]), atol=1e-5)

    mixed = changed.model_copy(update={"augment": changed.augment.model_copy(update={"mixup": 0.4})})
    (_, mixed_targets), *_ = matched_batches(mixed, train_faces, epoch=1)
    assert (mixed_targets != targets).any()  # the teacher's answers are mixed like the faces
    np.testing.assert_allclose(mixed_targets.sum(axis=1), 1, rtol=1e-5)


def test_several_teachers_are_averaged_and_softened(train_faces, teacher, classifier, tmp_path):
    other = write_linear(tmp_path / "other.onnx", seed=5)
    images = train_faces.images[:4]
    mean = (classifier.probabilities(images) + EmotionClassifier(other).probabilities(images)) / 2
    np.testing.assert_allclose(Teachers(matching(teacher, other, weight=1.0))(images), mean, atol=1e-6)
    softened = Teachers(matching(teacher, other, weight=0.5, temperature=4.0))(images)
    np.testing.assert_allclose(softened.sum(axis=1), 0.5, rtol=1e-5)
    assert (softened.max(axis=1) < 0.5 * mean.max(axis=1)).all()


def test_missing_teacher_is_refused(params, tmp_path):
    train = params.train.model_copy(update={"distillation": matching(tmp_path / "gone.onnx")})
    for use in (lambda: check_teachers(train, "fer2013"), lambda: Teachers(train.distillation)):
        with pytest.raises(ModelError, match=r"gone\.onnx does not exist: correct train\.distillation\.teachers"):
            use()


def test_teacher_of_another_data_set_is_refused(params):
    train = params.train.model_copy(update={"distillation": matching(PRETRAINED / "model.onnx")})
    check_teachers(train, "fer2013")
    with pytest.raises(ModelError, match="was trained on fer2013, but the faces are of sample"):
        check_teachers(train, "sample")


def test_digests_identify_the_teachers_of_equal_paths(params, tmp_path):
    path = tmp_path / "model.onnx"
    train = params.train.model_copy(update={"distillation": matching(path)})
    digests = set()
    for seed in (1, 2):
        write_linear(path, seed=seed)
        digests.add(teacher_digests(train))
    assert len(digests) == 2
    assert teacher_digests(params.train) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"soft_labels": "some.npz"}, "has soft_labels and teachers: use one of them"),
        ({"weight": 0}, "has teachers, but their weight is 0"),
        ({"teachers": ("",)}, "at least 1 character"),
        ({"teachers": (), "soft_labels": "some.npz", "teachers_see": "moved"}, "teachers_see: moved, but no teachers"),
    ],
)
def test_contradicting_settings_of_teachers_are_refused(changes, words):
    settings = {
        "soft_labels": None,
        "teachers": ("a.onnx",),
        "teachers_see": "augmented",
        "weight": 0.5,
        "temperature": 1,
    }
    with pytest.raises(ValueError, match=words):
        Distillation.model_validate(settings | changes)


@pytest.mark.slow
def test_training_shows_the_teachers_what_the_settings_say(tiny, teacher, drawn, monkeypatch):
    seen, predict = [], Teachers.__call__

    def note(self, images):
        seen.append(images.copy())
        return predict(self, images)

    monkeypatch.setattr(Teachers, "__call__", note)
    for view in ("moved", "augmented"):
        settings = matching(teacher).model_copy(update={"teachers_see": view})
        augment = tiny.augment.model_copy(update={"erase": 1.0})
        fit(
            tiny.model_copy(update={"distillation": settings, "augment": augment, "epochs": 1}),
            drawn,
            on_epoch=lambda _: None,
        )
    half = len(seen) // 2
    assert half
    assert all((moved != erased).any() for moved, erased in zip(seen[:half], seen[half:], strict=True))


@pytest.mark.slow
def test_training_learns_from_teachers(tiny, teacher, drawn):
    train = tiny.model_copy(update={"distillation": matching(teacher), "epochs": 1})
    (row,) = fit(train, drawn, on_epoch=lambda _: None).history
    assert 1.2 < row["loss"] < 3  # without the teachers, the targets would sum to 0.25
