"""The files of a result are parsed strictly: a damaged one is named in one sentence."""

import numpy as np
import pytest
from tests.support.results import probabilities, result_files, results

from emotion_detection.errors import DataError
from emotion_detection.reporting.results import Origin, Results, read_results

CLASS_HEAD = b"split,emotion,support,precision,recall,recall_low,recall_high,f1\n"


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
        ("metrics.json", b'{"val_accuracy": ' + b"9" * 400 + b"}"),
        ("metrics.json", b'{"val_accuracy": null}'),
        ("metrics.json", b'{"val_accuracy": [1]}'),
        ("metrics.json", b'{"val_accuracy": NaN}'),
        ("metrics.json", b"[" * 100_000),
        ("classes.csv", CLASS_HEAD + b"val,sad,-1,0,0,0,0,0\n"),
        ("classes.csv", CLASS_HEAD + b"val,sad," + b"9" * 400 + b",0,0,0,0,0\n"),
        ("classes.csv", CLASS_HEAD + b"val,sad,1,inf,0,0,0,0\n"),
        ("classes.csv", CLASS_HEAD + b"val,sad,1,0\n"),
        ("history.csv", b"epoch,loss\nnan,1\n"),
        ("history.csv", b"epoch,loss\ninf,1\n"),
        ("history.csv", b"epoch,loss\n1,1,1\n"),
        ("data_report.json", b"[]"),
        ("data_report.json", b"null"),
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


def test_class_has_known_columns_only():
    content = CLASS_HEAD.replace(b"f1", b"f1,note") + b'val,sad," 5 ",0.5,nan,0,0,0.25,<b>\n'
    (row,) = read_results(Origin("here", "run"), {"classes.csv": content}.get).classes
    assert list(row.values()) == ["val", "sad", "5", "0.5", "nan", "0.0", "0.0", "0.25"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({"val": 2, "train": 3, "<img>": 4}, {"train": 3, "val": 2}),
        ({"val": "<img>", "train": -1, "test": True}, {}),
        ({"val": 10**400, "test": 1.5}, {}),
        ({"val": [1], "test": None}, {}),
        ([1], {}),
        (None, {}),
        ("train", {}),
    ],
)
def test_faces_of_known_splits_are_counted(rows, expected):
    found = Results(Origin("here", "run"), data={"rows": rows})
    assert list(found.rows.items()) == list(expected.items())


@pytest.mark.parametrize("value", [[1], {"a": 1}, 3, True, None, "", float("nan")])
def test_name_of_the_data_set_is_text(value):
    found = Results(Origin("here", "run"), data={"dataset": value, "digest": value}, tags={"dataset": "faces"})
    assert (found.dataset, found.digest) == ("faces", "")


def test_nan_in_the_data_report_counts_as_nothing():
    found = read_results(Origin("here", "run"), {"data_report.json": b'{"share": NaN}'}.get)
    assert found.data == {"share": None}
