"""Training: faces and params in, the best weights and their history out; goes on after any interruption."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from emotion_detection.config import Train
from emotion_detection.data.dataset import Faces
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import DivergedError, InputError
from emotion_detection.evaluation.calibration import fit_temperature
from emotion_detection.evaluation.metrics import macro_f1
from emotion_detection.model.architectures import build, plain
from emotion_detection.training.augmentation import augmentation, batches
from emotion_detection.training.distillation import targets
from emotion_detection.training.distribution import Devices
from emotion_detection.training.initial_weights import load_initial_weights
from emotion_detection.training.optimizer import compile_for, resolve_precision

Epoch = dict[str, float]  # one row of the history: metric name -> value
OnEpoch = Callable[[Epoch], None]

PREDICTED_AT_ONCE = 512  # faces


@dataclass(frozen=True)
class TrainingResult:
    """The model with the weights of its best epoch (largest val_macro_f1), and a row of metrics per epoch.

    weights: the same as they were learnt, for `starts`. temperature: what the model divides its logits by, fitted on
    val.
    """

    model: keras.Model
    weights: list[NDArray[np.float32]]
    history: list[Epoch]
    temperature: float


def fit(train: Train, faces: Faces, *, checkpoint: Path | None = None, on_epoch: OnEpoch) -> TrainingResult:
    """Teach a network on the train split, steered by val alone; the test split is never looked at.

    After every epoch its state stands under the folder `checkpoint`, if there is one; called again with the same
    arguments, training goes on from there as if nothing had happened, and on_epoch is called for the new epochs only.
    InputError if a split is empty, DivergedError if the loss stops being finite.
    """
    keras.utils.clear_session()  # a process that searches trains many networks
    trainer = _Trainer(train, faces)
    if checkpoint:
        trainer.resume(checkpoint)
    while not trainer.finished:
        row = trainer.run_epoch()
        if checkpoint:
            trainer.save(checkpoint)  # first: an epoch that was told of is never run again
        on_epoch(row)
    model, temperature = trainer.best_model()
    return TrainingResult(model, trainer.best_weights, trainer.history, temperature)


def build_with(train: Train, *, precision: str, temperature: float = 1.0) -> keras.Model:
    """The network of `train`, seeded, computing in `precision`; its weights are float32 in any."""
    keras.utils.set_random_seed(train.seed)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        return build(train, temperature=temperature)
    finally:
        keras.config.set_dtype_policy(before)


class _Trainer:
    """What lives from epoch to epoch: the model with its optimizer, the best weights, the history."""

    def __init__(self, train: Train, faces: Faces) -> None:
        self._train, self._taught, self._val = train, faces.of("train"), faces.of("val")
        for split, part in (("train", self._taught), ("val", self._val)):
            if not len(part):
                raise InputError(f"the {split} split has no faces: look at the data and run prepare again")
        self._steps = -(-len(self._taught) // train.batch_size)  # per epoch
        self._devices = Devices()
        with self._devices.scope():
            self._model = build_with(train, precision=resolve_precision(train.precision))
            if train.initial_weights:
                load_initial_weights(self._model, Path(train.initial_weights))
            compile_for(self._model, train, steps=self._steps * train.epochs)
            self._model.optimizer.build(self._model.trainable_variables)
        self._targets, self._lessons = targets(train, self._taught)
        self._devices.prepare(self._model, self._taught.images[:2, ..., np.newaxis], self._targets[:2])
        self._class_weight = _class_weight(self._taught.labels) if train.class_weight == "balanced" else None
        self.best_weights: list[NDArray[np.float32]] = []
        self.history: list[Epoch] = []

    @property
    def finished(self) -> bool:
        done = len(self.history)
        return done >= self._train.epochs or done - self._best_epoch >= self._train.patience

    @property
    def _best_epoch(self) -> int:
        scores = [row["val_macro_f1"] for row in self.history]
        return 1 + scores.index(max(scores)) if scores else 0

    def best_model(self) -> tuple[keras.Model, float]:
        """The best weights in a plain float32 network, calibrated on val, and the temperature that it took.

        float32: what is exported must not depend on this machine's precision.
        """
        raw = build_with(self._train, precision="float32")
        raw.set_weights(self.best_weights)
        probabilities = _predict(raw, self._val.images[..., np.newaxis])
        temperature = fit_temperature(probabilities, self._val.labels)
        model = build_with(self._train, precision="float32", temperature=temperature)
        model.set_weights(self.best_weights)
        return plain(model), temperature

    def run_epoch(self) -> Epoch:
        epoch = len(self.history) + 1
        rate = float(keras.ops.convert_to_numpy(self._model.optimizer.learning_rate))
        start = time.perf_counter()
        taught = self._teach(epoch)
        speed = len(self._taught) / (time.perf_counter() - start)
        scores, weights = self._validate()
        self.history.append({"epoch": epoch, **taught, **scores, "learning_rate": rate, "images_per_second": speed})
        if self._best_epoch == epoch:
            self.best_weights = weights
        return self.history[-1]

    def _teach(self, epoch: int) -> Epoch:
        """One pass over the train split. By train_on_batch, as fit idles after its last batch (tf.data's autotuner)."""
        self._reseed_dropout(epoch)
        totals = np.zeros(2)
        steps = batches(
            self._taught,
            self._targets,
            augmentation(self._train, epoch),
            batch_size=self._train.batch_size,
            seed=self._train.seed,
            epoch=epoch,
            lessons=self._lessons,
        )
        bar = tqdm(steps, f"epoch {epoch}/{self._train.epochs}", self._steps, unit="batch", leave=False)
        for images, wanted in bar:
            weight = None if self._class_weight is None else wanted @ self._class_weight
            self._model.reset_metrics()  # Keras before 3.15 goes on averaging
            share = self._devices.shares
            logs = self._model.train_on_batch(
                share(images), share(wanted), sample_weight=share(weight), return_dict=True
            )
            totals += logs["loss"], logs["accuracy"]
            if not np.isfinite(logs["loss"]):
                raise DivergedError(f"the loss is {logs['loss']} in epoch {epoch}: lower train.learning_rate")
            bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
        return dict(zip(("loss", "accuracy"), (totals / self._steps).tolist(), strict=True))

    def _reseed_dropout(self, epoch: int) -> None:
        """Keras saves no random states with the weights: an epoch's masks follow from its number instead."""
        for number, layer in enumerate(self._model.layers):
            if hasattr(layer, "seed_generator"):
                state = np.random.SeedSequence([self._train.seed, epoch, number]).generate_state(2)
                layer.seed_generator.state.assign(state)

    def _validate(self) -> tuple[Epoch, list[NDArray[np.float32]]]:
        """Scores on val of the weights worth keeping (their average, with train.ema), and these weights."""
        average = keras.callbacks.SwapEMAWeights() if self._train.ema else keras.callbacks.Callback()
        average.set_model(self._model)
        average.on_test_begin()
        try:
            probabilities = _predict(self._model, self._val.images[..., np.newaxis])
            weights = self._model.get_weights()
        finally:
            average.on_test_end()
        labels = self._val.labels
        truth = probabilities[np.arange(len(labels)), labels]
        scores = {
            "val_loss": float(-np.log(np.maximum(truth, 1e-7)).mean()),
            "val_accuracy": float((probabilities.argmax(1) == labels).mean()),
            "val_macro_f1": macro_f1(labels, probabilities.argmax(1)),
        }
        return scores, weights

    def save(self, checkpoint: Path) -> None:
        """Write the state beside the last one, then rename: a kill at any moment leaves one whole state."""
        folder = checkpoint / f"epoch-{len(self.history):04d}"
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        self._model.save_weights(unfinished / "state.weights.h5")
        np.savez(unfinished / "best.npz", *self.best_weights)
        (unfinished / "history.json").write_text(json.dumps(self.history))
        os.rename(unfinished, folder)
        for older in _states(checkpoint)[:-1]:
            shutil.rmtree(older)

    def resume(self, checkpoint: Path) -> None:
        states = _states(checkpoint)
        if not states:
            return
        self._model.load_weights(states[-1] / "state.weights.h5")
        with np.load(states[-1] / "best.npz", allow_pickle=False) as best:
            self.best_weights = [best[name] for name in best.files]
        self.history = json.loads((states[-1] / "history.json").read_text())
        print(f"resuming after epoch {len(self.history)} of {self._train.epochs}, from {checkpoint}")


def _predict(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    parts = [images[at : at + PREDICTED_AT_ONCE] for at in range(0, len(images), PREDICTED_AT_ONCE)]
    # Each of several devices answers for the whole part, one after the other.
    return np.concatenate([model.predict_on_batch(part)[: len(part)] for part in parts])


def _states(checkpoint: Path) -> list[Path]:
    """The whole states under a checkpoint folder, oldest first."""
    return sorted(path for path in checkpoint.glob("epoch-*") if not path.suffix)


def _class_weight(labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A weight per label, (7,): mean 1 over the faces, every emotion the same in sum."""
    counts = np.bincount(labels, minlength=len(EMOTIONS))
    return (len(labels) / np.maximum(counts, 1) / np.count_nonzero(counts)).astype(np.float32)
