"""The score of a trial."""

from contextlib import nullcontext
from unittest.mock import MagicMock

import optuna
import pytest

from emotion_detection.tuning import worker

LOSSES, SCORES = (0.9, 0.2, 0.5), (0.6, 0.4, 0.5)


def fit(_train, _faces, *, on_epoch):
    for epoch, (loss, score) in enumerate(zip(LOSSES, SCORES, strict=True), start=1):
        on_epoch({"epoch": epoch, "val_loss": loss, "val_macro_f1": score})


@pytest.mark.parametrize(
    ("keep", "finalists", "score"),
    [("val_macro_f1", False, 0.6), ("val_loss", False, 0.4), ("last", False, 0.5), ("val_macro_f1", True, 0.5)],
)
def test_trial_has_the_score_of_the_kept_epoch(params, monkeypatch, tmp_path, keep, finalists, score):
    monkeypatch.setattr("emotion_detection.experiments.runs.start_run", lambda **_: nullcontext(MagicMock()))
    job = worker.Job(
        train=params.train.model_copy(update={"keep": keep}),
        tune=params.tune.model_copy(update={"epochs": 3}),
        known=(),
        faces=tmp_path / "faces.npz",
        study="s",
        parent="",
        tags={},
        records=tmp_path,
        finalists=finalists,
    )
    trial = optuna.create_study(pruner=optuna.pruners.NopPruner()).ask()
    monkeypatch.setattr(trial, "set_user_attr", lambda *_: None)
    assert worker.train_trial(trial, {}, job, MagicMock(), fit) == score
