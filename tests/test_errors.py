"""An error that a user can fix is one line and status 1; a bug keeps its traceback."""

import inspect
import sys

import pytest

from emotion_detection import errors
from emotion_detection.errors import DataError, EmotionDetectionError, report_errors


def test_error_is_one_line_on_stderr(capsys):
    with pytest.raises(SystemExit) as end, report_errors():
        raise DataError("build/faces.npz does not exist: run `dvc repro prepare`")
    assert end.value.code == 1
    assert capsys.readouterr() == ("", "error: build/faces.npz does not exist: run `dvc repro prepare`\n")


def test_every_error_class_has_the_same_base():
    classes = [member for _, member in inspect.getmembers(errors, inspect.isclass) if issubclass(member, Exception)]
    assert len(classes) >= 8
    assert all(issubclass(member, EmotionDetectionError) for member in classes)


def test_bug_keeps_its_traceback(capsys):
    with pytest.raises(ZeroDivisionError), report_errors():
        raise ZeroDivisionError
    assert capsys.readouterr() == ("", "")


def test_package_that_is_not_installed_is_one_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow.onnx", None)
    with pytest.raises(SystemExit) as end, report_errors():
        import mlflow.onnx  # noqa: F401
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith("error: mlflow is not installed: install the extra train")


def test_import_error_of_the_package_itself_is_a_bug():
    with pytest.raises(ImportError, match="cannot import name"), report_errors():
        from emotion_detection import nothing  # noqa: F401


def test_success_prints_nothing(capsys):
    with report_errors():
        pass
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_prints_no_traceback(capsys):
    with pytest.raises(SystemExit) as end, report_errors():
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert capsys.readouterr().err.strip() == "interrupted; repeat the command to continue"
