"""A training starts with the weights of an earlier one, and weights of another network are refused."""

import io
import shutil

import numpy as np
import pytest

from emotion_detection.errors import ModelError
from emotion_detection.training.content_addressed import write_content_addressed
from emotion_detection.training.distillation import save_soft_labels
from emotion_detection.training.initial_weights import load_initial_weights, save_initial_weights
from emotion_detection.training.trainer import build_with, fit


@pytest.fixture(scope="module")
def network(tiny):
    return build_with(tiny, precision="float32")


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    return save_initial_weights(network.get_weights(), tmp_path_factory.mktemp("weights"))


def test_loaded_weights_equal_the_saved_ones(tiny, network, saved):
    other = build_with(tiny.model_copy(update={"seed": tiny.seed + 1}), precision="float32")
    assert any(np.abs(a - b).max() > 0.01 for a, b in zip(other.get_weights(), network.get_weights(), strict=True))
    load_initial_weights(other, saved)
    for a, b in zip(other.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_training_starts_with_the_weights_of_an_earlier_training(tiny, trained, drawn, tmp_path):
    path = save_initial_weights(trained.result.weights, tmp_path)
    # The learning rate is too small to change the weights.
    settings = {"epochs": 1, "initial_weights": str(path), "learning_rate": 1e-9, "weight_decay": 0.0, "ema": 0.0}
    result = fit(tiny.model_copy(update=settings), drawn, on_epoch=lambda _: None)
    weights = zip(result.model.weights, trained.result.model.get_weights(), strict=True)
    for weight, expected in ((weight, expected) for weight, expected in weights if "moving" not in weight.path):
        # Only the moving statistics change.
        np.testing.assert_allclose(weight.numpy(), expected, rtol=2e-3, atol=1e-4, err_msg=weight.path)


def test_weights_of_another_network_are_refused(tiny, saved):
    wider = build_with(tiny.model_copy(update={"widths": (12,)}), precision="float32")
    before = wider.get_weights()
    with pytest.raises(ModelError, match="contains the weights of another network: use its architecture"):
        load_initial_weights(wider, saved)
    for a, b in zip(wider.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_soft_labels_are_refused(network, drawn, tmp_path):
    train_faces = drawn.of("train")
    path = save_soft_labels(np.full((len(train_faces), 7), 1 / 7, np.float32), train_faces, [], tmp_path)
    with pytest.raises(ModelError, match="contains no weights"):
        load_initial_weights(network, path)


def test_missing_and_renamed_files_are_refused(network, saved, tmp_path):
    with pytest.raises(ModelError, match=r"gone\.npz cannot be read .* into the folder initial_weights of its model"):
        load_initial_weights(network, tmp_path / "gone.npz")
    renamed = shutil.copy(saved, tmp_path / "0123456789ab.npz")
    with pytest.raises(ModelError, match="was changed or renamed, its content belongs to"):
        load_initial_weights(network, renamed)


def test_weights_that_are_not_finite_are_refused(network, tmp_path):
    weights = network.get_weights()
    weights[0] = np.full_like(weights[0], np.nan)
    path = save_initial_weights(weights, tmp_path)
    with pytest.raises(ModelError, match="NaN or infinite"):
        load_initial_weights(network, path)


def test_compressed_weights_are_refused(network, tmp_path):
    stream = io.BytesIO()
    np.savez_compressed(stream, *(weight.astype(np.float16) for weight in network.get_weights()))
    path = write_content_addressed(stream.getvalue(), tmp_path)
    with pytest.raises(ModelError, match="compressed"):
        load_initial_weights(network, path)


def test_folder_in_place_of_weights_is_refused(network, tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        load_initial_weights(network, tmp_path)
