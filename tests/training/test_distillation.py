"""Distillation: targets between label and teacher, and a file of lessons that cannot be taken for another."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tests.support.onnx_files import write_linear
from tests.support.paths import PRETRAINED, ROOT
from tests.training.test_trainer import TINY

from emotion_detection.config import Distillation
from emotion_detection.data.dataset import save
from emotion_detection.errors import InputError
from emotion_detection.inference.classifier import EmotionClassifier, mirror_averaged
from emotion_detection.training.augmentation import batches
from emotion_detection.training.distillation import changes, save_soft_labels
from emotion_detection.training.distillation import targets as targets_of
from emotion_detection.training.initial_weights import save_initial_weights
from emotion_detection.training.trainer import fit

TEACHER = PRETRAINED / "model.onnx"


@pytest.fixture(scope="module")
def taught(drawn):
    return drawn.of("train")


@pytest.fixture(scope="module")
def classifier():
    return EmotionClassifier(TEACHER)


@pytest.fixture(scope="module")
def lessons(taught, classifier, tmp_path_factory):
    probabilities = mirror_averaged(classifier, taught.images)
    return save_soft_labels(probabilities, taught, [TEACHER], tmp_path_factory.mktemp("lessons"))


def distillation(path, weight=0.7, temperature=1.0):
    return Distillation(soft_labels=path and str(path), weight=weight, temperature=temperature)


@pytest.fixture
def targets(params):
    """The targets of faces under a Distil, when there are no lessons about changed ones."""

    def of(distil, faces):
        wanted, lessons = targets_of(params.train.model_copy(update={"distillation": distil}), faces)
        assert lessons is None
        return wanted

    return of


def test_without_a_teacher_the_target_is_the_label(taught, targets):
    wanted = targets(distillation(None, weight=0), taught)
    assert wanted.dtype == np.float32
    np.testing.assert_array_equal(wanted, np.eye(7)[taught.labels])


def test_a_face_and_its_mirror_image_are_read_alike(taught, tmp_path):
    classifier = EmotionClassifier(write_linear(tmp_path / "lopsided.onnx"))
    both = mirror_averaged(classifier, taught.images)
    np.testing.assert_allclose(both, mirror_averaged(classifier, taught.images[:, :, ::-1]), atol=1e-6)
    assert np.abs(both - classifier.probabilities(taught.images)).max() > 1e-3


def test_the_target_lies_between_label_and_teacher(taught, classifier, lessons, targets):
    truth, taught_by = np.eye(7)[taught.labels], mirror_averaged(classifier, taught.images)
    np.testing.assert_allclose(targets(distillation(lessons, weight=1.0), taught), taught_by, atol=1e-3)
    np.testing.assert_allclose(targets(distillation(lessons), taught), 0.3 * truth + 0.7 * taught_by, atol=1e-3)


def test_temperature_softens_the_teacher(taught, lessons, targets):
    hard, soft = (targets(distillation(lessons, weight=1.0, temperature=t), taught) for t in (1, 4))
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(soft.argmax(axis=1), hard.argmax(axis=1))
    assert (soft.max(axis=1) < hard.max(axis=1)).all()
    # p^(1/4) by hand for the first face
    by_hand = hard[0] ** 0.25 / (hard[0] ** 0.25).sum()
    np.testing.assert_allclose(soft[0], by_hand, rtol=1e-4)


def test_the_same_lessons_have_the_same_name(taught, lessons, tmp_path, targets):
    probabilities = targets(distillation(lessons, weight=1.0), taught)
    first, second = (save_soft_labels(probabilities, taught, [TEACHER], tmp_path / name) for name in "ab")
    assert first.name == second.name
    assert save_soft_labels(1 - probabilities, taught, [TEACHER], tmp_path).name != first.name


def test_a_changed_file_is_refused(taught, lessons, tmp_path, targets):
    other = shutil.copy(lessons, tmp_path / "0123456789ab.npz")
    with pytest.raises(InputError, match=r"is not the file of that name any more .*emotion-detection soft-labels"):
        targets(distillation(other), taught)


def test_other_faces_are_refused(drawn, lessons, targets):
    with pytest.raises(InputError, match="was made for other training faces"):
        targets(distillation(lessons), drawn.of("val"))


def test_a_missing_file_is_named(taught, tmp_path, targets):
    with pytest.raises(InputError, match=r"gone\.npz cannot be read .*emotion-detection soft-labels"):
        targets(distillation(tmp_path / "gone.npz"), taught)


@pytest.mark.parametrize(("teacher", "weight"), [(None, 0.5), ("some.npz", 0.0)])
def test_a_teacher_without_weight_or_the_reverse_is_refused(teacher, weight):
    with pytest.raises(ValueError, match="needs both soft_labels and a weight above 0, or neither"):
        distillation(teacher, weight=weight)


def command_on(drawn, folder, dataset, *teachers, more=()):
    save(drawn, folder / "faces.npz")
    (folder / "report.json").write_text(json.dumps({"dataset": dataset}))
    command = [
        sys.executable,
        "-m",
        "emotion_detection",
        "soft-labels",
        *map(str, teachers or (TEACHER, TEACHER)),
    ]
    named = {"faces": "faces.npz", "data-report": "report.json", "folder": "lessons"}
    paths = [part for name, file in named.items() for part in (f"--{name}", str(folder / file))]
    return subprocess.run([*command, *paths, *more], capture_output=True, text=True)


def test_a_teacher_of_another_data_set_is_refused(drawn, tmp_path):
    result = command_on(drawn, tmp_path, "custom-01234567")
    assert result.returncode
    assert "model.onnx learnt from fer2013, these faces are custom-01234567" in result.stderr
    assert not (tmp_path / "lessons").exists()


def test_the_command_writes_what_the_recipe_needs(drawn, taught, tmp_path, targets):
    result = command_on(drawn, tmp_path, "fer2013")
    assert not result.returncode
    (written,) = (tmp_path / "lessons").iterdir()
    assert f"soft_labels: {written}" in result.stdout
    assert targets(distillation(written), taught).shape == (14, 7)


def test_earlier_lessons_teach_beside_a_model(drawn, taught, classifier, tmp_path, targets):
    earlier = save_soft_labels(np.full((14, 7), 1 / 7, np.float32), taught, [TEACHER], tmp_path)
    assert not command_on(drawn, tmp_path, "fer2013", TEACHER, earlier).returncode
    (written,) = (tmp_path / "lessons").iterdir()
    expected = (mirror_averaged(classifier, taught.images) + 1 / 7) / 2
    np.testing.assert_allclose(targets(distillation(written, weight=1.0), taught), expected, atol=1e-3)


EPOCHS = 2


@pytest.fixture(scope="module")
def about_changed(drawn, tmp_path_factory):
    """Lessons about the faces that the committed params change in two epochs, by the command."""
    folder = tmp_path_factory.mktemp("changed")
    params = str(ROOT / "params.yaml")
    result = command_on(drawn, folder, "fer2013", TEACHER, more=("--epochs", str(EPOCHS), "--params", params))
    assert not result.returncode, result.stderr
    (written,) = (folder / "lessons").iterdir()
    return written


@pytest.fixture
def changing(params, about_changed):
    return params.train.model_copy(
        update={"distillation": distillation(about_changed, weight=0.75), "final_plain_fraction": 0}
    )


def batches_of(train, faces, epoch):
    wanted, lessons = targets_of(train, faces)
    how = {"batch_size": train.batch_size, "seed": train.seed, "epoch": epoch, "lessons": lessons}
    return list(batches(faces, wanted, train.augment, **how))


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_a_changed_face_is_taught_what_the_teachers_think_of_it(changing, taught, classifier, tmp_path, mixup):
    train = changing.model_copy(update={"augment": changing.augment.model_copy(update={"mixup": mixup})})
    plain = train.model_copy(update={"distillation": distillation(None, weight=0)})
    seen = [batches_of(plain, taught, epoch) for epoch in (1, 2)]
    thought = np.stack([np.concatenate([classifier.probabilities(x[..., 0]) for x, _ in epoch]) for epoch in seen])
    path = save_soft_labels(thought, taught, [TEACHER], tmp_path, changed=changes(train))
    train = train.model_copy(update={"distillation": distillation(path, weight=0.75)})
    for epoch in (1, 2, 3):  # the third is the first again
        for (x, wanted), (same, truth) in zip(batches_of(train, taught, epoch), seen[(epoch - 1) % 2], strict=True):
            np.testing.assert_array_equal(x, same)
            expected = 0.25 * truth + 0.75 * classifier.probabilities(x[..., 0])
            np.testing.assert_allclose(wanted, expected, atol=1e-3)


def test_the_command_asks_about_the_faces_that_training_will_show(changing, taught, classifier):
    _, lessons = targets_of(changing, taught)
    rows = -(-len(taught) // changing.batch_size) * changing.batch_size
    assert lessons is not None
    assert lessons.shape == (EPOCHS, rows, 7)
    for epoch in range(EPOCHS):
        x = np.concatenate([x for x, _ in batches_of(changing, taught, epoch + 1)])[..., 0]
        np.testing.assert_allclose(lessons[epoch], 0.75 * classifier.probabilities(x), atol=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 2}, "train.seed 1, not 2: let train have that"),
        ({"batch_size": 32}, "train.batch_size 64, not 32: let train have that"),
        ({"final_plain_fraction": 0.5}, "train.final_plain_fraction 0, not 0.5: let train have that"),
    ],
)
def test_lessons_about_other_changes_are_refused(changing, taught, change, words):
    with pytest.raises(InputError, match=f"is about faces changed with {words}"):
        targets_of(changing.model_copy(update=change), taught)


def test_a_training_learns_from_lessons_about_changed_faces(changing, drawn):
    train = changing.model_copy(update={**TINY, "epochs": 3, "patience": 3})
    history = fit(train, drawn, on_epoch=lambda _: None).history
    # Cross-entropy to targets that sum to 1: without the lessons they would sum to a quarter, and so would the loss.
    assert 1.2 < history[0]["loss"] < 3


def test_weights_are_no_lessons(targets, taught, tmp_path):
    weights = save_initial_weights([np.zeros(3, np.float32)], tmp_path)
    with pytest.raises(InputError, match="holds no lessons"):
        targets(distillation(weights), taught)


@pytest.mark.parametrize(
    ("epochs", "finish", "words"), [("1", 0.5, "has train.final_plain_fraction 0.5: write 0"), ("-1", 0, "is -1")]
)
def test_epochs_that_cannot_be_asked_about_are_refused_before_any_work(drawn, tmp_path, epochs, finish, words):
    text = (ROOT / "params.yaml").read_text()
    params = tmp_path / "params.yaml"
    params.write_text(text.replace("final_plain_fraction: 0", f"final_plain_fraction: {finish}"))
    result = command_on(drawn, tmp_path, "fer2013", TEACHER, more=("--epochs", epochs, "--params", str(params)))
    assert result.returncode
    assert words in result.stderr


def test_lessons_about_changed_faces_say_nothing_of_others(drawn, about_changed, tmp_path):
    result = command_on(drawn, tmp_path, "fer2013", TEACHER, about_changed)
    assert result.returncode
    assert "is about changed faces, and says nothing of others" in result.stderr


def test_earlier_lessons_cannot_be_asked_about_changed_faces(drawn, lessons, tmp_path):
    result = command_on(drawn, tmp_path, "fer2013", lessons, more=("--epochs", "1"))
    assert result.returncode
    assert f"{lessons} holds answers, no model to ask" in result.stderr
