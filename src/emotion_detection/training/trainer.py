"""The training loop: train a network, validate it after every epoch and keep the best weights. It can be resumed."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from emotion_detection.arrays import Images, Labels, Probabilities
from emotion_detection.config import Train
from emotion_detection.data.dataset import Faces
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import DataError, DivergedError
from emotion_detection.evaluation.calibration import fit_temperature
from emotion_detection.evaluation.metrics import kept_epoch, macro_f1
from emotion_detection.model.architectures import build, to_keras_layers
from emotion_detection.training import averaging
from emotion_detection.training.augmentation import augmentation, batches
from emotion_detection.training.checkpoint import Epoch, State, load_state, save_state
from emotion_detection.training.distillation import Teachers, targets
from emotion_detection.training.distribution import Distribution
from emotion_detection.training.initial_weights import load_initial_weights
from emotion_detection.training.optimizer import compile_for, resolve_precision

OnEpoch = Callable[[Epoch], None]

PREDICT_BATCH_SIZE = 512

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """The calibrated model with the weights of the epoch that train.keep chooses, and the metrics of all epochs.

    With train.average, the model has the average of these weights and others. The metrics are those before the average.
    weights: the weights of the model before the conversion to layers of Keras, for `save_initial_weights`.
    temperature: the divisor of the model's logits, fitted on val.
    """

    model: keras.Model
    weights: list[NDArray[np.float32]]
    history: list[Epoch]
    temperature: float


def fit(train: Train, faces: Faces, *, checkpoint: Path | None = None, on_epoch: OnEpoch) -> TrainingResult:
    """Train a network on the train split and select the epoch on the val split. The test split is not used.

    The state is saved to the folder `checkpoint` after every epoch. A call with the same arguments resumes from there,
    with the same result as without the interruption, and calls on_epoch for the new epochs only.
    A damaged state is set aside, and the training continues from the one before it; see `checkpoint`.
    With train.epochs 0, the initial weights are kept, and the history has one row about them, as epoch 0. Each call
    computes it again.
    Raise DataError if a split is empty, ConfigError if a batch is larger than the train split, and DivergedError if the
    loss is NaN or infinite.
    """
    keras.utils.clear_session()  # a search trains many networks in a process
    trainer = _Trainer(train, faces)
    if not train.epochs:
        on_epoch(trainer.score_initial_weights())
    elif checkpoint:
        trainer.resume(checkpoint)
    while not trainer.finished:
        row = trainer.run_epoch()
        if checkpoint:
            trainer.save(checkpoint)  # before on_epoch, so that no epoch is reported twice
        on_epoch(row)
    weights = trainer.final_weights()
    model, temperature = trainer.calibrated_model(weights)
    return TrainingResult(model, weights, trainer.history, temperature)


def build_with(train: Train, *, precision: str, temperature: float = 1.0) -> keras.Model:
    """Build the network of `train` with its seed. It computes in `precision`; its weights are always float32."""
    keras.utils.set_random_seed(train.seed)
    default_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        return build(train, temperature=temperature)
    finally:
        keras.config.set_dtype_policy(default_policy)


class _Trainer:
    """The state of a training: the model with its optimizer, the best weights and the history."""

    def __init__(self, train: Train, faces: Faces) -> None:
        self._train, self._train_faces, self._val_faces = train, faces.of("train"), faces.of("val")
        for split, split_faces in (("train", self._train_faces), ("val", self._val_faces)):
            if not len(split_faces):
                raise DataError(f"the {split} split has no faces: check the data and run `dvc repro prepare`")
        train.check_batch_size(len(self._train_faces))
        self._steps_per_epoch = -(-len(self._train_faces) // train.batch_size)
        self._distribution = Distribution()
        with self._distribution.scope():
            self._model = build_with(train, precision=resolve_precision(train.precision))
            if train.initial_weights:
                load_initial_weights(self._model, Path(train.initial_weights))
            self._others = averaging.read_others(train.average, self._model)
            compile_for(self._model, train, steps=self._steps_per_epoch * train.epochs)
            self._model.optimizer.build(self._model.trainable_variables)
        self._targets, self._soft_labels = targets(train, self._train_faces)
        self._teach = Teachers(train.distillation) if train.distillation.teachers else None
        self._distribution.prepare(self._model, self._train_faces.images[:2, ..., np.newaxis], self._targets[:2])
        self._class_weight = _class_weight(self._train_faces.labels) if train.class_weight == "balanced" else None
        self.best_weights: list[NDArray[np.float32]] = []
        self.history: list[Epoch] = []

    @property
    def finished(self) -> bool:
        done = len(self.history)
        return done >= self._train.epochs or done - self._kept_epoch >= self._train.patience

    @property
    def _kept_epoch(self) -> int:
        """The epoch whose weights are kept, counted from 1; 0 before the first. The first one of equal scores."""
        return kept_epoch(self.history, self._train.keep)

    def final_weights(self) -> list[NDArray[np.float32]]:
        """The kept weights; with train.average, averaged with the others."""
        if not self._others:
            return self.best_weights
        model = build_with(self._train, precision="float32")
        model.set_weights(averaging.mean(self.best_weights, self._others, self._train.average.share))
        averaging.measure_batch_norm(model, self._train_faces.images, self._train.seed)
        return model.get_weights()

    def calibrated_model(self, weights: list[NDArray[np.float32]]) -> tuple[keras.Model, float]:
        """Return the weights in a calibrated network of Keras layers, and its temperature.

        The network computes in float32, so that the exported model does not depend on the precision of the training.
        """
        raw = build_with(self._train, precision="float32")
        raw.set_weights(weights)
        probabilities = _predict(raw, self._val_faces.images[..., np.newaxis])
        temperature = fit_temperature(probabilities, self._val_faces.labels)
        model = build_with(self._train, precision="float32", temperature=temperature)
        model.set_weights(weights)
        return to_keras_layers(model), temperature

    def score_initial_weights(self) -> Epoch:
        """The scores of the network that was not trained, on the unchanged faces. Its row has the columns of others."""
        start = time.perf_counter()
        images = self._train_faces.images[..., np.newaxis]
        logs = self._model.evaluate(images, self._targets, PREDICT_BATCH_SIZE, verbose=0, return_dict=True)
        speed = len(images) / (time.perf_counter() - start)
        scores, self.best_weights = self._validate()
        _check_loss(scores["val_loss"], 0)
        metrics = {"epoch": 0, "loss": logs["loss"], "accuracy": logs["accuracy"]}
        self.history.append({**metrics, **scores, "learning_rate": 0.0, "images_per_second": speed})
        return self.history[-1]

    def run_epoch(self) -> Epoch:
        epoch = len(self.history) + 1
        rate = float(keras.ops.convert_to_numpy(self._model.optimizer.learning_rate))
        start = time.perf_counter()
        metrics = self._train_epoch(epoch)
        speed = len(self._train_faces) / (time.perf_counter() - start)
        scores, weights = self._validate()
        _check_loss(scores["val_loss"], epoch)  # the last step can spoil the weights after its loss was computed
        self.history.append({"epoch": epoch, **metrics, **scores, "learning_rate": rate, "images_per_second": speed})
        if self._kept_epoch == epoch:
            self.best_weights = weights
        return self.history[-1]

    def _train_epoch(self, epoch: int) -> Epoch:
        """Train once on the train split. model.fit would idle after its last batch because of tf.data's autotuner."""
        self._reseed_dropout(epoch)
        totals = np.zeros(2)
        steps = batches(
            self._train_faces,
            self._targets,
            augmentation(self._train, epoch),
            batch_size=self._train.batch_size,
            seed=self._train.seed,
            epoch=epoch,
            soft_labels=self._soft_labels,
            teach=self._teach,
            teachers_see=self._train.distillation.teachers_see,
        )
        bar = tqdm(steps, f"epoch {epoch}/{self._train.epochs}", self._steps_per_epoch, unit="batch", leave=False)
        for images, batch_targets in bar:
            weight = None if self._class_weight is None else batch_targets @ self._class_weight
            self._model.reset_metrics()  # Keras before 3.15 would average over all batches
            arrays = [self._distribution.distribute(array) for array in (images, batch_targets, weight)]
            logs = self._model.train_on_batch(*arrays, return_dict=True)
            totals += logs["loss"], logs["accuracy"]
            _check_loss(logs["loss"], epoch)
            bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
        return dict(zip(("loss", "accuracy"), (totals / self._steps_per_epoch).tolist(), strict=True))

    def _reseed_dropout(self, epoch: int) -> None:
        """Derive the dropout masks from the epoch, because Keras does not save random states with the weights."""
        for number, layer in enumerate(self._model.layers):
            if hasattr(layer, "seed_generator"):
                state = np.random.SeedSequence([self._train.seed, epoch, number]).generate_state(2)
                layer.seed_generator.state.assign(state)

    def _validate(self) -> tuple[Epoch, list[NDArray[np.float32]]]:
        """Return the scores on val and the weights they are of: with train.ema, the moving average of the weights."""
        has_moving_average = self._train.ema and self._train.epochs  # it starts with the first step
        ema_callback = keras.callbacks.SwapEMAWeights() if has_moving_average else keras.callbacks.Callback()
        ema_callback.set_model(self._model)
        ema_callback.on_test_begin()
        try:
            probabilities = _predict(self._model, self._val_faces.images[..., np.newaxis])
            weights = self._model.get_weights()
        finally:
            ema_callback.on_test_end()
        labels = self._val_faces.labels
        label_probabilities = probabilities[np.arange(len(labels)), labels]
        scores = {
            "val_loss": float(-np.log(np.maximum(label_probabilities, 1e-7)).mean()),
            "val_accuracy": float((probabilities.argmax(1) == labels).mean()),
            "val_macro_f1": macro_f1(labels, probabilities.argmax(1)),
        }
        return scores, weights

    def save(self, checkpoint: Path) -> None:
        variables = [keras.ops.convert_to_numpy(variable) for variable in self._variables]
        save_state(State(variables, self.best_weights, self.history), checkpoint)

    def resume(self, checkpoint: Path) -> None:
        """Continue after the newest complete state of the checkpoint, if there is one."""
        state = load_state(
            checkpoint,
            variables=[tuple(variable.shape) for variable in self._variables],
            weights=[tuple(weight.shape) for weight in self._model.weights],
            epochs=self._train.epochs,
        )
        if state is None:
            return
        for variable, value in zip(self._variables, state.variables, strict=True):
            variable.assign(value)
        self.best_weights, self.history = list(state.best_weights), state.history
        logger.info("resuming after epoch %d of %d, from %s", len(self.history), self._train.epochs, checkpoint)

    @property
    def _variables(self) -> list[keras.Variable]:
        """What a training changes: the weights, and the step, momentum and moving averages of the optimizer."""
        return [*self._model.weights, *self._model.optimizer.variables]


def _predict(model: keras.Model, images: Images) -> Probabilities:
    parts = [images[start : start + PREDICT_BATCH_SIZE] for start in range(0, len(images), PREDICT_BATCH_SIZE)]
    # With several devices, each predicts all images, and the predictions are concatenated.
    return np.concatenate([model.predict_on_batch(part)[: len(part)] for part in parts])


def _check_loss(loss: float, epoch: int) -> None:
    if not np.isfinite(loss):
        remedy = "lower train.learning_rate" if epoch else "use other initial weights"
        raise DivergedError(f"the loss is {loss} in epoch {epoch}: {remedy}")


def _class_weight(labels: Labels) -> NDArray[np.float32]:
    """Return a weight per label, (7,). Their mean over the faces is 1, and their sum is the same for every emotion."""
    counts = np.bincount(labels, minlength=len(EMOTIONS))
    return (len(labels) / np.maximum(counts, 1) / np.count_nonzero(counts)).astype(np.float32)
