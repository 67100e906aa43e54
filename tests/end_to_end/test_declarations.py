"""What is declared beside the code (dvc.yaml, MLproject, Makefile, lock, README) is what the code does."""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from tests.support.imports import modules, reached
from tests.support.paths import PACKAGE, ROOT

from emotion_detection.commands.tune import tune
from emotion_detection.config import Params, load_params

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
SEARCH = "tune"  # no stage of the pipeline: what it finds is adopted by a person
OUTS = {stage: set(declared["outs"]) for stage, declared in STAGES.items()}
# What a stage reads though it is no `deps`: DVC knows params.yaml by its keys and data.dvc by data; an unfinished
# training in build/checkpoints decides nothing but the time.
NO_DEPENDENCY = {"params.yaml", "dvc.yaml", "data.dvc", "build/checkpoints"}
# Code of which no stage's result depends, under src/emotion_detection/: dvc.yaml says why.
CANNOT_CHANGE_A_RESULT = {"errors.py", "atomic.py", "command_line.py", "config.py", "experiments", "plotting"}

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text().splitlines()
LOCKED = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[0-9][a-z0-9.+]*)( ; .+)?")

README = ROOT / "README.md"
DOCUMENTS = [path for path in (README, ROOT / "CONTRIBUTING.md") if path.exists()]
# Commands in README.md that .ci/run does not type -> the file of tests that runs them.
RUN_BY_TESTS = {
    "make data SOURCE=path/to/archive.zip": "commands/test_data.py",
    "make data SOURCE=kaggle": "commands/test_data.py",
    "make data SOURCE=huggingface": "commands/test_data.py",
    "make adopt FROM=recipes/fer_resnet.yaml": "commands/test_adopt.py",
    "python -m emotion_detection.predict holiday/ --out readings.csv --annotate drawn/": "commands/test_predict.py",
    "python -m emotion_detection.predict film.mp4 --out readings.parquet --annotate film.webm --figure timeline.png": (
        "commands/test_predict.py"
    ),
}
# Commands of README.md that only a person can judge, or that bring the project here in the first place.
RUN_BY_PEOPLE = {"git clone", "cd", "make demo", "make ui"}


def is_code(dependency: str) -> bool:
    return dependency.startswith("src/") or dependency == "requirements.lock"


@cache
def command(stage: str) -> tuple[str, dict[str, str]]:
    """The module that a stage runs, and its flags with their values."""
    module, *words = STAGES[stage]["cmd"].removeprefix("PYTHONPATH=src python -m emotion_detection.").split()
    assert len(words) % 2 == 0, f"{stage}: every flag has one value"
    return module, dict(zip(words[::2], words[1::2], strict=True))


