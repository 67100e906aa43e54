"""`make champion`: a killed run goes on, trains nothing twice and completes the graph."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from tests.support.kills import arm
from tests.support.paths import ROOT
from tests.support.project import EPOCHS, Project

from emotion_detection.config import Augment, Distillation, Train, load_params
from emotion_detection.decoding.yaml_text import read_yaml

FOLDER = ROOT / "recipes" / "champion"
PIPELINE = yaml.safe_load((FOLDER / "dvc.yaml").read_text())
STAGES = PIPELINE["stages"]
CODE = next(entry["code"] for entry in PIPELINE["vars"] if isinstance(entry, dict) and "code" in entry)
NARROW = "build/champion/build/teachers/narrow/model.onnx"
TRAININGS = ("narrow", "vgg", "wide", "student")


@pytest.mark.parametrize("stage", CODE)
def test_code_of_a_stage_is_that_of_the_project(stage):
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["deps"]
    assert CODE[stage].split() == [path for path in declared if path.startswith("src/") or path == "requirements.lock"]


@pytest.mark.parametrize("name", TRAININGS)
def test_recipe_is_complete_and_valid(name):
    """So that no result depends on params.yaml."""
    recipe = read_yaml(FOLDER / f"{name}.yaml")["train"]
    assert set(recipe) == set(Train.model_fields)
    assert set(recipe["augment"]) == set(Augment.model_fields)
    assert set(recipe["distillation"]) == set(Distillation.model_fields)
    load_params(ROOT / "params.yaml", [FOLDER / f"{name}.yaml"])


@pytest.mark.parametrize("row", sorted((FOLDER / "rows").glob("*.yaml")), ids=lambda path: path.stem)
def test_row_of_the_ablation_fits_the_student(row):
    load_params(ROOT / "params.yaml", [FOLDER / "student.yaml", row])


@pytest.mark.parametrize("folder", [FOLDER, FOLDER / "sample"], ids=lambda path: path.name)
def test_student_learns_from_the_teachers_of_the_pipeline(folder):
    names = read_yaml(folder / "params.yaml")
    teachers = read_yaml(folder / "student.yaml")["train"]["distillation"]["teachers"]
    assert names["teacher_models"].split() == teachers
    assert teachers == [f"{names['here']}/build/teachers/{name}/model.onnx" for name in names["teachers"]]
    assert "build/teachers" in STAGES["student"]["deps"]


def prepare_copy(folder: Path, store: Path) -> Project:
    """A copy of the project whose champion has one teacher and the smallest networks."""
    project = Project(folder, store)
    sample = folder / "recipes" / "champion" / "sample"
    files = {name: yaml.safe_load((sample / f"{name}.yaml").read_text()) for name in ("params", "teacher", "student")}
    files["params"] |= {"teachers": ["narrow"], "teacher_models": NARROW}
    for name in ("teacher", "student"):
        files[name]["train"] |= {"widths": [4], "blocks": [1]}  # tracing a network takes longer than training it
    files["student"]["train"]["distillation"]["teachers"] = [NARROW]
    for name, content in files.items():
        (sample / f"{name}.yaml").write_text(yaml.safe_dump(content))
    (folder / ".venv").mkdir()
    (folder / ".venv" / "installed").write_text(f"{folder.resolve()}\n")  # make runs the commands of this environment
    for name in ("MAKEFLAGS", "MAKELEVEL", "SAMPLE"):  # the tests may run in a make of their own
        project.env.pop(name, None)
    arm(project)
    project.commit("one teacher")
    return project


def make(project: Project, *, fails: bool = False) -> str:
    return project.run("make", "champion", "SAMPLE=1", fails=fails)


@pytest.mark.timeout(1200)  # on a slow machine while other tests run
def test_killed_champion_goes_on_and_trains_nothing_twice(tmp_path, migrated_store):
    project = prepare_copy(tmp_path, migrated_store)
    project.env |= {"KILL_AT": "os.rename epoch-0002 1", "SHELL": "/bin/sh"}  # the first teacher, in the middle
    build = project.folder / "build" / "champion" / "build"
    for left in (build.parent / "data" / "half.zip", build / "teachers" / "removed" / "model.onnx"):
        left.parent.mkdir(parents=True)  # of a killed import, and of an earlier teacher
        left.touch()
    output = make(project, fails=True)
    assert "exited with -9" in output, output  # not 137: no shell is between DVC and the training
    assert [path.name for path in build.glob("checkpoints/*/epoch-*")] == ["epoch-0001"]
    del project.env["KILL_AT"]
    make(project)

    assert len(list(build.glob("checkpoints/*"))) == 1  # the student's: DVC has recorded the teacher
    check_runs(project)
    check_graph(project.folder / "build" / "champion")
    stale = json.loads(project.run("sh", "-c", "cd build/champion && dvc status --json 2>/dev/null"))
    assert set(stale) == {f"code@{stage}" for stage in CODE}  # they always run
    assert "champion" not in project.run("dvc", "status")
    assert project.run("git", "status", "--porcelain") == ""


def check_runs(project: Project) -> None:
    """There is one run for each training, with each epoch once, and the candidate is the student's."""
    runs = {run.data.params["train.distillation.weight"]: run for run in project.runs()}
    assert sorted(runs) == ["0.0", "0.8"]
    assert len(project.runs()) == 2
    for run in runs.values():
        assert run.info.status == "FINISHED"
        steps = Counter(metric.step for metric in project.client.get_metric_history(run.info.run_id, "val_loss"))
        assert steps == Counter(range(1, EPOCHS + 1))
    build = project.folder / "build" / "champion" / "build"
    for folder in ("model", "candidate"):
        run_of = json.loads((build / folder / "run.json").read_text())["run_id"]
        assert run_of == runs["0.8"].info.run_id


def check_graph(folder: Path) -> None:
    """All stages are recorded, with the digests of what they made."""
    (labels,) = (folder / "build" / "soft_labels").iterdir()
    assert labels.suffix == ".npz"
    lock = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    names = {name for name in STAGES if name not in ("code", "teacher")}
    assert set(lock) == names | {"teacher@narrow", *(f"code@{stage}" for stage in CODE)}
    assert all(out["md5"] for stage in lock.values() for out in stage["outs"])
