"""A mendable error is one line and status 1; any other keeps its traceback."""

import pytest

from emotion_detection.errors import InputError, report_errors


def test_an_input_error_is_one_line_on_stderr(capsys):
    with pytest.raises(SystemExit) as end, report_errors():
        raise InputError("build/faces.npz does not exist: run prepare")
    assert end.value.code == 1
    assert capsys.readouterr() == ("", "error: build/faces.npz does not exist: run prepare\n")


def test_any_other_error_passes(capsys):
    with pytest.raises(ZeroDivisionError), report_errors():
        raise ZeroDivisionError
    assert capsys.readouterr() == ("", "")


def test_success_is_silent(capsys):
    with report_errors():
        pass
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_is_no_traceback(capsys):
    with pytest.raises(SystemExit) as end, report_errors():
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert capsys.readouterr().err.strip() == "interrupted; the same command goes on where this one stopped"