def known_flags(function: Callable[..., Any]) -> dict[str, bool]:
    """The flags of a command, and whether each is required."""
    (parameters,) = (get_type_hints(function)[name] for name in signature(function).parameters)
    return {f"--{field.name.replace('_', '-')}": field.default is MISSING for field in fields(parameters)}


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def readme_commands() -> list[str]:
    """Lines of README's ```bash blocks, without their comments."""
    if not README.exists():
        return []
    blocks = re.findall(r"^```bash\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line]


# dvc.yaml


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_the_module_of_its_name_and_reads_the_params_of_its_name(stage: str):
    assert command(stage)[0] == f"stages.{stage}"
    assert STAGES[stage]["params"] == [stage]


def test_every_section_of_params_has_a_stage_or_is_the_search():
    sections = {*STAGES, SEARCH}
    assert set(load_params(ROOT / "params.yaml").model_dump(by_alias=True)) == sections
    assert {field.alias or name for name, field in Params.model_fields.items()} == sections


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_all_code_that_can_change_its_result(stage: str):
    declared = {path.removeprefix("src/emotion_detection/") for path in STAGES[stage]["deps"] if path.startswith("src")}
    files = {modules()[module].relative_to(PACKAGE).as_posix() for module in reached(f"stages.{stage}")}
    covered = declared | CANNOT_CHANGE_A_RESULT
    assert [file for file in sorted(files) if not any(f"{file}/".startswith(f"{path}/") for path in covered)] == []
    assert all((PACKAGE / path).exists() for path in covered)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_file_it_is_told_to_read(stage: str):
    told = set(command(stage)[1].values())
    data = {path for path in STAGES[stage]["deps"] if not is_code(path)}
    assert data == told - OUTS[stage] - NO_DEPENDENCY
    assert told >= OUTS[stage]


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_reads_is_the_data_or_made_by_another_stage(stage: str):
    made = {"data"}.union(*(OUTS[other] for other in STAGES if other != stage))
    assert {path for path in STAGES[stage]["deps"] if not is_code(path)} <= made


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_given_flags_that_it_knows_and_all_that_it_needs(stage: str):
    module, given = command(stage)
    known = known_flags(getattr(import_module(f"emotion_detection.{module}"), stage))
    assert set(given) <= set(known)
    assert {flag for flag, required in known.items() if required} <= set(given)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_paths_of_data_are_written_in_dvc_yaml_alone(path: Path):
    paths = {value for stage in STAGES for value in command(stage)[1].values() if value.startswith("build/")}
    assert {value for value in paths if value in path.read_text()} == set()


# MLproject


def test_mlproject_has_an_entry_for_the_whole_and_for_each_stage():
    entries = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    assert set(entries) == {"main", SEARCH, *STAGES}
    for name in STAGES:
        assert entries[name]["command"] == f"dvc repro {name}"
    assert entries["main"]["command"] == "dvc repro"


def test_mlproject_and_the_makefile_search_alike():
    command = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"][SEARCH]["command"]
    recipe = re.sub(r"\\\n\s*", "", (ROOT / "Makefile").read_text().split("\ntune:")[1].split("\n\n")[0])
    assert command.removeprefix("dvc repro prepare && ") in recipe
    flags = set(re.findall(r"--[a-z-]+", command))
    known = known_flags(tune)
    assert {flag for flag, required in known.items() if required} <= flags <= set(known)


def test_every_parameter_of_mlproject_is_passed_on():
    for entry in yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"].values():
        assert all(f"{{{parameter}}}" in entry["command"] for parameter in entry.get("parameters", {}))


# Makefile, README, CONTRIBUTING


def test_every_target_tells_what_it_does():
    text = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert set(re.findall(r"^([a-z]+):.* ## ", text, re.MULTILINE)) == makefile_targets() == set(phony.split())


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "params.yaml", *modules().values()], ids=lambda path: path.name)
def test_every_target_that_is_spoken_of_exists(path: Path):
    spoken = re.findall(r"(?:^\s*|`|: )make ([a-z]+)", path.read_text(), re.MULTILINE)
    assert set(spoken) <= makefile_targets()


@pytest.mark.skipif(not README.exists(), reason="README.md is not written yet")
def test_every_command_of_the_readme_is_run_by_somebody():
    typed = {line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()}
    assert readme_commands()
    for line in readme_commands():
        people = any(line == told or line.startswith(f"{told} ") for told in RUN_BY_PEOPLE)
        assert people or line in typed or line in RUN_BY_TESTS, f"nobody has tried `{line}`"
    assert all((ROOT / "tests" / name).exists() for name in RUN_BY_TESTS.values())


def test_what_people_execute_is_executable():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


# pyproject.toml and requirements.lock


def test_the_lock_holds_names_and_versions_only():
    assert [line for line in LOCK if not LOCKED.fullmatch(line)] == []


def test_the_lock_satisfies_the_project():
    optional = (line for lines in PROJECT["optional-dependencies"].values() for line in lines)
    locked = [LOCKED.fullmatch(line) for line in LOCK]
    for wanted in map(Requirement, [*PROJECT["dependencies"], *optional]):
        name = canonicalize_name(wanted.name)
        versions = [found["version"] for found in locked if found and found["name"] == name]
        assert versions, f"{name} is not in requirements.lock: make lock"
        assert all(wanted.specifier.contains(version) for version in versions), f"{name} {versions}: make lock"


def test_the_makefile_asks_for_the_python_that_the_project_asks_for():
    lowest, above = re.findall(r"3\.(\d+)", PROJECT["requires-python"])
    assert f"(3, {lowest}) <= sys.version_info < (3, {above})" in (ROOT / "Makefile").read_text()
    assert f"--python-version 3.{lowest} " in (ROOT / "Makefile").read_text()
    assert SpecifierSet(PROJECT["requires-python"]).contains(".".join(map(str, sys.version_info[:3])))


def test_the_changelog_tells_of_this_version():
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()
