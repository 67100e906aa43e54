"""A function as a command: flags from its signature, one line for each mistake."""

import logging
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
