"""Votes become probabilities of FER-2013's labels, each face's without its own label, and part of its target."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from tests.support.fer_files import random_faces
from tests.support.paths import PRETRAINED
from tests.support.vote_files import random_votes

from emotion_detection.config import Average, Distillation
from emotion_detection.data.dataset import VOTE_CLASSES, votes_digest
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import ConfigError
from emotion_detection.training.distillation import save_soft_labels, targets
from emotion_detection.training.initial_weights import save_initial_weights
from emotion_detection.training.votes import check_votes, fit_and_translate, label_tags, label_targets, translate

FACES = random_faces(700).of("train")
VOTES = random_votes(FACES)
VOTED = replace(FACES, votes=VOTES)
ONE_HOT = np.eye(len(EMOTIONS))[FACES.labels]


@pytest.fixture
def settings(params):
    """A function for the settings with a weight of the votes."""
    return lambda votes, **changes: params.train.model_copy(update={"votes": votes, **changes})


def test_settings_without_votes_do_not_look_at_them(settings):
    np.testing.assert_array_equal(label_targets(settings(0), VOTED), ONE_HOT)
    np.testing.assert_array_equal(label_targets(settings(0), FACES), ONE_HOT)


def test_weight_interpolates_between_label_and_translated_votes(settings):
    translated = translate(VOTES, VOTED.labels, settings(1).seed)
    np.testing.assert_allclose(translated.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(label_targets(settings(1), VOTED), translated)
    result = label_targets(settings(0.6), VOTED)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, 0.4 * ONE_HOT + 0.6 * translated, atol=1e-6)


def test_face_without_votes_keeps_its_label(settings):
    votes = VOTES.copy()
    votes[::3] = 0
    result = label_targets(settings(0.6), replace(VOTED, votes=votes))
    np.testing.assert_array_equal(result[::3], ONE_HOT[::3])
    assert (result[1::3].max(axis=1) < 1).all()


def test_translation_of_a_face_does_not_depend_on_its_own_label():
    labels = VOTED.labels.copy()
    labels[5] = (labels[5] + 1) % 7
    before, after = (translate(VOTES, each, seed=1) for each in (VOTED.labels, labels))
    np.testing.assert_array_equal(before[5], after[5])
    assert (before != after).any()


def test_translation_depends_on_the_seed_only():
    first, again, other = (translate(VOTES, VOTED.labels, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_votes_are_translated_into_the_labels_of_the_data_set():
    """Faces that the raters call surprised are fearful in this data set."""
    rng = np.random.default_rng(0)
    labels = rng.choice([EMOTIONS.index("fear"), EMOTIONS.index("happy")], 400).astype(np.uint8)
    votes = np.zeros((400, len(VOTE_CLASSES)), np.uint8)
    chosen = np.where(labels == EMOTIONS.index("fear"), "surprise", "happiness")
    votes[np.arange(400), [VOTE_CLASSES.index(name) for name in chosen]] = rng.integers(5, 10, 400)
    probabilities = translate(votes, labels, seed=0)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), labels)
    assert (probabilities[:, EMOTIONS.index("sad")] == 0).all()


def test_faces_of_one_emotion_are_translated_into_it():
    labels = np.full(len(FACES), 3, np.uint8)
    assert (fit_and_translate(VOTES, labels, VOTES)[:, 3] == 1).all()


def test_missing_votes_are_refused(settings):
    for check in (check_votes, label_targets):
        with pytest.raises(ConfigError, match=r"train\.votes is 0\.6, but the training faces have no votes: add them"):
            check(settings(0.6), FACES)
    few = replace(VOTED, votes=np.where(np.arange(len(VOTED))[:, np.newaxis] < 9, VOTES, 0).astype(np.uint8))
    with pytest.raises(ConfigError, match="only 9 training faces have votes, and 50 are needed"):
        check_votes(settings(0.6), few)
    check_votes(settings(0), FACES)
    check_votes(settings(0.6), VOTED)


def test_soft_labels_are_added_to_targets_with_votes(settings, tmp_path):
    """Soft labels that were made before the votes were added fit the same faces."""
    teacher = np.full(ONE_HOT.shape, 1 / 7)
    path = save_soft_labels(teacher, FACES, [], tmp_path)
    distillation = Distillation(
        soft_labels=str(path), teachers=(), teachers_see="augmented", weight=0.25, temperature=1
    )
    result, added = targets(settings(0.6, distillation=distillation), VOTED)
    assert added is None
    expected = 0.75 * label_targets(settings(0.6), VOTED) + 0.25 * teacher
    np.testing.assert_allclose(result, expected, atol=1e-3)


def test_tags_name_the_labels_that_a_model_learns_from(settings):
    assert label_tags(settings(0), VOTED, "fer2013") == {"label_source": "FER-2013"}
    expected = {"label_source": "FER-2013 and FER+", "votes_digest": votes_digest(VOTED)}
    assert label_tags(settings(0.6), VOTED, "fer2013") == expected
    assert label_tags(settings(0), FACES, "sample") == {"label_source": "sample"}


@pytest.mark.parametrize(("source", "expected"), [("FER-2013 and FER+", "FER-2013 and FER+"), ("FER-2013", "FER-2013")])
def test_model_of_teachers_or_weights_with_votes_learned_from_them(settings, tmp_path, source, expected):
    weights = save_initial_weights([np.zeros(3, np.float32)], tmp_path, label_source=source)
    assert label_tags(settings(0, initial_weights=str(weights)), FACES, "fer2013") == {"label_source": expected}
    averaged = settings(0, average=Average(weights=(str(weights),), share=0.5))
    assert label_tags(averaged, FACES, "fer2013") == {"label_source": expected}
    path = save_soft_labels(np.full(ONE_HOT.shape, 1 / 7), FACES, [], tmp_path, label_source=source)
    student = settings(
        0,
        distillation=Distillation(
            soft_labels=str(path), teachers=(), teachers_see="augmented", weight=0.5, temperature=1
        ),
    )
    assert label_tags(student, FACES, "fer2013") == {"label_source": expected}
    assert targets(student, FACES)[0].shape == ONE_HOT.shape  # the comment does not disturb the reader


def test_files_without_votes_do_not_change(tmp_path):
    weights = [np.zeros(3, np.float32)]
    plain, named = (save_initial_weights(weights, tmp_path, label_source=source) for source in ("", "FER-2013"))
    assert plain == named


def test_student_of_teachers_with_votes_learned_from_them(settings, tmp_path):
    teachers = {}
    for source in ("FER-2013", "FER-2013 and FER+"):
        model = onnx.load(PRETRAINED / "model.onnx")
        model.metadata_props.add(key="label_source", value=source)
        teachers[source] = str(tmp_path / f"{len(source)}.onnx")
        onnx.save(model, teachers[source])
    for named, expected in ((["FER-2013"], "FER-2013"), (list(teachers), "FER-2013 and FER+")):
        paths = tuple(teachers[source] for source in named)
        student = settings(
            0,
            distillation=Distillation(
                soft_labels=None, teachers=paths, teachers_see="augmented", weight=1, temperature=1
            ),
        )
        assert label_tags(student, FACES, "fer2013") == {"label_source": expected}
