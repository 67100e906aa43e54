"""End a stage of a project's copy as kill -9 does, at a chosen place, and check that nothing was lost or doubled."""

import re
from collections import Counter
from pathlib import Path

from tests.support.project import NAME, Project

# src/sitecustomize.py of the copy, because the stages run with PYTHONPATH=src. It ends the process at the COUNT-th
# audit event EVENT whose first two arguments contain TEXT, or when the process of the stage TEXT exits.
HOOK = """
import atexit, os, signal, sys
event, _, rest = os.environ.get("KILL_AT", "").partition(" ")
text, _, count = rest.rpartition(" ")
left = [int(count or 0)]
def watch(name, arguments):
    if name == event and text in " ".join(map(str, arguments[:2])):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
command = " ".join(sys.orig_argv)
if event == "exit" and text in command:
    atexit.register(os.kill, os.getpid(), signal.SIGKILL)
elif event and "emotion_detection.stages" in command:
    sys.addaudithook(watch)
"""
# Where to end a stage: event, text, number of the event.
AIMED = {
    "prepare, before its faces": "os.rename faces.npz 1",
    "prepare, before its report": "os.rename data_report.json 1",
    "train, in its first checkpoint": "open history.json 1",
    "train, before a checkpoint has its name": "os.rename epoch-0002 1",
    "train, before the model has its name": "os.rename build/model 1",
    "train, while the checkpoint is removed": "shutil.rmtree build/checkpoints/ 1",
    "train, just after its end": "exit stages.train 1",
    "evaluate, before the report has its name": "os.rename build/report 1",
    "evaluate, while the report is logged": "open mlruns 1",
    "register, in log_model": "open MLmodel 1",
    "register, before the alias": "open seed.lock 2",
    "register, after the version and the alias": "open registered.json 1",
}


def arm(project: Project) -> None:
    """Let the stages of the project end where the variable KILL_AT says."""
    (project.folder / "src" / "sitecustomize.py").write_text(HOOK)


def killed_at(project: Project, name: str) -> str:
    """Run `dvc repro`, which ends at this place of AIMED; returns what happened."""
    project.env["KILL_AT"] = AIMED[name]
    process = project.start("dvc", "repro")
    output = process.communicate()[0]
    del project.env["KILL_AT"]
    return (
        f"killed in {name}" if re.search("exited with (-9|137)", output) else f"{name}: not reached, {output[-200:]!r}"
    )


def faults(project: Project, *, known: set[str], epochs: int) -> list[str]:
    """What is wrong after the command was repeated and has succeeded; `known` are the runs from before it."""
    client = project.client
    new = [run for run in project.runs() if run.info.run_id not in known]
    found = [f"{len(new)} new runs instead of 1"] if len(new) != 1 else []
    found += [f"run {run.info.run_name} is {run.info.status}" for run in new if run.info.status != "FINISHED"]
    for run in new:
        steps = Counter(metric.step for metric in client.get_metric_history(run.info.run_id, "val_loss"))
        found += [f"epochs {dict(steps)}"] if steps != Counter(range(1, epochs + 1)) else []
        versions = [one for one in client.search_model_versions(f"name = '{NAME}'") if one.run_id == run.info.run_id]
        found += [f"{len(versions)} versions instead of 1"] if len(versions) != 1 else []
    aliases = client.get_registered_model(NAME).aliases
    found += [] if "champion" in aliases else ["there is no champion"]
    found += [f"stages are out of date: {stale}"] if (stale := project.stale()) else []
    return found + _leftovers(project.folder) + _pending(project)


def _leftovers(folder: Path) -> list[str]:
    """Unfinished outputs and checkpoints that nothing will remove."""
    names = [path for path in folder.rglob("*unfinished*") if ".git" not in path.parts and ".dvc" not in path.parts]
    checkpoints = (folder / "build" / "checkpoints").glob("*")
    unfinished = [path for path in checkpoints if not (path / "finished").exists()]  # the next training removes it
    return [f"left: {path.relative_to(folder)}" for path in (*names, *unfinished)]


def _pending(project: Project) -> list[str]:
    experiments = [experiment.experiment_id for experiment in project.client.search_experiments()]
    logged = project.client.search_logged_models(experiment_ids=experiments)
    return [f"logged model {one.model_id} is {one.status}" for one in logged if one.status != "READY"]
