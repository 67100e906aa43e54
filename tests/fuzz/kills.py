"""`python -m tests.fuzz.kills`: kill `dvc repro` at chosen places and at random moments, and print what was wrong.

After each series of kills the command is repeated until it succeeds. Then every epoch must be logged once, in one
finished run with one version, a champion must be set, and nothing unfinished may be left.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Annotated

from cyclopts import App, Parameter
from tests.support.kills import AIMED, arm, faults, killed_at
from tests.support.project import Project

EPOCHS = 4
SERIES = 10  # random kills before the command is left alone


def run_kills(
    *,
    moments: Annotated[int, Parameter(help="How many kills at random moments.")] = 50,
    seed: Annotated[int, Parameter(help="Of the random moments.")] = 1,
) -> None:
    """Kill a small pipeline again and again. The exit status is 1 if anything was lost or doubled."""
    random, wrong = Random(seed), []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        project = new_project(Path(folder))
        start_s = time.monotonic()
        wrong += kill_series(project, 1, [partial(killed_at, project, name) for name in AIMED])
        whole_s = (time.monotonic() - start_s) / 3
        for number in range(0, moments, SERIES):
            delays = [random.uniform(0, whole_s) for _ in range(min(SERIES, moments - number))]
            wrong += kill_series(project, 2000 + number, [partial(kill_after, project, delay) for delay in delays])
    print(f"{len(AIMED)} aimed and {moments} random kills: {len(wrong)} faults")
    sys.exit(bool(wrong))


def new_project(folder: Path) -> Project:
    """A copy of the project with an empty store."""
    store = folder / "empty.db"
    code = f"import mlflow; mlflow.MlflowClient('sqlite:///{store}', 'sqlite:///{store}').search_experiments()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    (folder / "project").mkdir()
    project = Project(folder / "project", store)
    project.set(epochs=EPOCHS, patience=EPOCHS)
    arm(project)
    return project


def kill_series(project: Project, seed: int, kills: list[Callable[[], str]]) -> list[str]:
    """Kill a training with new settings several times, then repeat the command; returns and prints what is wrong."""
    known = {run.info.run_id for run in project.runs()}
    project.set(seed=seed)
    for kill in kills:
        print(f"      {kill()}", flush=True)
    process = project.start("dvc", "repro")
    output = process.communicate()[0]
    found = [output[-1500:]] if process.returncode else faults(project, known=known, epochs=EPOCHS)
    print("; ".join(found) or "ok: nothing was lost or doubled", flush=True)
    return found


def kill_after(project: Project, seconds: float) -> str:
    """Start the command, and kill it with all its processes after some seconds; returns what happened."""
    process = project.start("dvc", "repro")
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=seconds)
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if not heal(project):
            return f"killed after {seconds:.1f} s, while DVC wrote its lock file, which was then empty"
        return f"killed after {seconds:.1f} s, in {stage(project)}"
    return "had finished"


def heal(project: Project) -> bool:
    """Remove DVC's rwlock if a kill left it empty, because DVC then refuses every command; returns False if it was."""
    path = project.folder / ".dvc" / "tmp" / "rwlock"
    broken = path.exists() and not path.read_text().strip()
    if broken:
        path.unlink()
    return not broken


def stage(project: Project) -> str:
    """The first stage whose output is missing."""
    outputs = {"prepare": "faces.npz", "train": "model", "evaluate": "report", "register": "registered.json"}
    return next(
        (name for name, output in outputs.items() if not (project.folder / "build" / output).exists()), "the end"
    )


if __name__ == "__main__":
    app = App()
    app.default(run_kills)
    app()
