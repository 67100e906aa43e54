"""Every error is one line without a traceback: status 1 if a user can fix it, 70 for a bug."""

import errno
import inspect
import subprocess
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


def reported(capsys, error):
    """The line and the status of an error."""
    with pytest.raises(SystemExit) as end, report_errors():
        raise error
    out, line = capsys.readouterr()
    assert out == ""
    assert line.count("\n") == 1
    assert "Traceback" not in line
    return line.strip(), end.value.code


def test_bug_is_one_line_with_its_place_and_status_70(capsys):
    line, status = reported(capsys, ZeroDivisionError("1 / 0"))
    assert line.startswith("error: unexpected ZeroDivisionError in test_errors.py, line ")
    assert line.endswith("repeat the command with EMOTION_DETECTION_DEBUG=1 to see where and report it")
    assert status == 70


@pytest.mark.parametrize("error", [ZeroDivisionError(), DataError("wrong"), OSError(errno.ENOSPC, "full")])
def test_traceback_is_printed_on_demand(capsys, monkeypatch, error):
    monkeypatch.setenv("EMOTION_DETECTION_DEBUG", "1")
    with pytest.raises(SystemExit), report_errors():
        raise error
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "build/model"),
            "build/model cannot be written (No space left on device): free some space, then repeat the command",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            "a file cannot be written (Disk quota exceeded): free some space, then repeat the command",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "build"),
            "build cannot be used (Permission denied): change its permissions or choose another place, "
            "then repeat the command",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "build"),
            "build cannot be used (Read-only file system): change its permissions or choose another place, "
            "then repeat the command",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "build/faces.npz"),
            "build/faces.npz cannot be used (No such file or directory): check the path, then repeat the command",
        ),
        (
            OSError(errno.EXDEV, "Invalid link", "a", None, "b"),
            "b cannot be used (Invalid link): check the path, then repeat the command",
        ),
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
            "a server does not respond (Connection refused): check its address, then repeat the command",
        ),
        (MemoryError(), "there is not enough memory: close other programs, or use smaller settings or files"),
        (RecursionError("maximum recursion depth"), "the input is nested too deeply: use a simpler file"),
        (
            RuntimeError("Unable to write (errno = 28, error message = 'No space left on device')"),
            "a file cannot be written (No space left on device): free some space, then repeat the command",
        ),
    ],
)
def test_problem_of_the_machine_is_one_sentence_with_status_1(capsys, error, expected):
    assert reported(capsys, error) == (f"error: {expected}", 1)


def test_full_disk_behind_the_error_of_a_library_is_named(capsys):
    error = RuntimeError("h5py failed")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "state.h5")
    line, status = reported(capsys, error)
    assert line.startswith("error: state.h5 cannot be written (No space left on device)")
    assert status == 1


def test_message_with_foreign_text_is_one_short_line(capsys):
    line, _ = reported(capsys, DataError("bad\n\x1b[31mred" + 10**6 * "x"))
    assert line.startswith("error: bad [31mredxxx")
    assert len(line) < 1600


def test_closed_pipe_is_silent():
    program = (
        "from emotion_detection.errors import report_errors\nwith report_errors():\n    while True: print('x' * 99)"
    )
    command = f'{sys.executable} -c "{program}" | head -n 1; echo ${{PIPESTATUS[0]}}'
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[1:] == ["141"]
    assert finished.stderr == ""


def test_package_that_is_not_installed_is_one_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow.onnx", None)
    with pytest.raises(SystemExit) as end, report_errors():
        import mlflow.onnx  # noqa: F401
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith("error: mlflow is not installed: install the extra train")


def test_import_error_of_the_package_itself_is_a_bug(capsys):
    with pytest.raises(SystemExit) as end, report_errors():
        from emotion_detection import nothing  # noqa: F401
    assert end.value.code == 70
    assert "cannot import name" in capsys.readouterr().err


def test_success_prints_nothing(capsys):
    with report_errors():
        pass
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_prints_no_traceback(capsys):
    with pytest.raises(SystemExit) as end, report_errors():
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert capsys.readouterr().err.strip() == "interrupted; repeat the command to continue"
