"""What a comparison says of two results, also of incomplete and of different ones."""

from dataclasses import replace

import numpy as np
import pytest
from tests.support.results import results

from emotion_detection.data.dataset import Faces
from emotion_detection.reporting.comparison import compare_results, setting_rows, show_score, show_setting


@pytest.fixture(scope="module")
def many(drawn) -> Faces:
    """560 faces, so that a test can decide."""
    rows = np.tile(np.arange(len(drawn)), 20)
    return drawn[rows]


def test_better_head_is_better_with_its_counts(many):
    comparison = compare_results(results(many, right=0.3, seed=1), results(many, right=0.95, seed=2))
    assert comparison.verdict.startswith("Better: ")
    assert " more right of 140 faces on val (p < 0.0001)." in comparison.verdict
    assert comparison.notes == ()
    val = comparison.splits[0]
    assert len(val.fixed) - len(val.broken) == val.test.counts.only_head - val.test.counts.only_base
    assert val.confusion_change.sum() == 0
    assert np.trace(val.confusion_change) == len(val.fixed) - len(val.broken)


def test_worse_head_is_worse(many):
    comparison = compare_results(results(many, right=0.95), results(many, right=0.3))
    assert comparison.verdict.startswith("Worse: ")
    accuracy = next(row for row in comparison.scores if row.name == "val accuracy")
    assert accuracy.is_better is False
    assert accuracy.change.startswith("-")
    loss = next(row for row in comparison.scores if row.name == "val log loss")
    assert loss.change.startswith("+")
    assert loss.is_better is False


def test_equal_results_are_undecided_with_the_detectable_gain(drawn):
    comparison = compare_results(results(drawn, right=0.5), results(drawn, right=0.5))
    assert comparison.verdict.startswith(
        "Undecided: as many right of 7 faces on val (p = 1); these faces show gains from"
    )
    assert all(row.is_better is None for row in comparison.scores)
    assert comparison.settings == comparison.data == ()


def test_different_data_sets_are_not_compared_face_by_face(drawn):
    base = results(drawn, right=0.5)
    head = results(drawn[np.arange(len(drawn))[::-1]], right=0.9)
    comparison = compare_results(base, head)
    assert comparison.verdict == "Not comparable: the data sets differ, so the scores are of different faces."
    assert comparison.splits == ()
    assert all(row.is_better is None and row.change == "" for row in (*comparison.scores, *comparison.classes["val"]))
    assert [row.name for row in comparison.data] == ["digest"]


def test_other_labels_without_digests_are_not_compared(drawn):
    base, head = results(drawn, right=0.5), results(drawn[np.arange(len(drawn))[::-1]], right=0.5)
    comparison = compare_results(replace(base, data={}), replace(head, data={}))
    assert "the labels of the predictions differ" in comparison.verdict


def test_missing_digest_is_said(drawn):
    comparison = compare_results(replace(results(drawn, right=0.5), data={}), results(drawn, right=0.5))
    assert comparison.splits
    assert comparison.notes[0] == "Base has no data report."
    assert "no digest of its data" in comparison.notes[1]


def test_missing_predictions_leave_scores_and_settings(drawn):
    head = replace(results(drawn, right=0.5), predictions={}, history=())
    comparison = compare_results(results(drawn, right=0.5), head)
    assert comparison.verdict.startswith("Not comparable: the predictions of both sides are needed")
    assert "Head has no predictions, learning curves." in comparison.notes
    assert comparison.scores
    assert comparison.classes["val"]


def test_classes_are_computed_from_predictions_without_their_file(drawn):
    complete = results(drawn, right=0.5)
    comparison = compare_results(replace(complete, classes=()), complete)
    assert all(row.base == row.head for row in comparison.classes["test"])


def test_side_without_anything_is_not_recorded(drawn):
    empty = replace(results(drawn, right=0.5), metrics={}, classes=(), predictions={}, history=(), data={}, params={})
    comparison = compare_results(empty, results(drawn, right=0.5))
    assert {row.base for row in comparison.scores} == {"not recorded"}
    assert {row.change for row in comparison.scores} == {""}
    assert {row.base for row in comparison.classes["val"]} == {"not recorded"}


@pytest.mark.parametrize(
    ("base", "head", "expected"),
    [
        ({"train.epochs": 2}, {"train.epochs": 3}, [("train.epochs", "2", "3")]),
        ({"train.weight_decay": "1e-3"}, {"train.weight_decay": 0.001}, []),
        ({"train.widths": [1, 2]}, {"train.widths": (1, 2)}, []),
        (
            {"train.soft": None, "train.flip": True},
            {"train.soft": "a", "train.flip": True},
            [("train.soft", "null", "a")],
        ),
        ({"train.epochs": 2}, {"train.epochs": 2, "train.ema": 0.9}, [("train.ema", "not set", "0.9")]),
        ({"train.epochs": 2}, {"train.epochs": 2, "evaluate.confidence": 0.95}, []),
        ({}, {"train.epochs": 2}, []),
    ],
)
def test_settings_that_differ(base, head, expected):
    assert [(row.name, row.base, row.head) for row in setting_rows(base, head)] == expected


def test_score_is_shown_with_its_interval():
    scores = {"a": 0.7012, "a_low": 0.69, "a_high": 0.712, "b": 0.7012}
    assert show_score(scores, "a", percent=True) == "70.1 % [69.0, 71.2]"
    assert show_score(scores, "b", percent=False) == "0.701"
    assert show_score(scores, "c", percent=True) == "not recorded"


def test_two_faces_are_not_said_to_show_a_gain(drawn):
    two = results(drawn, right=0.5)
    few = {split: replace(one, labels=one.labels[:2], probabilities=one.probabilities[:2])
           for split, one in two.predictions.items()}  # fmt: skip
    two = replace(two, predictions=few)
    assert compare_results(two, two).verdict == "Undecided: as many right of 2 faces on val (p = 1)."


def test_order_of_the_settings_is_that_of_their_names():
    base, head = {"train.b": 1, "train.a": 1}, {"train.c": 2, "train.a": 2, "train.b": 2}
    names = [row.name for row in setting_rows(base, head)]
    assert names == ["train.a", "train.b", "train.c"]
    assert names == [row.name for row in setting_rows(head, base)]


def test_order_of_the_data_is_that_of_their_names(drawn):
    base = replace(results(drawn, right=0.5), data={"b": 1, "a": {"z": 1}, "dataset": "one"})
    head = replace(base, data={"dataset": "two", "a": {"z": 2}, "b": 2})
    assert [row.name for row in compare_results(base, head).data] == ["dataset", "a.z", "b"]


def test_setting_is_shown_in_one_line_without_control_characters():
    assert show_setting("a\x1b[2J\n\u202eb") == "a [2J b"
    assert show_setting(1 << 100_000) == "too long to be shown"


def test_emotion_without_faces_has_no_change(drawn):
    complete = results(drawn, right=0.5)
    rows = tuple({**row, "f1": "nan", "recall": "nan"} for row in complete.classes)
    comparison = compare_results(replace(complete, classes=rows), complete)
    assert {(row.change, row.is_better) for row in comparison.classes["val"]} == {("", None)}
