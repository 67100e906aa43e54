"""The `emotion-detection` command: its subcommands, their help, and what importing them costs."""

import subprocess
import sys

import pytest

from emotion_detection import cli

COMMANDS = (
    "predict",
    "data",
    "adopt",
    "tune",
    "soft-labels",
    "release",
    "compare",
    "ui",
    "serve",
    "seed-registry",
    "draw-sample",
)


def test_help_names_every_subcommand(capsys):
    cli.main(["--help"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_subcommand_and_its_options_are_explained(capsys, command):
    cli.main([command, "--help"])
    usage, summary, *rows = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"Usage: emotion-detection {command}")
    assert summary.strip().endswith(".")
    options = [line for line in "".join(rows).splitlines() if line.startswith("│") and "--" in line]
    assert all(len(line.strip("│ ").split()) > 2 for line in options)


def test_unknown_subcommand_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["pedict"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pedict" in line


def test_version_is_the_package_version(capsys):
    cli.main(["--version"])
    import emotion_detection

    assert capsys.readouterr().out.strip() == emotion_detection.__version__


def test_subcommands_are_imported_on_use():
    code = "import sys, emotion_detection.cli; print([name for name in sys.modules if name.startswith('emotion_')])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "emotion_detection.commands" not in printed
