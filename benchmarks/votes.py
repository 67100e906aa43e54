"""How well FER+'s votes tell FER-2013's labels without a picture, raw and translated.

    python benchmarks/votes.py --faces build/faces.npz

Accuracy and log loss on the train split (each face translated without its own label) and on the val split (translated
by what the train split shows). A training uses the first of these with train.votes above 0.
"""

import argparse
from pathlib import Path

import numpy as np

from emotion_detection.arrays import Labels, Probabilities
from emotion_detection.data.dataset import load
from emotion_detection.data.votes import plurality_agreement
from emotion_detection.errors import DataError, report_errors
from emotion_detection.training.votes import fit_and_translate, translate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, help="the npz file of the prepare stage, with votes")
    path = parser.parse_args().faces
    faces = load(path)
    faces = faces[faces.voted]
    train, val = faces.of("train"), faces.of("val")
    if train.votes is None or val.votes is None or not len(train) or not len(val):
        raise DataError(f"{path} has no votes for train and val: run `make data SOURCE=... VOTES=...` and prepare")
    print("split  faces   raw: accuracy   translated: accuracy   log loss")
    translated = translate(train.votes, train.labels, seed=0)
    show("train", plurality_agreement(train.votes, train.labels), translated, train.labels)
    translated = fit_and_translate(train.votes, train.labels, val.votes)
    show("val", plurality_agreement(val.votes, val.labels), translated, val.labels)


def show(split: str, raw: float, probabilities: Probabilities, labels: Labels) -> None:
    accuracy = (probabilities.argmax(1) == labels).mean()
    loss = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-7)).mean()
    print(f"{split:5} {len(labels):6,}   {raw:13.1%}   {accuracy:20.1%}   {loss:8.3f}")


if __name__ == "__main__":
    with report_errors():
        main()
