"""The files of a result are parsed strictly: a damaged one is named in one sentence."""

import numpy as np
import pytest
from tests.support.results import probabilities, result_files, results

from emotion_detection.errors import DataError
from emotion_detection.reporting.results import Origin, read_results


def test_all_files_of_a_result_are_read(drawn):
    found = results(drawn, right=0.5)
    assert found.missing == []
    val = drawn.of("val")
    assert (found.predictions["val"].labels == val.labels).all()
    expected = probabilities(val, right=0.5, seed=0)
    assert np.abs(found.predictions["val"].probabilities - expected).max() < 1e-3
    assert len(found.history) == 3
    assert found.dataset == "faces"


def test_missing_files_are_named():
    found = read_results(Origin("here", "run"), lambda _: None)
    assert found.missing == ["metrics", "predictions", "learning curves", "settings", "data report"]
    assert (found.digest, found.dataset) == ("", "")


def test_rounded_tie_keeps_the_predicted_emotion():
    """The file has four digits; the column `predicted` has the emotion that the model chose."""
    head = "emotion,predicted,copied," + ",".join(
        f"p_{name}" for name in ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
    )
    content = f"{head}\nsad,sad,0,0.5000,0,0,0,0.5000,0,0\n".encode()
    found = read_results(Origin("here", "run"), {"predictions_val.csv": content}.get)
    assert found.predictions["val"].probabilities.argmax() == 4


@pytest.mark.parametrize(
    "name", ["metrics.json", "classes.csv", "history.csv", "data_report.json", "predictions_val.csv"]
)
@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"[1]", b'{"val_accuracy": "x"}', b'{"a": NaN}', b"a,b\n1,2\n", b"emotion,predicted\nbored,sad\n"],
)
def test_damaged_file_is_named_or_ignored(drawn, name, content):
    """Every file either parses, or ends in a DataError that names it."""
    files = result_files(drawn, right=0.5, seed=0) | {name: content}
    try:
        read_results(Origin("some run", "run"), files.get)
    except DataError as error:
        assert str(error).startswith(f"{name} of some run is damaged (")  # noqa: PT017
        assert str(error).endswith("repeat `dvc repro`, which writes it")  # noqa: PT017


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", b'{"val_accuracy": "x"}'),
        ("metrics.json", b'{"val_accuracy": Infinity}'),
        ("data_report.json", b"[]"),
        ("history.csv", b"step,loss\n1,2\n"),
        ("classes.csv", b"split,emotion\nval,bored\n"),
        ("predictions_val.csv", b"emotion,predicted\n"),
        ("predictions_val.csv", b"emotion,predicted\nsad,sad\n"),
    ],
)
def test_damaged_file_is_refused(drawn, name, content):
    files = result_files(drawn, right=0.5, seed=0) | {name: content}
    with pytest.raises(DataError, match=f"^{name} of some run is damaged"):
        read_results(Origin("some run", "run"), files.get)


def test_probabilities_that_are_none_are_refused(drawn):
    files = result_files(drawn, right=0.5, seed=0)
    head, row, *_ = files["predictions_val.csv"].decode().splitlines()
    values = ",".join([*row.split(",")[:3], "7", "0", "0", "0", "0", "0", "0"])
    files["predictions_val.csv"] = f"{head}\n{values}\n".encode()
    with pytest.raises(DataError, match="a row does not contain probabilities"):
        read_results(Origin("some run", "run"), files.get)


def test_file_of_any_size_is_not_parsed(drawn, monkeypatch):
    monkeypatch.setattr("emotion_detection.reporting.results.MAX_BYTES", 10)
    with pytest.raises(DataError, match="has more than"):
        read_results(Origin("some run", "run"), result_files(drawn, right=0.5, seed=0).get)
