"""The files around the code (dvc.yaml, MLproject, Makefile, lock, README, ...) agree with the code."""

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
SEARCH = "tune"  # not a stage of the pipeline: a person adopts its result
OUTS = {stage: set(declared["outs"]) for stage, declared in STAGES.items()}
# Inputs of a stage that are not in `deps`: DVC tracks params.yaml by its keys, and data.dvc through data. dvc.yaml only
# identifies a checkpoint, and a checkpoint changes only the time that training takes.
NO_DEPENDENCY = {"params.yaml", "dvc.yaml", "data.dvc", "build/checkpoints"}
# Code under src/emotion_detection/ that cannot change the result of a stage; dvc.yaml states the reason.
CANNOT_CHANGE_A_RESULT = {
    "arrays.py",
    "atomic.py",
    "command_line.py",
    "config.py",
    "errors.py",
    "experiments",
    "plotting",
    "redaction.py",
    # They accept a file unchanged or refuse it, except for the decoder of images.
    *(f"decoding/{path.name}" for path in (PACKAGE / "decoding").glob("*.py") if path.stem != "images"),
}

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text().splitlines()
LOCKED = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[0-9][a-z0-9.+]*)( ; .+)?")

README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
DOCUMENTS = (README, CONTRIBUTING)
MARKDOWN = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
# Commands in README.md that .ci/run does not run, with the test file that runs them.
RUN_BY_TESTS = {
    "make champion SAMPLE=1": "end_to_end/test_champion.py",
    "emotion-detection lineage models:/emotion-detection-sample@champion": "end_to_end/test_pipeline.py",
    "emotion-detection reproduce models:/emotion-detection-sample/1": "end_to_end/test_pipeline.py",
    "emotion-detection report workspace narrow --markdown report.md": "end_to_end/test_pipeline.py",
    "emotion-detection card models:/emotion-detection-sample@champion --output card.md": "end_to_end/test_pipeline.py",
    "make data SOURCE=path/to/archive.zip": "commands/test_data.py",
    "make data SOURCE=path/to/fer2013.csv VOTES=path/to/fer2013new.csv": "commands/test_data.py",
    "make data SOURCE=kaggle": "commands/test_data.py",
    "make data SOURCE=huggingface": "commands/test_data.py",
    "make adopt FROM=recipes/fer_resnet_fast.yaml": "commands/test_adopt.py",
    "emotion-detection predict holiday/ --out readings.csv --annotate drawn/": "commands/test_predict.py",
    "emotion-detection batch sample/ --crops --out scores/": "batch/test_batch.py",
    "emotion-detection history": "commands/test_promote.py",
    "emotion-detection sync": "end_to_end/test_dead_server.py",
    "emotion-detection serve": "commands/test_serve.py",
    "emotion-detection predict film.mp4 --out readings.parquet --annotate film.webm --figure timeline.png": (
        "commands/test_predict.py"
    ),
}
RENAMED_TARGETS = {"ship"}  # print the new name and fail
# Commands of README.md that start a server or get the project.
RUN_BY_PEOPLE = {"git clone", "cd", ". .venv/bin/activate", "make demo", "make ui"}


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
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def supported_minors() -> tuple[int, int]:
    """The first supported Python 3.x and the first that is not."""
    lowest, above = re.findall(r"3\.(\d+)", PROJECT["requires-python"])
    return int(lowest), int(above)


