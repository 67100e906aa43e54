"""A search whose trials do not fit the initial weights or the soft labels is refused."""

import numpy as np
import pytest
from tests.support.paths import ROOT

from emotion_detection.config import Average, Categorical, NumberRange, Params
from emotion_detection.data.dataset import save
from emotion_detection.errors import ConfigError, EmotionDetectionError
from emotion_detection.training.distillation import augmentation_settings, save_soft_labels
from emotion_detection.tuning import conflicts

WEIGHTS = str(ROOT / "recipes" / "initial_weights" / "58ab76a71f43.npz")
LEARNING_RATE = {"learning_rate": NumberRange(low=0.01, high=0.1, log=True)}
RATIO = NumberRange(low=0.0, high=0.2, log=False)


@pytest.fixture
def faces(drawn, tmp_path):
    save(drawn, tmp_path / "faces.npz")
    return tmp_path / "faces.npz"


def changed(params: Params, space, *, finalists: int = 0, **train) -> Params:
    tune = params.tune.model_copy(update={"space": LEARNING_RATE | space, "finalists": finalists})
    return params.model_copy(update={"tune": tune, "train": params.train.model_copy(update=train)})


def soft_labels(params: Params, drawn, folder, *, augmented: bool) -> Params:
    """Params with soft labels of the train split, for one epoch if they are of augmented faces."""
    train_faces = drawn.of("train")
    shape = (1, params.train.batch_size, 7) if augmented else (len(train_faces), 7)
    augmentation = {"augmentation": augmentation_settings(params.train)} if augmented else {}
    path = save_soft_labels(np.full(shape, 1 / 7, np.float32), train_faces, [], folder, **augmentation)
    distillation = params.train.distillation.model_copy(update={"soft_labels": str(path), "weight": 0.5})
    return params.model_copy(update={"train": params.train.model_copy(update={"distillation": distillation})})


def refusal(params: Params, faces) -> str:
    with pytest.raises(ConfigError) as caught:
        conflicts.check(params, faces)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_search_without_files_needs_no_faces(params, tmp_path):
    conflicts.check(params, tmp_path / "missing.npz")


@pytest.mark.parametrize("dimension", [Categorical(choices=(0.0, 0.6)), NumberRange(low=0.0, high=0.6, log=False)])
def test_search_with_votes_needs_votes(params, faces, dimension):
    expected = "train.votes is 0.6, but the training faces have no votes"
    assert refusal(changed(params, {"votes": dimension}), faces).startswith(expected)
    assert refusal(changed(params, {}, votes=0.6), faces).startswith(expected)


@pytest.mark.parametrize("key", conflicts.NETWORK)
def test_initial_weights_conflict_with_other_networks(params, tmp_path, key):
    choices = {
        "architecture": ("fer_resnet", "mini_xception"),
        "widths": ([48, 96, 192], [24, 48, 96]),
        "blocks": ([1, 1, 1], [1, 2, 2]),
        "stem_stride": (1, 2),
        "standardize": (True, False),
        "head": (0, 512),
    }
    space = {key: Categorical(choices=choices[key])}
    assert refusal(changed(params, space, initial_weights=WEIGHTS), tmp_path) == (
        f"train.initial_weights {WEIGHTS} fits one network, but tune.space.{key} would change the network: write "
        "`initial_weights: null` under train in params.yaml, or remove these keys from tune.space"
    )


def test_initial_weights_in_the_space_conflict_too(params, tmp_path):
    space = {"initial_weights": Categorical(choices=(None, WEIGHTS)), "stem_stride": Categorical(choices=(1, 2))}
    assert "tune.space.stem_stride would change the network" in refusal(changed(params, space), tmp_path)


def test_initial_weights_fit_a_space_with_one_network(params, tmp_path):
    space = {"widths": Categorical(choices=(params.train.widths,)), "dropout": RATIO}
    conflicts.check(changed(params, space, initial_weights=WEIGHTS), tmp_path)


