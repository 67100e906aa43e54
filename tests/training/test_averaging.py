"""A training's weights are averaged with earlier ones, and batch normalization fits the average."""

import numpy as np
import pytest

from emotion_detection.config import Average
from emotion_detection.errors import DivergedError, ModelError
from emotion_detection.evaluation.metrics import macro_f1
from emotion_detection.training import averaging
from emotion_detection.training.averaging import mean, measure_batch_norm
from emotion_detection.training.checkpoint import Epoch
from emotion_detection.training.initial_weights import save_initial_weights
from emotion_detection.training.trainer import build_with, fit


@pytest.fixture
def start(tiny, trained, tmp_path):
    """Settings that take the weights of a training as they are."""
    path = save_initial_weights(trained.result.weights, tmp_path / "initial")
    return tiny.model_copy(update={"epochs": 0, "initial_weights": str(path)})


def split_weights(model):
    """The statistics of batch normalization, and the other weights."""
    named = [(variable.path, array) for variable, array in zip(model.weights, model.get_weights(), strict=True)]
    return [[array for path, array in named if ("moving" in path) == moving] for moving in (True, False)]


def trained_answers(settings, weights, faces):
    model = build_with(settings, precision="float32")
    model.set_weights(weights)
    return model.predict_on_batch(faces.images[..., None]).argmax(1)


def test_mean_gives_the_others_their_share():
    kept, first, second = (np.array(values, np.float32) for values in ([0, 8], [4, 8], [8, 8]))
    (result,) = mean([kept], [[first], [second]], 0.25)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [1.5, 8])


def test_batch_norm_gets_the_mean_statistics_of_all_faces(tiny, drawn, monkeypatch):
    monkeypatch.setattr(averaging, "BATCH_SIZE", 6)
    images, measured = drawn.of("train").images, []
    for batch in np.array_split(np.random.default_rng(7).permutation(len(images)), 2):
        one = build_with(tiny, precision="float32")
        measure_batch_norm(one, images[np.sort(batch)], seed=0)
        measured.append(split_weights(one)[0])
    model = build_with(tiny, precision="float32")
    _, others = split_weights(model)
    momenta = [layer.momentum for layer in model.layers if hasattr(layer, "momentum")]
    measure_batch_norm(model, images, seed=7)
    statistics, same_others = split_weights(model)
    for array, parts in zip(statistics, zip(*measured, strict=True), strict=True):
        np.testing.assert_allclose(array, np.mean(parts, axis=0), rtol=1e-4, atol=1e-5)
    assert all(np.array_equal(one, other) for one, other in zip(same_others, others, strict=True))
    assert [layer.momentum for layer in model.layers if hasattr(layer, "momentum")] == momenta


def test_without_epochs_the_model_has_the_initial_weights_and_one_row(start, trained, drawn, tmp_path):
    rows: list[Epoch] = []
    result = fit(start, drawn, checkpoint=tmp_path / "checkpoint", on_epoch=rows.append)
    for weight, expected in zip(result.weights, trained.result.weights, strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-3, atol=1e-6)
    assert rows == result.history
    (row,) = rows
    assert row.keys() == trained.rows[0].keys()
    assert (row["epoch"], row["learning_rate"]) == (0, 0)
    val = drawn.of("val")
    answers = result.model.predict_on_batch(val.images[..., None]).argmax(1)
    assert row["val_macro_f1"] == pytest.approx(macro_f1(val.labels, answers))
    train = drawn.of("train")
    assert row["accuracy"] == pytest.approx(np.mean(trained_answers(start, result.weights, train) == train.labels))


def test_model_is_the_average_with_new_statistics(start, trained, drawn, tmp_path):
    other = [array + np.float32(0.25) for array in trained.result.weights]
    average = Average(weights=(str(save_initial_weights(other, tmp_path)),), share=0.25)
    result = fit(start.model_copy(update={"average": average}), drawn, on_epoch=lambda _: None)
    model = build_with(start, precision="float32")
    model.set_weights([array + np.float32(0.0625) for array in trained.result.weights])
    measure_batch_norm(model, drawn.of("train").images, start.seed)
    for weight, expected in zip(result.weights, model.get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected, rtol=2e-2, atol=2e-3)


def test_average_with_itself_changes_statistics_only_and_comes_after_the_epochs(tiny, trained, drawn, tmp_path):
    average = Average(weights=(str(save_initial_weights(trained.result.weights, tmp_path)),), share=0.5)
    result = fit(tiny.model_copy(update={"average": average}), drawn, on_epoch=lambda _: None)
    assert [row["val_loss"] for row in result.history] == [row["val_loss"] for row in trained.rows]
    names = [variable.path for variable in build_with(tiny, precision="float32").weights]
    for name, weight, expected in zip(names, result.weights, trained.result.weights, strict=True):
        if "moving" not in name:
            np.testing.assert_allclose(weight, expected, rtol=1e-3, atol=1e-5, err_msg=name)


def test_network_without_batch_normalization_needs_no_statistics(tiny, drawn):
    model = build_with(tiny.model_copy(update={"architecture": "seed_cnn"}), precision="float32")
    before = model.get_weights()
    measure_batch_norm(model, drawn.of("train").images, seed=0)
    for weight, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_initial_weights_that_diverge_are_named(start, trained, drawn, tmp_path):
    # A variance below 0 has no root.
    names = [variable.path for variable in build_with(start, precision="float32").weights]
    weights = zip(names, trained.result.weights, strict=True)
    wrong = [-array - 1 if "moving_variance" in name else array for name, array in weights]
    with pytest.raises(DivergedError, match="loss is nan in epoch 0: use other initial weights"):
        fit(
            start.model_copy(update={"initial_weights": str(save_initial_weights(wrong, tmp_path))}),
            drawn,
            on_epoch=print,
        )


def test_weights_of_another_network_are_refused_before_the_training(tiny, trained, drawn, tmp_path):
    other = [np.zeros((1, *array.shape), np.float32) for array in trained.result.weights]
    average = Average(weights=(str(save_initial_weights(other, tmp_path)),), share=0.5)
    rows: list[Epoch] = []
    with pytest.raises(ModelError, match="weights of another network"):
        fit(tiny.model_copy(update={"average": average}), drawn, on_epoch=rows.append)
    missing = Average(weights=(str(tmp_path / "gone.npz"),), share=0.5)
    with pytest.raises(ModelError, match=r"gone\.npz cannot be read .* or write `weights: \[\]` and `share: 0`"):
        fit(tiny.model_copy(update={"average": missing}), drawn, on_epoch=rows.append)
    assert not rows
