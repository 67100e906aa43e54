"""A stand-in for training.trainer.fit that needs no TensorFlow: the score follows from the settings and the epoch."""

import time
from collections.abc import Callable
from pathlib import Path

from emotion_detection.config import Train
from emotion_detection.data.dataset import Faces

TRAINER = "tests.support.fake_training:fit"
TRAINER_WITH_LUCK = "tests.support.fake_training:fit_with_luck"
OTHER_METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second")
HOLD = Path("hold-training")  # in the working directory; while it exists, trainings wait after their first epoch
POLL_S = 0.02


def fit(train: Train, faces: Faces, *, on_epoch: Callable[[dict[str, float]], None]) -> None:
    """Call on_epoch for every epoch. The score grows with the epoch and falls with the dropout and the seed."""
    assert len(faces)
    for epoch in range(1, train.epochs + 1):
        score = 0.8 - train.dropout - train.seed / 1000 - 0.1 / epoch
        on_epoch({"epoch": epoch, "val_macro_f1": score} | dict.fromkeys(OTHER_METRICS, 0.5))
        while HOLD.exists():
            time.sleep(POLL_S)


def fit_with_luck(train: Train, faces: Faces, *, on_epoch: Callable[[dict[str, float]], None]) -> None:
    """A dropout of 0.1 is lucky with the seed 1 and in the first epoch. Otherwise it is worse than the others."""
    assert len(faces)
    score = 0.01 * (train.seed - 3) + (0.5 if train.dropout == 0.1 else 0.8 - train.dropout)
    for epoch in range(1, train.epochs + 1):
        luck = 0.4 if train.dropout == 0.1 and (train.seed == 1 or epoch == 1) else 0
        on_epoch({"epoch": epoch, "val_macro_f1": score + luck} | dict.fromkeys(OTHER_METRICS, 0.5))