def test_average_that_no_score_of_a_trial_contains_is_refused(params, tmp_path):
    average = Average(weights=(WEIGHTS,), share=0.5)
    assert refusal(changed(params, {}, average=average), tmp_path).startswith("train.average has no effect on a search")
    space = {"average.weights": Categorical(choices=((), (WEIGHTS,)))}
    assert "remove average.weights from tune.space" in refusal(changed(params, space), tmp_path)


@pytest.mark.parametrize("key", ["initial_weights", "soft_labels"])
def test_missing_file_is_refused(params, faces, key):
    if key == "soft_labels":
        distillation = params.train.distillation.model_copy(update={"soft_labels": "missing.npz", "weight": 0.5})
        wrong = changed(params, {}, distillation=distillation)
    else:
        wrong = changed(params, {}, initial_weights="missing.npz")
    with pytest.raises(EmotionDetectionError, match=r"missing\.npz"):
        conflicts.check(wrong, faces)


@pytest.mark.parametrize("key", ["augment.shift", "augment.mixup", "seed", "batch_size", "final_plain_fraction"])
def test_soft_labels_of_augmented_faces_conflict_with_other_augmentation(params, drawn, faces, tmp_path, key):
    dimension = Categorical(choices=(2, 4)) if key in ("seed", "batch_size") else RATIO
    wrong = changed(soft_labels(params, drawn, tmp_path, augmented=True), {key: dimension})
    message = refusal(wrong, faces)
    assert message.startswith(f"train.distillation.soft_labels {wrong.train.distillation.soft_labels} fits one seed")
    assert f"but tune.space.{key} would change them: write `soft_labels: null` and `weight: 0`" in message
    assert message.endswith("or remove these keys from tune.space")


def test_soft_labels_of_augmented_faces_conflict_with_finalists(params, drawn, faces, tmp_path):
    with_labels = soft_labels(params, drawn, tmp_path, augmented=True)
    message = refusal(changed(with_labels, {}, finalists=2), faces)
    assert "but tune.finalists would change them" in message
    assert message.endswith("or write `finalists: 0` under tune")
    message = refusal(changed(with_labels, {"augment.shift": RATIO}, finalists=2), faces)
    assert "tune.space.augment.shift and tune.finalists would" in message
    assert message.endswith("or remove these keys from tune.space and write `finalists: 0` under tune")
    conflicts.check(changed(with_labels, {"dropout": RATIO}), faces)


def test_soft_labels_of_unchanged_faces_fit_every_space(params, drawn, faces, tmp_path):
    space = {"augment.shift": RATIO, "batch_size": Categorical(choices=(2, 4))}
    conflicts.check(changed(soft_labels(params, drawn, tmp_path, augmented=False), space, finalists=3), faces)


def test_soft_labels_of_other_faces_are_refused(params, drawn, faces, tmp_path):
    other = drawn[np.arange(len(drawn)) % 2 == 0]
    with pytest.raises(EmotionDetectionError, match="other training faces"):
        conflicts.check(changed(soft_labels(params, other, tmp_path, augmented=False), {}), faces)


@pytest.mark.parametrize("varied", [False, True])
def test_teacher_that_does_not_fit_is_refused(params, varied):
    shipped = str(ROOT / "src" / "emotion_detection" / "pretrained" / "model.onnx")
    for path, message in (("gone.onnx", "gone.onnx does not exist"), (shipped, "was trained on fer2013, but")):
        distillation = params.train.distillation.model_copy(update={"teachers": (path,), "weight": 0.5})
        space = {"distillation.teachers": Categorical(choices=((path,), ()))} if varied else {}
        wrong = changed(params, space, **({} if varied else {"distillation": distillation}))
        with pytest.raises(EmotionDetectionError, match=message):
            conflicts.check_teachers(wrong, "sample")
    conflicts.check_teachers(params, "sample")
