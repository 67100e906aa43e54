"""Votes for random faces, as FER+'s fer2013new.csv and as a table by file name."""

from collections.abc import Sequence

import numpy as np

from emotion_detection.data.dataset import TEST, VOTE_CLASSES, Faces, Votes
from emotion_detection.data.votes import LABEL_OF_CLASS

USAGES = ("Training", "PublicTest", "PrivateTest")
HEADER = "Usage,Image name," + ",".join(VOTE_CLASSES)
FILE_HEADER = "file," + ",".join(VOTE_CLASSES)


def random_votes(faces: Faces, seed: int = 0, agreement: float = 0.7) -> Votes:
    """Ten votes for each face. Most raters choose its label for the share `agreement` of the faces, fear elsewhere."""
    rng = np.random.default_rng(seed)
    votes = np.zeros((len(faces), len(VOTE_CLASSES)), np.uint8)
    class_of_label = np.array([np.flatnonzero(label == LABEL_OF_CLASS)[0] for label in range(7)])
    chosen = np.where(rng.random(len(faces)) < agreement, class_of_label[faces.labels], VOTE_CLASSES.index("fear"))
    votes[np.arange(len(faces)), chosen] = 6
    votes[:, VOTE_CLASSES.index("unknown")] = 4
    return votes


def known_votes(faces: Faces, votes: Votes) -> Votes:
    """The votes that the project may use: those of train and val."""
    return np.where((faces.splits == TEST)[:, np.newaxis], 0, votes).astype(np.uint8)


def fer_plus(faces: Faces, votes: Votes) -> str:
    """A table as fer2013new.csv: a line without a name comes first and moves all others by one."""
    lines = [HEADER, "Training,," + ",".join(["0"] * 9 + ["10"])]
    for row, (split, counts) in enumerate(zip(faces.splits, votes, strict=True)):
        lines.append(f"{USAGES[split % 3]},fer{row:07}.png," + ",".join(map(str, counts)))
    return "\n".join(lines) + "\n"


def by_file(files: Sequence[str], votes: Votes) -> str:
    lines = [f"{file}," + ",".join(map(str, counts)) for file, counts in zip(files, votes, strict=True)]
    return "\n".join([FILE_HEADER, *lines]) + "\n"
