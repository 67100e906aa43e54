"""Training: it learns, survives interruption, keeps the best epoch and never looks at the test split."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from emotion_detection.data.dataset import Faces
from emotion_detection.errors import InputError
from emotion_detection.evaluation.calibration import at_temperature, fit_temperature
from emotion_detection.training import trainer
from emotion_detection.training.augmentation import batches
from emotion_detection.training.trainer import build_with, fit

# The smallest network of the zoo: most of a test's time goes into building it.
TINY = {"architecture": "fer_resnet", "widths": (8,), "blocks": (1,), "stem_stride": 2, "precision": "float32"}
STILL = {"dropout": 0.0, "ema": 0.0, "label_smoothing": 0.0, "weight_decay": 0.0, "schedule": "constant", "warmup": 0.0}
UNTOLD = {"images_per_second"}  # the one column that no two runs share


class Killed(BaseException):
    """As a process ends in the middle: nothing catches it."""


@pytest.fixture
def tiny(params):
    return params.train.model_copy(update={**TINY, "epochs": 3, "patience": 3, "batch_size": 6, "ema": 0.5})


def quiet(_row):
    """An on_epoch that does nothing."""


def told(history):
    return [[value for key, value in row.items() if key not in UNTOLD] for row in history]


def log_loss(probabilities, labels):
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


def val_loss(fitted, faces):
    """As it was while training, without the temperature."""
    val = faces.of("val")
    probabilities = fitted.model.predict_on_batch(val.images[..., None])
    return log_loss(at_temperature(probabilities, 1 / fitted.temperature), val.labels)


def same_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_fourteen_faces_are_learnt_by_heart(params, plain, drawn, tmp_path):
    taught = drawn.of("train")
    twice = taught[np.tile(np.arange(len(taught)), 2)]
    both = replace(twice, splits=np.repeat(np.array([0, 1], np.uint8), len(taught)))
    train = params.train.model_copy(
        update={
            **TINY,
            **STILL,
            "widths": (16, 32),
            "blocks": (1, 1),
            "augment": plain,
            "optimizer": "adam",
            "learning_rate": 0.01,
            "epochs": 70,
            "patience": 70,
            "batch_size": 8,
        }
    )
    fitted = fit(train, both, checkpoint=tmp_path, on_epoch=quiet)
    assert fitted.history[-1]["accuracy"] == 1.0
    assert fitted.history[-1]["loss"] < 0.1
    assert max(row["val_accuracy"] for row in fitted.history) == 1.0
    predicted = fitted.model.predict_on_batch(taught.images[..., None]).argmax(axis=1)
    np.testing.assert_array_equal(predicted, taught.labels)


def test_history_and_on_epoch_tell_the_same_for_every_epoch(tiny, drawn, tmp_path):
    rows = []
    fitted = fit(tiny, drawn, checkpoint=tmp_path, on_epoch=lambda row: rows.append(dict(row)))
    assert rows == fitted.history
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert set(rows[0]) == {
        "epoch",
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
        "val_macro_f1",
        "learning_rate",
        "images_per_second",
    }
    assert rows[0]["learning_rate"] == pytest.approx(tiny.learning_rate)  # 9 steps, a tenth of them warm-up: one
    assert rows[0]["learning_rate"] > rows[1]["learning_rate"] > rows[2]["learning_rate"] > 0


def test_dropout_goes_on_where_it_was(tiny, drawn, tmp_path):
    train = tiny.model_copy(update={"epochs": 2, "dropout": 0.5})
    whole = fit(train, drawn, checkpoint=tmp_path / "whole", on_epoch=quiet)

    def stop_at_one(row):
        if row["epoch"] == 1:
            raise Killed

    with pytest.raises(Killed):
        fit(train, drawn, checkpoint=tmp_path / "broken", on_epoch=stop_at_one)
    resumed = fit(train, drawn, checkpoint=tmp_path / "broken", on_epoch=quiet)
    np.testing.assert_allclose(told(resumed.history), told(whole.history), rtol=1e-4)


def test_an_interrupted_training_ends_as_if_nothing_had_happened(tiny, drawn, tmp_path, monkeypatch):
    tiny = tiny.model_copy(update={"dropout": 0.0})
    whole = fit(tiny, drawn, checkpoint=tmp_path / "whole", on_epoch=quiet)
    checkpoint, seen = tmp_path / "broken", []

    def stop_after_two(row):
        seen.append(row["epoch"])
        if row["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        fit(tiny, drawn, checkpoint=checkpoint, on_epoch=stop_after_two)

    def die_in_the_third(*arguments, epoch, **which):
        for number, batch in enumerate(batches(*arguments, epoch=epoch, **which)):
            if (epoch, number) == (3, 1):
                raise Killed
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "batches", die_in_the_third)
        with pytest.raises(Killed):
            fit(tiny, drawn, checkpoint=checkpoint, on_epoch=lambda row: seen.append(row["epoch"]))
    # What a kill in the middle of the writing leaves.
    (checkpoint / "epoch-0003.unfinished").mkdir()
    (checkpoint / "epoch-0003.unfinished" / "history.json").write_text("[{")

    resumed = fit(tiny, drawn, checkpoint=checkpoint, on_epoch=lambda row: seen.append(row["epoch"]))
    assert seen == [1, 2, 3]
    np.testing.assert_allclose(told(resumed.history), told(whole.history), rtol=1e-4)
    same_weights(resumed.model, whole.model)
    assert [path.name for path in checkpoint.iterdir()] == ["epoch-0003"]

    again = fit(tiny, drawn, checkpoint=checkpoint, on_epoch=lambda row: seen.append(row["epoch"]))
    assert seen == [1, 2, 3]  # a finished one has nothing left to do
    assert again.history == resumed.history
    same_weights(again.model, resumed.model)


def test_the_best_epoch_is_kept_and_patience_ends_the_training(tiny, drawn, tmp_path, monkeypatch):
    scores = iter([0.1, 0.5, 0.3, 0.5, 0.9])  # equal is not better
    monkeypatch.setattr(trainer, "macro_f1", lambda *_: next(scores))
    train = tiny.model_copy(update={"epochs": 9, "patience": 2})
    fitted = fit(train, drawn, checkpoint=tmp_path, on_epoch=quiet)
    assert [row["val_macro_f1"] for row in fitted.history] == [0.1, 0.5, 0.3, 0.5]
    losses = [row["val_loss"] for row in fitted.history]
    assert val_loss(fitted, drawn) == pytest.approx(losses[1], rel=1e-4)
    assert losses[3] != pytest.approx(losses[1], rel=1e-3)


def test_the_weight_average_is_validated_and_kept_and_does_not_disturb_training(tiny, drawn, tmp_path):
    train = tiny.model_copy(update={"epochs": 2, "ema": 0.9})
    averaged = fit(train, drawn, checkpoint=tmp_path / "ema", on_epoch=quiet)
    without = fit(train.model_copy(update={"ema": 0.0}), drawn, checkpoint=tmp_path / "none", on_epoch=quiet)
    for row, bare in zip(averaged.history, without.history, strict=True):
        assert row["loss"] == pytest.approx(bare["loss"], rel=1e-4)
        assert row["val_loss"] != pytest.approx(bare["val_loss"], rel=1e-3)
    for fitted in (averaged, without):
        best = max(fitted.history, key=lambda row: row["val_macro_f1"])
        assert val_loss(fitted, drawn) == pytest.approx(best["val_loss"], rel=1e-4)


def test_the_model_is_calibrated_on_val(tiny, drawn, tmp_path):
    train = tiny.model_copy(update={"epochs": 1})
    fitted = fit(train, drawn, checkpoint=tmp_path, on_epoch=quiet)
    val = drawn.of("val")
    probabilities = fitted.model.predict_on_batch(val.images[..., None])
    assert fitted.temperature != 1
    assert fit_temperature(at_temperature(probabilities, 1 / fitted.temperature), val.labels) == pytest.approx(
        fitted.temperature, rel=1e-2
    )
    assert log_loss(probabilities, val.labels) <= fitted.history[0]["val_loss"] + 1e-4
    again = fit(train, drawn, checkpoint=tmp_path, on_epoch=quiet)
    assert again.temperature == pytest.approx(fitted.temperature)


def test_a_loss_that_is_no_number_ends_with_the_remedy(tiny, drawn, tmp_path):
    wild = tiny.model_copy(update={"learning_rate": 1e38, "schedule": "constant", "warmup": 0.0})
    with pytest.raises(InputError, match=r"loss is nan in epoch \d: lower train\.learning_rate"):
        fit(wild, drawn, checkpoint=tmp_path, on_epoch=quiet)


def test_balanced_weights_help_the_rare_emotion(tiny, plain, tmp_path):
    # All pictures are one, so that nothing but the frequencies can be learnt: 12 happy to 2 sad.
    labels = np.array([3] * 12 + [4] * 2 + [3, 4], np.uint8)
    splits = np.array([0] * 14 + [1] * 2, np.uint8)
    faces = Faces(np.full((16, 48, 48), 90, np.uint8), labels, splits, np.zeros(16, bool))
    update = {**STILL, "augment": plain, "batch_size": 14, "epochs": 100, "patience": 100, "learning_rate": 0.2}
    rare = {}
    for weight in (None, "balanced"):
        train = tiny.model_copy(update={**update, "class_weight": weight})
        last = fit(train, faces, checkpoint=tmp_path / str(weight), on_epoch=quiet).history[-1]
        # With shares p and 1-p on val's two faces, val_loss = -(ln p + ln(1-p)) / 2.
        rare[weight] = (1 - np.sqrt(1 - 4 * min(np.exp(-2 * last["val_loss"]), 0.25))) / 2
    assert rare[None] == pytest.approx(1 / 7, abs=0.06)
    assert rare["balanced"] == pytest.approx(1 / 2, abs=0.1)


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_split_is_refused(tiny, drawn, tmp_path, split):
    number = ("train", "val").index(split)
    with pytest.raises(InputError, match=f"the {split} split has no faces"):
        fit(tiny, drawn[drawn.splits != number], checkpoint=tmp_path, on_epoch=quiet)
    assert not list(tmp_path.iterdir())


class Sealed(Faces):
    """Faces whose test split must not be asked for."""

    def of(self, split):
        assert split != "test", "the test split was looked at"
        return super().of(split)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_one_epoch_in_any_precision_without_a_look_at_the_test_split(tiny, drawn, tmp_path, precision):
    poisoned = np.where(drawn.splits == 2, 255, drawn.labels).astype(np.uint8)  # no row of any table
    faces = Sealed(drawn.images, poisoned, drawn.splits, drawn.copied)
    train = tiny.model_copy(update={"epochs": 1, "precision": precision})
    fitted = fit(train, faces, checkpoint=tmp_path, on_epoch=quiet)
    (row,) = fitted.history
    assert np.isfinite(list(row.values())).all()
    assert {layer.dtype_policy.name for layer in fitted.model.layers} == {"float32"}
    rough = 1e-3 if precision == "float32" else 0.05
    assert val_loss(fitted, drawn) == pytest.approx(row["val_loss"], rel=rough)


def test_the_other_test_split_changes_nothing(tiny, drawn, tmp_path):
    train = tiny.model_copy(update={"epochs": 1})
    noise = np.random.default_rng(0).integers(0, 256, drawn.images.shape, dtype=np.uint8)
    other = replace(drawn, images=np.where((drawn.splits == 2)[:, None, None], noise, drawn.images))
    histories = [fit(train, one, checkpoint=tmp_path / str(id(one)), on_epoch=quiet).history for one in (drawn, other)]
    np.testing.assert_allclose(told(histories[0]), told(histories[1]), rtol=1e-4)


def test_a_network_is_built_in_a_precision_and_leaves_the_policy_of_others_alone(tiny):
    before = keras.config.dtype_policy().name
    mixed = build_with(tiny, precision="mixed_bfloat16")
    assert keras.config.dtype_policy().name == before
    assert mixed.get_layer("probabilities").compute_dtype == "float32"
    assert mixed.get_layer("logits").compute_dtype == "float32"
    assert {layer.compute_dtype for layer in mixed.layers if isinstance(layer, keras.layers.Conv2D)} == {"bfloat16"}
    assert {weight.dtype for weight in mixed.trainable_weights} == {"float32"}
    same = build_with(tiny, precision="float32")
    for a, b in zip(mixed.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)  # the seed decides, whatever the precision
