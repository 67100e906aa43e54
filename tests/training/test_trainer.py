"""Training fits the data, resumes after an interruption, keeps the best epoch and never uses the test split."""

import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest

from emotion_detection.data.dataset import Faces
from emotion_detection.errors import DataError, DivergedError
from emotion_detection.evaluation.calibration import at_temperature, fit_temperature
from emotion_detection.training import trainer
from emotion_detection.training.augmentation import batches
from emotion_detection.training.trainer import build_with, fit

pytestmark = pytest.mark.slow

UNREGULARIZED = {
    "dropout": 0.0,
    "ema": 0.0,
    "label_smoothing": 0.0,
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup": 0.0,
}


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def ignore_epoch(_row):
    """An on_epoch that does nothing."""


def metrics(history):
    """The values of a history that two runs of the same training share."""
    return [[value for key, value in row.items() if key != "images_per_second"] for row in history]


def log_loss(probabilities, labels):
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


def val_loss(result, faces):
    """The loss on val without the temperature, as during training."""
    val = faces.of("val")
    probabilities = result.model.predict_on_batch(val.images[..., None])
    return log_loss(at_temperature(probabilities, 1 / result.temperature), val.labels)


def assert_same_weights(first, second):
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_training_overfits_fourteen_faces(tiny, plain, drawn):
    train_faces = drawn.of("train")
    twice = train_faces[np.tile(np.arange(len(train_faces)), 2)]
    faces = replace(twice, splits=np.repeat(np.array([0, 1], np.uint8), len(train_faces)))
    train = tiny.model_copy(
        update={
            **UNREGULARIZED,
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
    result = fit(train, faces, on_epoch=ignore_epoch)
    assert result.history[-1]["accuracy"] == 1.0
    assert result.history[-1]["loss"] < 0.1
    assert max(row["val_accuracy"] for row in result.history) == 1.0
    predicted = result.model.predict_on_batch(train_faces.images[..., None]).argmax(axis=1)
    np.testing.assert_array_equal(predicted, train_faces.labels)


def test_history_contains_a_row_per_epoch_and_on_epoch_receives_it(tiny, trained):
    assert trained.rows == trained.result.history
    assert [row["epoch"] for row in trained.rows] == [1, 2, 3]
    assert set(trained.rows[0]) == {
        "epoch",
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
        "val_macro_f1",
        "learning_rate",
        "images_per_second",
    }
    rates = [row["learning_rate"] for row in trained.rows]
    assert rates[0] == pytest.approx(tiny.learning_rate)  # 9 steps, a tenth of them warm-up: the first step
    assert rates[0] > rates[1] > rates[2] > 0


def test_interrupted_training_resumes_with_the_same_result(tiny, trained, drawn, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", logger="emotion_detection")
    seen = []

    def kill_after_first_epoch(row):
        seen.append(row["epoch"])
        raise Killed

    with pytest.raises(Killed):
        fit(tiny, drawn, checkpoint=tmp_path, on_epoch=kill_after_first_epoch)

    def kill_in_third_epoch(*arguments, epoch, **keywords):
        for number, batch in enumerate(batches(*arguments, epoch=epoch, **keywords)):
            if (epoch, number) == (3, 1):
                raise Killed
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "batches", kill_in_third_epoch)
        with pytest.raises(Killed):
            fit(tiny, drawn, checkpoint=tmp_path, on_epoch=lambda row: seen.append(row["epoch"]))
    # An interrupted write of the checkpoint leaves such a folder.
    (tmp_path / "unfinished-epoch-0003").mkdir()
    (tmp_path / "unfinished-epoch-0003" / "history.json").write_text("[{")

    resumed = fit(tiny, drawn, checkpoint=tmp_path, on_epoch=lambda row: seen.append(row["epoch"]))
    assert seen == [1, 2, 3]
    assert [record.getMessage() for record in caplog.records if record.name == trainer.__name__] == [
        f"resuming after epoch {epoch} of 3, from {tmp_path}" for epoch in (1, 2)
    ]
    np.testing.assert_allclose(metrics(resumed.history), metrics(trained.result.history), rtol=1e-4)
    assert_same_weights(resumed.model, trained.result.model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0002", "epoch-0003"]


def test_damaged_state_costs_one_epoch(tiny, trained, drawn, tmp_path, caplog):
    checkpoint = shutil.copytree(trained.checkpoint, tmp_path / "checkpoint")
    (checkpoint / "epoch-0003" / "state.npz").write_bytes(b"")
    (checkpoint / "epoch-9999").mkdir()
    seen = []
    result = fit(tiny, drawn, checkpoint=checkpoint, on_epoch=lambda row: seen.append(row["epoch"]))
    assert seen == [3]
    np.testing.assert_allclose(metrics(result.history), metrics(trained.result.history), rtol=1e-4)
    assert_same_weights(result.model, trained.result.model)
    assert "epoch-9999 cannot be used" in caplog.text


def test_finished_training_is_not_repeated(tiny, trained, drawn):
    result = fit(tiny, drawn, checkpoint=trained.checkpoint, on_epoch=lambda _: pytest.fail("an epoch was repeated"))
    assert result.history == trained.result.history
    assert_same_weights(result.model, trained.result.model)
    assert result.temperature == pytest.approx(trained.result.temperature)


def test_best_epoch_is_kept_and_patience_stops_the_training(tiny, drawn, monkeypatch):
    scores = iter([0.1, 0.5, 0.3, 0.5, 0.9])  # an equal score is no improvement
    monkeypatch.setattr(trainer, "macro_f1", lambda *_: next(scores))
    result = fit(tiny.model_copy(update={"epochs": 9, "patience": 2}), drawn, on_epoch=ignore_epoch)
    assert [row["val_macro_f1"] for row in result.history] == [0.1, 0.5, 0.3, 0.5]
    losses = [row["val_loss"] for row in result.history]
    assert val_loss(result, drawn) == pytest.approx(losses[1], rel=1e-4)
    assert losses[3] != pytest.approx(losses[1], rel=1e-3)


def test_last_epoch_is_kept_and_patience_does_not_stop_the_training(tiny, drawn, monkeypatch, tmp_path):
    scores = iter([0.9, 0.5, 0.1])
    monkeypatch.setattr(trainer, "macro_f1", lambda *_: next(scores))
    train = tiny.model_copy(update={"keep": "last", "patience": 1})
    result = fit(train, drawn, checkpoint=tmp_path, on_epoch=ignore_epoch)
    losses = [row["val_loss"] for row in result.history]
    assert len(losses) == 3
    assert val_loss(result, drawn) == pytest.approx(losses[-1], rel=1e-4)
    assert losses[-1] != pytest.approx(losses[0], rel=1e-3)
    resumed = fit(train, drawn, checkpoint=tmp_path, on_epoch=lambda _: pytest.fail("an epoch was repeated"))
    assert_same_weights(resumed.model, result.model)


def test_epoch_of_the_smallest_loss_is_kept(tiny, drawn, monkeypatch):
    scores, losses = iter([0.1, 0.2, 0.3]), iter([0.5, 0.2, 0.4])
    validate = trainer._Trainer._validate
    kept = []

    def scored(self):
        measured, weights = validate(self)
        kept.append(weights)
        return measured | {"val_loss": next(losses)}, weights

    monkeypatch.setattr(trainer, "macro_f1", lambda *_: next(scores))
    monkeypatch.setattr(trainer._Trainer, "_validate", scored)
    result = fit(tiny.model_copy(update={"keep": "val_loss"}), drawn, on_epoch=ignore_epoch)
    for weight, expected in zip(result.weights, kept[1], strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_moving_average_is_validated_and_kept_without_changing_the_training(tiny, trained, drawn):
    without = fit(tiny.model_copy(update={"ema": 0.0}), drawn, on_epoch=ignore_epoch)
    for row, row_without in zip(trained.result.history, without.history, strict=True):
        assert row["loss"] == pytest.approx(row_without["loss"], rel=1e-5)
        assert row["val_loss"] != pytest.approx(row_without["val_loss"], rel=1e-4)
    for result in (trained.result, without):
        best = max(result.history, key=lambda row: row["val_macro_f1"])
        assert val_loss(result, drawn) == pytest.approx(best["val_loss"], rel=1e-4)


def test_model_is_calibrated_on_val(trained, drawn):
    result, val = trained.result, drawn.of("val")
    probabilities = result.model.predict_on_batch(val.images[..., None])
    uncalibrated = at_temperature(probabilities, 1 / result.temperature)
    assert result.temperature != 1
    assert fit_temperature(uncalibrated, val.labels) == pytest.approx(result.temperature, rel=1e-2)
    best = max(result.history, key=lambda row: row["val_macro_f1"])
    assert log_loss(probabilities, val.labels) <= best["val_loss"] + 1e-4


def test_diverged_training_recommends_a_lower_learning_rate(tiny, drawn):
    diverging = tiny.model_copy(update={"learning_rate": 1e38, "schedule": "constant", "warmup": 0.0})
    with pytest.raises(DivergedError, match=r"loss is (nan|inf) in epoch \d: lower train\.learning_rate"):
        fit(diverging, drawn, on_epoch=ignore_epoch)


def test_balanced_class_weight_equalizes_the_emotions(tiny, plain):
    # All images are the same, so only the class frequencies can be learned: 12 happy and 2 sad.
    labels = np.array([3] * 12 + [4] * 2 + [3, 4], np.uint8)
    splits = np.array([0] * 14 + [1] * 2, np.uint8)
    faces = Faces(np.full((16, 48, 48), 90, np.uint8), labels, splits, np.zeros(16, bool))
    # With a higher learning rate, the result oscillates and depends on the processor.
    settings = {"augment": plain, "batch_size": 14, "epochs": 60, "patience": 60, "learning_rate": 0.1}
    sad = {}
    for class_weight in (None, "balanced"):
        train = tiny.model_copy(update={**UNREGULARIZED, **settings, "class_weight": class_weight})
        row = fit(train, faces, on_epoch=ignore_epoch).history[-1]
        # With probabilities p and 1-p of the two faces of val, val_loss = -(ln p + ln(1-p)) / 2.
        sad[class_weight] = (1 - np.sqrt(1 - 4 * min(np.exp(-2 * row["val_loss"]), 0.25))) / 2
    assert sad[None] == pytest.approx(1 / 7, abs=0.06)
    assert sad["balanced"] == pytest.approx(1 / 2, abs=0.1)


@pytest.mark.parametrize("split", ["train", "val"])
def test_empty_split_is_refused(tiny, drawn, tmp_path, split):
    number = ("train", "val").index(split)
    with pytest.raises(DataError, match=f"the {split} split has no faces"):
        fit(tiny, drawn[drawn.splits != number], checkpoint=tmp_path, on_epoch=ignore_epoch)
    assert not list(tmp_path.iterdir())


class WithoutTestSplit(Faces):
    """Faces whose test split must not be used."""

    def of(self, split):
        assert split != "test", "the test split was used"
        return super().of(split)


def test_test_split_has_no_influence(tiny, trained, drawn):
    noise = np.random.default_rng(0).integers(0, 256, drawn.images.shape, dtype=np.uint8)
    images = np.where((drawn.splits == 2)[:, None, None], noise, drawn.images)
    labels = np.where(drawn.splits == 2, 255, drawn.labels).astype(np.uint8)  # out of range
    result = fit(tiny, WithoutTestSplit(images, labels, drawn.splits, drawn.copied), on_epoch=ignore_epoch)
    np.testing.assert_allclose(metrics(result.history), metrics(trained.result.history), rtol=1e-4)


def test_trained_model_computes_in_float32(trained):
    assert np.isfinite([list(row.values()) for row in trained.result.history]).all()
    assert {layer.dtype_policy.name for layer in trained.result.model.layers} == {"float32"}


def test_training_in_bfloat16_returns_a_float32_model_of_similar_loss(tiny, drawn):
    result = fit(tiny.model_copy(update={"epochs": 1, "precision": "mixed_bfloat16"}), drawn, on_epoch=ignore_epoch)
    (row,) = result.history
    assert np.isfinite(list(row.values())).all()
    assert {layer.dtype_policy.name for layer in result.model.layers} == {"float32"}
    assert val_loss(result, drawn) == pytest.approx(row["val_loss"], rel=0.05)


def test_build_with_restores_the_global_dtype_policy(tiny):
    policy = keras.config.dtype_policy().name
    mixed = build_with(tiny, precision="mixed_bfloat16")
    assert keras.config.dtype_policy().name == policy
    assert mixed.get_layer("probabilities").compute_dtype == "float32"
    assert mixed.get_layer("logits").compute_dtype == "float32"
    assert {layer.compute_dtype for layer in mixed.layers if isinstance(layer, keras.layers.Conv2D)} == {"bfloat16"}
    assert {weight.dtype for weight in mixed.trainable_weights} == {"float32"}
    full = build_with(tiny, precision="float32")
    for a, b in zip(mixed.get_weights(), full.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)  # the precision does not change the initial weights
