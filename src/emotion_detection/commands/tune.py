"""Search better settings of `train` with Optuna: `make tune`. The same command on another machine joins the search."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cyclopts import Parameter
from optuna.study import Study
from optuna.trial import FrozenTrial

from emotion_detection.atomic import atomic_output
from emotion_detection.config import Params, load_params, load_recipe
from emotion_detection.errors import InputError
from emotion_detection.experiments import runs
from emotion_detection.experiments.provenance import provenance
from emotion_detection.experiments.urls import redact_uri
from emotion_detection.tuning import processes, search_space
from emotion_detection.tuning.plots import draw
from emotion_detection.tuning.storage import translate_errors
from emotion_detection.tuning.study import open_study, requeue_dead_trials, wait_for_attribute
from emotion_detection.tuning.supervisor import progress, search

WORKER = "emotion_detection.tuning.worker"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """The files and settings of a search."""

    params: Path
    """params.yaml"""
    faces: Path
    """The npz file of the prepare stage."""
    data_report: Path
    """Its JSON report."""
    recipes: Path
    """A folder of recipes. The search tries those inside the search space first."""
    out: Path
    """The folder for best.yaml, figures and the default storage."""
    workers: int = 1
    """Processes that share this machine."""
    study: str = ""
    """The study's name; by default the name of the data set."""
    storage: str = ""
    """sqlite:///, postgresql:// or grpc://; by default OPTUNA_STORAGE, else a file in the folder of --out."""


def tune(options: TuneOptions) -> None:
    """Search better settings of `train` with Optuna. The same command on another machine joins the search.

    An interrupted search continues when the command is repeated.
    """
    params = load_params(options.params)
    search_space.check(params.tune.space, params.train)
    if options.workers < 1:
        raise InputError(f"--workers {options.workers}: one at least has to do the work")
    data = json.loads(_text(options.data_report))
    name = options.study or data["dataset"]
    storage = options.storage or os.environ.get("OPTUNA_STORAGE") or f"sqlite:///{_folder(options.out) / 'study.db'}"
    study, new = open_study(storage, name, about(params, data["digest"], options.recipes))
    with translate_errors(storage), reconciling(study):
        parent = None if new else wait_for_attribute(study, "run_id")
        if parent is not None and not runs.exists(parent):
            print(f"{redact_uri(runs.store_uri())} does not know the study's run {parent}: it gets a new one")
            parent = None
        tags = provenance() | {"dataset": data["dataset"], "study": name, "storage": redact_uri(storage)}
        try:
            with runs.run(parent, name=f"tune {name}", tags=tags) as run:
                if parent is None:
                    run.log_params({"tune": params.tune.model_dump(mode="json")})
                    study.set_user_attr("run_id", run.id)
                _search(study, params, run, storage, options)
                report(study, run, _folder(options.out))
        except OSError as error:
            raise InputError(
                f"{error.filename or options.out} cannot be written ({error.strerror}). No trial is lost: free some "
                "space or name another folder with --out, then repeat the command"
            ) from error


def about(params: Params, digest: str, recipes: Path) -> dict[str, Any]:
    """What a study searches, as plain values: two that agree on this are one."""
    base = params.train.model_dump(mode="json", exclude={"epochs", "patience"})
    sections: dict[str, Any] = {"params.yaml": {}} | {
        str(path): load_recipe(path) for path in sorted(recipes.glob("*.yaml"))
    }
    return {
        "data": digest,
        "train": base,
        "space": {key: dimension.model_dump(mode="json") for key, dimension in params.tune.space.items()},
        "epochs": params.tune.epochs,
        "known": search_space.known(params.train, sections, params.tune.space),
    }


def _search(study: Study, params: Params, run: runs.Run, storage: str, options: TuneOptions) -> None:
    tune = params.tune
    requeue_dead_trials(study)  # what a killed search left behind
    job = {
        "train": params.train.model_dump(mode="json"),
        "known": study.user_attrs["about"]["known"],
        "tune": tune.model_dump(mode="json"),
        "faces": str(options.faces.resolve()),
        "study": study.study_name,
        "parent": run.id,
    }
    if progress(study).finished >= tune.trials:
        print(f"{study.study_name} has its {tune.trials} trials: raise tune.trials for more")
        return
    crew = processes.start(
        WORKER, [json.dumps(job)], count=options.workers, logs=options.out, told={"OPTUNA_STORAGE": storage}
    )
    search(study, tune, crew, lambda finished, best: run.log_epoch({"epoch": finished, "best_val_macro_f1": best}))


@contextmanager
def reconciling(study: Study) -> Iterator[None]:
    """Settle with MLflow after the body, whatever came of that."""
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the first error is the one to show
            reconcile(study)
        raise
    reconcile(study)


def reconcile(study: Study) -> None:
    """Tell MLflow what it has missed: epochs while it was away, and the end of trials whose process was killed."""
    for trial in study.get_trials(deepcopy=False):
        if trial.state.is_finished() and "run_id" in trial.user_attrs:
            runs.reconcile(trial.user_attrs["run_id"], trial.state.name, trial.user_attrs.get("history", []))


def report(study: Study, run: runs.Run, folder: Path) -> None:
    """Figures and best.yaml, into the folder and into MLflow."""
    best = progress(study).best
    figures = draw(study, folder)
    if best is not None:
        with atomic_output(folder / "best.yaml") as written:
            written.write_text(recipe(study, best))
        run.log_file(folder / "best.yaml", "tuning")
    for name in figures:
        run.log_file(folder / f"{name}.png", "tuning")
    finished = progress(study).finished
    print(f"{finished} trials finished; figures in {folder}")
    if best is not None:
        print(f"best: {best.values[0]:.3f} val macro-F1, trial {best.number}; make adopt FROM={folder / 'best.yaml'}")


def recipe(study: Study, best: FrozenTrial) -> str:
    """best.yaml: a recipe with the settings that the search has found."""
    epochs = study.user_attrs["about"]["epochs"]
    return (
        f"# The best of the study {study.study_name}: trial {best.number}, val macro-F1 {best.values[0]:.3f}\n"
        f"# after {epochs} epochs, MLflow run {best.user_attrs['run_id']}.\n"
        "# make adopt takes it over, make repro trains it in full.\n"
        + yaml.safe_dump(search_space.fragment(best.user_attrs["values"]), sort_keys=False, default_flow_style=None)
    )


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be made ({error.strerror}): name another with --out") from error
    return path.resolve()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}): mend it; `dvc repro prepare` makes what is built"
        ) from error
