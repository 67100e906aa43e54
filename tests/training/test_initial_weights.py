"""Weights to begin with: the same network comes back, and no other is taken for it."""

import shutil

import numpy as np
import pytest
from tests.training.test_trainer import TINY

from emotion_detection.errors import InputError
from emotion_detection.training.distillation import save_soft_labels
from emotion_detection.training.initial_weights import load_initial_weights, save_initial_weights
from emotion_detection.training.trainer import build_with, fit


@pytest.fixture(scope="module")
def train(params):
    return params.train.model_copy(
        update={**TINY, "epochs": 1, "patience": 1, "batch_size": 6, "initial_weights": None}
    )


@pytest.fixture(scope="module")
def network(train):
    return build_with(train, precision="float32")


@pytest.fixture(scope="module")
def start(network, tmp_path_factory):
    return save_initial_weights(network.get_weights(), tmp_path_factory.mktemp("start"))


def test_a_network_begins_where_the_other_ended(train, network, start):
    other = build_with(train.model_copy(update={"seed": train.seed + 1}), precision="float32")
    assert any(np.abs(a - b).max() > 0.01 for a, b in zip(other.get_weights(), network.get_weights(), strict=True))
    load_initial_weights(other, start)
    for a, b in zip(other.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def test_a_training_goes_on_from_what_another_learnt(train, drawn, tmp_path):
    first = fit(train.model_copy(update={"epochs": 6, "patience": 6}), drawn, on_epoch=lambda _: None)
    path = save_initial_weights(first.weights, tmp_path)
    # So slow that an epoch changes nothing to speak of.
    still = {"initial_weights": str(path), "learning_rate": 1e-9, "weight_decay": 0.0, "dropout": 0.0, "ema": 0.0}
    second = fit(train.model_copy(update=still), drawn, on_epoch=lambda _: None)
    weights = zip(second.model.weights, first.model.get_weights(), strict=True)
    for weight, before in ((weight, before) for weight, before in weights if "moving" not in weight.path):
        # Statistics of batches go on being averaged; the rest stays.
        np.testing.assert_allclose(weight.numpy(), before, rtol=2e-3, atol=1e-4, err_msg=weight.path)


def test_another_network_is_refused(train, start):
    wider = build_with(train.model_copy(update={"widths": (12,)}), precision="float32")
    before = wider.get_weights()
    with pytest.raises(InputError, match="holds the weights of another network: take its architecture"):
        load_initial_weights(wider, start)
    for a, b in zip(wider.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_lessons_are_no_weights(network, drawn, tmp_path):
    taught = drawn.of("train")
    lessons = save_soft_labels(np.full((len(taught), 7), 1 / 7, np.float32), taught, [], tmp_path)
    with pytest.raises(InputError, match="holds no weights"):
        load_initial_weights(network, lessons)


def test_a_missing_or_changed_file_is_named(network, start, tmp_path):
    with pytest.raises(InputError, match=r"gone\.npz cannot be read .*in start/ beside its model"):
        load_initial_weights(network, tmp_path / "gone.npz")
    other = shutil.copy(start, tmp_path / "0123456789ab.npz")
    with pytest.raises(InputError, match="is not the file of that name any more"):
        load_initial_weights(network, other)
