"""A virtual environment that came from another folder is made again."""

import os
import shutil
import subprocess

import pytest
from tests.support.paths import ROOT


@pytest.fixture
def project(tmp_path):
    """A folder with the Makefile and an environment that is newer than what it depends on."""
    folder = tmp_path / "a project"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
        os.utime(folder / name, (0, 0))
    return folder


def commands(folder, target):
    """What `make` would run. The tests may run in a make of their own, whose settings must not count."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "-n", target]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_own_environment_is_kept(project):
    (project / ".venv" / "installed").write_text(f"{project}\n")
    printed = commands(project, "repro")
    assert "--editable ." not in printed
    assert "\ndvc repro\n" in printed


@pytest.mark.parametrize("content", ["", "/elsewhere/project\n"])
def test_environment_of_another_folder_is_installed_again(project, content):
    (project / ".venv" / "installed").write_text(content)
    printed = commands(project, "repro")
    assert "--editable ." in printed
    assert "\ndvc repro\n" in printed


@pytest.mark.parametrize(("place", "kept"), [("here", True), ("/elsewhere/project/.venv", False)])
def test_scripts_of_another_folder_are_removed(project, place, kept):
    """Runs the line of the recipe that decides."""
    activate = project / ".venv" / "bin" / "activate"
    activate.write_text(f"VIRTUAL_ENV='{project / '.venv' if place == 'here' else place}'\n")
    line = next(line for line in commands(project, "setup").splitlines() if "bin/activate" in line)
    subprocess.run(["sh", "-c", line], cwd=project, check=True)
    assert activate.exists() == kept
