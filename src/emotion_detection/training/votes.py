"""Training targets from the votes of FER+'s raters, translated into probabilities of FER-2013's labels."""

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_detection.arrays import Labels, Probabilities
from emotion_detection.config import Train
from emotion_detection.data.dataset import Faces, Votes, votes_digest
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import ConfigError
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.training.content_addressed import read_comment

FOLDS = 5
MIN_FACES = 50  # with votes: fewer do not show what votes mean
# Measured on val of FER-2013 by benchmarks/votes.py. More rounds, more leaves and functions of the shares gave nothing.
SETTINGS = {"max_iter": 40, "learning_rate": 0.1, "max_leaf_nodes": 12, "min_samples_leaf": 60, "l2_regularization": 1}
NAMES = {"fer2013": "FER-2013"}
FER_PLUS = " and FER+"  # the end of a label_source

logger = logging.getLogger(__name__)


def check_votes(train: Train, faces: Faces) -> None:
    """Raise ConfigError if the settings use votes that the training faces do not have."""
    count = int(faces.of("train").voted.sum())
    if train.votes and not count:
        raise ConfigError(
            f"train.votes is {train.votes:g}, but the training faces have no votes: add them with "
            "`make data SOURCE=... VOTES=...`, or write 0"
        )
    if train.votes and count < MIN_FACES:
        raise ConfigError(
            f"train.votes is {train.votes:g}, but only {count} training faces have votes, and {MIN_FACES} are needed: "
            "add votes, or write 0"
        )


def label_targets(train: Train, faces: Faces) -> Probabilities:
    """The targets of training faces without soft labels, f32 (n,7).

    A target is (1 - train.votes) * one-hot label + train.votes * translated votes. A face without votes has its label.
    Raise ConfigError if the settings use votes that the faces do not have.
    """
    targets = np.eye(len(EMOTIONS), dtype=np.float32)[faces.labels]
    if not train.votes:
        return targets
    check_votes(train, faces)
    assert faces.votes is not None
    voted = faces.voted
    translated = translate(faces.votes[voted], faces.labels[voted], train.seed)
    targets[voted] = (1 - train.votes) * targets[voted] + train.votes * translated
    agreement = (translated.argmax(1) == faces.labels[voted]).mean()
    logger.info("translated the votes of %d faces: %.1f %% are the label", voted.sum(), 100 * agreement)
    return targets


def translate(votes: Votes, labels: Labels, seed: int) -> Probabilities:
    """The probabilities of FER-2013's labels given votes u8 (n,10), f32 (n,7).

    FER+'s raters answered another question than FER-2013's: they call many fearful faces surprised or sad. The
    translation of a face is fitted on other faces, so that it does not contain the face's own label.
    """
    folds = np.random.default_rng(seed).permutation(len(votes)) % FOLDS
    probabilities = np.empty((len(votes), len(EMOTIONS)), np.float32)
    for fold in range(FOLDS):
        held_out = folds == fold
        probabilities[held_out] = fit_and_translate(votes[~held_out], labels[~held_out], votes[held_out])
    return probabilities


def fit_and_translate(votes: Votes, labels: Labels, others: Votes) -> Probabilities:
    """Fit the translation on votes u8 (n,10) and labels (n,), and translate other votes u8 (m,10) to f32 (m,7)."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    probabilities = np.zeros((len(others), len(EMOTIONS)), np.float32)
    present = np.unique(labels)
    if len(present) == 1:
        probabilities[:, present] = 1
        return probabilities
    # One thread: the order of the sums, and so the result, does not depend on the machine.
    with threadpool_limits(limits=1):
        classifier = HistGradientBoostingClassifier(**SETTINGS, early_stopping=False, random_state=0)
        classifier.fit(_shares(votes), labels)
        probabilities[:, classifier.classes_] = classifier.predict_proba(_shares(others))
    return probabilities


def label_tags(train: Train, faces: Faces, dataset: str) -> dict[str, str]:
    """Tags that say from which labels a model learns, such as label_source "FER-2013 and FER+".

    A model also learns from the votes that its teachers learned from, or the networks whose weights it starts with or
    averages.
    """
    name = NAMES.get(dataset, dataset)
    named = (train.initial_weights, *train.average.weights)
    named += (train.distillation.soft_labels, *train.distillation.teachers)
    parents = [Path(one) for one in named if one]
    if not train.votes and not any(learned_from(parent).endswith(FER_PLUS) for parent in parents):
        return {"label_source": name}
    tags = {"label_source": name + FER_PLUS}
    return tags | {"votes_digest": votes_digest(faces)} if train.votes else tags


def learned_from(parent: Path) -> str:
    """The label_source of a model.onnx, of initial weights or of soft labels; "" if it is not recorded."""
    if parent.suffix == ".onnx":
        return EmotionClassifier(parent).metadata.get("label_source", "")
    return read_comment(parent).decode(errors="replace")


def votes_comment(label_source: str) -> bytes:
    """The comment of weights or soft labels that learned from votes; b"" for others, so that these do not change."""
    return label_source.encode() if label_source.endswith(FER_PLUS) else b""


def _shares(votes: Votes) -> NDArray[np.float64]:
    return votes / votes.sum(axis=1, keepdims=True, dtype=np.float64)