def readme_commands() -> list[str]:
    """Lines of README's ```bash blocks, without their comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line]


def is_experiment(line: str) -> bool:
    """Whether tests/end_to_end/test_pipeline.py runs this command of README.md in a copy of the project."""
    return (
        line.startswith(("dvc exp", "dvc queue", "dvc params", "dvc metrics", "dvc plots"))
        or "mlflow run . -e main" in line
    )


# dvc.yaml


@pytest.mark.parametrize("stage", STAGES)
def test_stage_runs_its_module_and_reads_its_params(stage: str):
    assert command(stage)[0] == f"stages.{stage}"
    assert STAGES[stage]["params"] == [stage]


def test_every_section_of_params_belongs_to_a_stage_or_the_search():
    sections = {*STAGES, SEARCH}
    assert set(load_params(ROOT / "params.yaml").model_dump(by_alias=True)) == sections
    assert {field.alias or name for name, field in Params.model_fields.items()} == sections


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_all_code_that_can_change_its_result(stage: str):
    declared = {path.removeprefix("src/emotion_detection/") for path in STAGES[stage]["deps"] if path.startswith("src")}
    # What only the records of a run use cannot change a result.
    reachable = reached(f"stages.{stage}", not_through="experiments")
    files = {modules()[module].relative_to(PACKAGE).as_posix() for module in reachable}
    covered = declared | CANNOT_CHANGE_A_RESULT
    assert [file for file in sorted(files) if not any(f"{file}/".startswith(f"{path}/") for path in covered)] == []
    assert all((PACKAGE / path).exists() for path in covered)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_every_file_that_its_command_names(stage: str):
    files = set(command(stage)[1].values())
    inputs = {path for path in STAGES[stage]["deps"] if not is_code(path)}
    assert inputs == files - OUTS[stage] - NO_DEPENDENCY
    assert files >= OUTS[stage]


@pytest.mark.parametrize("stage", STAGES)
def test_inputs_of_a_stage_are_the_data_or_outputs_of_other_stages(stage: str):
    made = {"data"}.union(*(OUTS[other] for other in STAGES if other != stage))
    assert {path for path in STAGES[stage]["deps"] if not is_code(path)} <= made


@pytest.mark.parametrize("stage", STAGES)
def test_stage_gets_all_required_flags_and_no_unknown_ones(stage: str):
    module, given = command(stage)
    known = known_flags(getattr(import_module(f"emotion_detection.{module}"), stage))
    assert set(given) <= set(known)
    assert {flag for flag, required in known.items() if required} <= set(given)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_only_dvc_yaml_contains_paths_of_data(path: Path):
    paths = {value for stage in STAGES for value in command(stage)[1].values() if value.startswith("build/")}
    assert {value for value in paths if value in path.read_text()} == set()


# MLproject


def test_mlproject_has_an_entry_for_the_pipeline_and_for_each_stage():
    entries = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    assert set(entries) == {"main", SEARCH, *STAGES}
    for name in STAGES:
        assert entries[name]["command"] == f"dvc repro {name}"
    assert entries["main"]["command"] == "dvc repro"


def test_mlproject_and_makefile_run_the_same_search():
    command = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"][SEARCH]["command"]
    recipe = re.sub(r"\\\n\s*", "", (ROOT / "Makefile").read_text().split("\ntune:")[1].split("\n\n")[0])
    assert command.removeprefix("dvc repro prepare && ") in recipe
    flags = set(re.findall(r"--[a-z-]+", command))
    known = known_flags(tune)
    assert {flag for flag, required in known.items() if required} <= flags <= set(known)


def test_every_parameter_of_mlproject_is_used():
    for entry in yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"].values():
        assert all(f"{{{parameter}}}" in entry["command"] for parameter in entry.get("parameters", {}))


# Makefile, README, CONTRIBUTING


def test_every_target_has_a_description():
    text = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert set(re.findall(r"^([a-z-]+):.* ## ", text, re.MULTILINE)) == makefile_targets() - RENAMED_TARGETS
    assert makefile_targets() == set(phony.split())


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "params.yaml", *modules().values()], ids=lambda path: path.name)
def test_every_mentioned_target_exists(path: Path):
    mentioned = re.findall(r"(?:^\s*|`|: )make (?!the )([a-z-]+)", path.read_text(), re.MULTILINE)
    assert set(mentioned) <= makefile_targets()


def test_every_command_of_the_readme_is_run_by_ci_or_a_test():
    run_by_ci = {line.strip().removeprefix("step ") for line in (ROOT / ".ci" / "run").read_text().splitlines()}
    assert readme_commands()
    for line in readme_commands():
        people = any(line == command or line.startswith(f"{command} ") for command in RUN_BY_PEOPLE)
        assert people or line in run_by_ci or line in RUN_BY_TESTS or is_experiment(line), f"`{line}` is never run"
    assert all((ROOT / "tests" / name).exists() for name in RUN_BY_TESTS.values())


def test_contributing_lists_every_module_once():
    blocks = re.findall(
        r"^```text\nsrc/emotion_detection/\n(.*?)^```", CONTRIBUTING.read_text(), re.MULTILINE | re.DOTALL
    )
    package, listed, packages = "", [], []
    for line in "".join(blocks).splitlines():
        names, _, comment = line.partition("#")
        indented = line.startswith("    ")
        if names.strip().endswith("/"):
            package = f"{names.strip().rstrip('/')}."
            packages.append(package)
        assert bool(comment.strip()) != indented, f"a package and a line of the top level have a comment: {line}"
        listed += [f"{package if indented else ''}{name}" for name in names.split() if not name.endswith("/")]
    folders = [f"{path.name}." for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert sorted(listed) == sorted(modules())
    assert sorted(packages) == sorted(folders)


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_of_a_document_have_targets(path: Path):
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if not link.startswith("http"):
            name, _, anchor = link.partition("#")
            target = path.parent / name if name else path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_experiments_have_one_form_and_are_in_the_index():
    index, *entries = re.split(r"^## (?=20)", (ROOT / "EXPERIMENTS.md").read_text(), flags=re.MULTILINE)
    rows = re.findall(r"^\| (\d{4}-\d\d-\d\d) \| \[.*?\]\(#(.*?)\) \|.*\| (.*?) \|$", index, re.MULTILINE)
    assert len(rows) == len(entries)
    for (date, anchor, run), entry in zip(rows, entries, strict=True):
        assert anchor.startswith(date)
        assert entry.startswith(f"{date}: ")
        assert re.findall(r"^### (.*)$", entry, re.MULTILINE) == ["Hypothesis", "Change", "Result", "Verdict", "Next"]
        assert run == "–" or run in entry


def test_workflow_and_hooks_run_the_makefile_targets():
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"].values()
    steps = [step["run"] for step in job["steps"] if step.get("run", "").startswith("make ")]
    typed = (ROOT / ".ci" / "run").read_text()
    assert steps == ["make setup", "make check", "make repro", "make test"]
    assert all(step in typed for step in steps)
    assert {f"3.{minor}" for minor in range(*supported_minors())} == set(job["strategy"]["matrix"]["python"])
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = {hook["entry"].removeprefix(".venv/bin/") for hook in repository["hooks"]}
    recipe = (ROOT / "Makefile").read_text().split("\ncheck:")[1].split("\n\n")[0]
    assert hooks == set(re.findall(r"^\t@(.*)$", recipe, re.MULTILINE))


def test_ci_script_is_executable():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


# pyproject.toml and requirements.lock


def test_lock_contains_only_names_and_versions():
    assert [line for line in LOCK if not LOCKED.fullmatch(line)] == []


def test_lock_satisfies_the_project():
    unlocked = ("ray", "spark")  # for clusters only
    extras = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name not in unlocked}
    optional = (line for lines in extras.values() for line in lines)
    locked = [LOCKED.fullmatch(line) for line in LOCK]
    for wanted in map(Requirement, [*PROJECT["dependencies"], *optional]):
        name = canonicalize_name(wanted.name)
        versions = [match["version"] for match in locked if match and match["name"] == name]
        assert versions, f"{name} is not in requirements.lock: make lock"
        assert all(wanted.specifier.contains(version) for version in versions), f"{name} {versions}: make lock"


def test_makefile_and_project_require_the_same_python():
    lowest, above = supported_minors()
    assert f"(3, {lowest}) <= sys.version_info < (3, {above})" in (ROOT / "Makefile").read_text()
    assert f"--python-version 3.{lowest} " in (ROOT / "Makefile").read_text()
    assert SpecifierSet(PROJECT["requires-python"]).contains(".".join(map(str, sys.version_info[:3])))


def test_changelog_and_citation_have_this_version():
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == PROJECT["version"]
