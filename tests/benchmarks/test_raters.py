"""Agreement with raters, on votes whose answer is known."""

import numpy as np
import pytest
from benchmarks.raters import emotion_votes, model_agreement, rater_agreement
from tests.support.fer_files import random_faces

from emotion_detection.data.dataset import VOTE_CLASSES, Faces
from emotion_detection.emotions import EMOTIONS


def counts(*rows):
    return np.array(rows, float)


def test_votes_of_emotions_are_counted_by_their_label():
    faces = random_faces(1)
    votes = np.arange(10, dtype=np.uint8)[np.newaxis]
    (row,) = emotion_votes(Faces(faces.images[:1], faces.labels[:1], faces.splits[:1], faces.copied[:1], votes))
    assert row[EMOTIONS.index("happy")] == VOTE_CLASSES.index("happiness")
    assert row[EMOTIONS.index("angry")] == VOTE_CLASSES.index("anger")
    assert row.sum() == sum(range(7))  # contempt, unknown and NF are left out


def test_reading_is_compared_with_plurality_and_votes():
    votes = counts([8, 2, 0, 0, 0, 0, 0], [0, 6, 4, 0, 0, 0, 0], [5, 5, 0, 0, 0, 0, 0])
    result = model_agreement((votes / 10).astype(np.float32), votes)
    entropy = [-(0.8 * np.log(0.8) + 0.2 * np.log(0.2)), -(0.6 * np.log(0.6) + 0.4 * np.log(0.4)), np.log(2)]
    assert result.plurality == 1  # the tie is left out
    assert result.cross_entropy == pytest.approx(np.mean(entropy))
    assert model_agreement(np.eye(7, dtype=np.float32)[[1, 1, 0]], votes).plurality == 0.5


def test_rater_is_compared_with_the_others():
    assert rater_agreement(counts([10, 0, 0, 0, 0, 0, 0])).plurality == 1
    assert rater_agreement(counts([8, 2, 0, 0, 0, 0, 0])).plurality == pytest.approx(0.8)
    # Of [3, 2]: a vote of the three leaves a tie, which does not count; a vote of the two is against the others.
    assert rater_agreement(counts([3, 2, 0, 0, 0, 0, 0])).plurality == 0
    unanimous = -np.log((9 + 1 / 7) / 10)
    assert rater_agreement(counts([10, 0, 0, 0, 0, 0, 0])).cross_entropy == pytest.approx(unanimous)
