"""Compare a model with FER+'s raters on val, and with one of the raters.

    python benchmarks/raters.py --faces build/faces.npz [--model model.onnx]

The faces need votes: `make data SOURCE=... VOTES=...` and `dvc repro prepare`. Counted are the votes for the seven
emotions of FER-2013, on faces with at least MIN_VOTES of them.

- Plurality: how often the reading is the most frequent choice of the raters. Faces with a tie are left out.
- Cross-entropy: of the reading against the distribution of the votes, in nats.

One rater is what the other raters expect of one of them: one vote is left out and compared with the others. Its
cross-entropy compares the left-out vote with the shares of the other votes, with one vote added for all emotions
together. The raters saw the face and answered FER+'s question, so no model of FER-2013's labels must reach them.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_detection.arrays import Probabilities
from emotion_detection.data.dataset import Faces, load
from emotion_detection.data.votes import LABEL_OF_CLASS, NO_LABEL
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import DataError, report_errors
from emotion_detection.inference import pretrained
from emotion_detection.inference.classifier import EmotionClassifier

Counts = NDArray[np.float64]  # votes for each of EMOTIONS, (n,7)

MIN_VOTES = 5
SMALLEST = 1e-7  # probability, so that a logarithm is finite


@dataclass(frozen=True)
class Agreement:
    """The share of faces whose reading is the plurality of votes, and the cross-entropy with the votes in nats."""

    plurality: float
    cross_entropy: float


def emotion_votes(faces: Faces) -> Counts:
    """The votes for the seven emotions, f64 (n,7); contempt, unknown and NF are left out."""
    if faces.votes is None:
        return np.zeros((len(faces), len(EMOTIONS)))
    counts = np.zeros((len(faces), len(EMOTIONS)))
    for column, label in enumerate(LABEL_OF_CLASS):
        if label != NO_LABEL:
            counts[:, label] += faces.votes[:, column]
    return counts


def model_agreement(probabilities: Probabilities, counts: Counts) -> Agreement:
    """Compare readings (n,7) with votes (n,7) of the same faces."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    entropy = -(shares * np.log(np.maximum(probabilities, SMALLEST))).sum(axis=1)
    clear = _has_plurality(counts)
    matches = probabilities.argmax(axis=1) == counts.argmax(axis=1)
    return Agreement(float(matches[clear].mean()), float(entropy.mean()))


def rater_agreement(counts: Counts) -> Agreement:
    """Compare each vote with the other votes of its face; each face counts the same."""
    votes = counts.sum(axis=1)
    plurality, cross_entropy, clear = (np.zeros(len(counts)) for _ in range(3))
    for emotion in range(counts.shape[1]):
        others = counts.copy()
        others[:, emotion] -= 1
        share = counts[:, emotion] / votes  # of the votes that are left out in this way
        decided = _has_plurality(others)
        plurality += np.where(decided & (others.argmax(axis=1) == emotion), share, 0)
        clear += np.where(decided, share, 0)
        expected = (others[:, emotion] + 1 / counts.shape[1]) / votes
        cross_entropy += np.where(share > 0, -share * np.log(np.maximum(expected, SMALLEST)), 0)
    return Agreement(float(plurality.sum() / clear.sum()), float(cross_entropy.mean()))


def _has_plurality(counts: Counts) -> NDArray[np.bool_]:
    ordered = np.sort(counts, axis=1)
    return np.asarray(ordered[:, -1] > ordered[:, -2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, help="the npz file of the prepare stage, with votes")
    parser.add_argument("--model", type=Path, default=pretrained.MODEL, help="an ONNX file; the shipped model")
    arguments = parser.parse_args()
    val = load(arguments.faces).of("val")
    counts = emotion_votes(val)
    used = counts.sum(axis=1) >= MIN_VOTES
    if not used.any():
        raise DataError(f"{arguments.faces} has no votes for val: run `make data SOURCE=... VOTES=...` and prepare")
    model = model_agreement(EmotionClassifier(arguments.model).probabilities(val.images[used]), counts[used])
    labels = model_agreement(np.eye(len(EMOTIONS), dtype=np.float32)[val.labels[used]], counts[used])
    rater = rater_agreement(counts[used])
    print(f"{used.sum():,} faces of val with {MIN_VOTES} votes or more for the seven emotions\n")
    print("| | is the plurality | cross-entropy |\n|---|--:|--:|")
    print(f"| the model | {model.plurality:.1%} | {model.cross_entropy:.3f} |")
    print(f"| one rater | {rater.plurality:.1%} | {rater.cross_entropy:.3f} |")
    print(f"| FER-2013's label | {labels.plurality:.1%} | – |")


if __name__ == "__main__":
    with report_errors():
        main()
