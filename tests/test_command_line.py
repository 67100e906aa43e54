"""A function as a command: flags from its signature, one line for each mistake."""

import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cyclopts import Parameter

from emotion_detection.command_line import run_command
from emotion_detection.errors import DataError


@Parameter(name="*")
@dataclass(frozen=True)
class Paths:
    faces: Path
    data_report: Path


def stage(paths: Paths, *, workers: int = 1) -> None:
    logging.getLogger("emotion_detection.some.module").info("%d workers", workers)
    print(paths.faces, paths.data_report)


def fail(source: str) -> None:
    raise DataError(f"{source} is empty")


def test_fields_of_a_dataclass_are_flags(capsys):
    run_command(stage, ["--faces", "f.npz", "--data-report", "r.json", "--workers", "2"])
    assert capsys.readouterr() == ("f.npz r.json\n", "2 workers\n")


def test_log_handler_is_removed_after_the_command(capsys):
    for _ in range(2):
        run_command(stage, ["--faces", "f.npz", "--data-report", "r.json"])
    assert capsys.readouterr().err == "1 workers\n1 workers\n"
    assert not logging.getLogger("emotion_detection").handlers


@pytest.mark.parametrize(
    "arguments",
    [
        ["--faces", "f.npz"],
        ["--faces", "f.npz", "--data-report", "r.json", "--unknown", "1"],
        ["--faces", "f.npz", "--data-report", "r.json", "--workers", "two"],
    ],
)
def test_wrong_flag_is_one_line_with_status_2(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        run_command(stage, arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("(--help lists the options)")


def test_users_mistake_is_one_line_with_status_1(capsys):
    with pytest.raises(SystemExit) as end:
        run_command(fail, ["data.csv"])
    assert end.value.code == 1
    assert capsys.readouterr().err == "error: data.csv is empty\n"


# A stage, which prints how it ends, and DVC as its parent.
STAGE = """
import os, signal, sys, time
from emotion_detection import command_line

def stage():
    try:
        print("started", flush=True)
        time.sleep(60)
    except KeyboardInterrupt as error:
        print(type(error).__name__, error, flush=True)
        raise

command_line.POLL_S = 0.05
command_line.run_command(stage, [])
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


@pytest.mark.parametrize("whom", ["stage", "dvc"])
def test_stage_ends_on_sigterm_and_with_dvc(whom):
    command = [sys.executable, "-c", STAGE] if whom == "stage" else [sys.executable, "-c", PARENT, STAGE]
    environment = os.environ | {"DVC_STAGE": "train"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "started\n"
        run.send_signal(signal.SIGTERM if whom == "stage" else signal.SIGKILL)
        printed = run.stdout.read()  # until the stage, which has the stream too, has ended
    assert printed == "TerminatedError SIGTERM\n\nterminated; repeat the command to continue\n"
    assert run.returncode == (143 if whom == "stage" else -signal.SIGKILL)
