"""Search for better settings of `train` with Optuna: `make tune`. The same command on another machine joins it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cyclopts import Parameter
from optuna.study import Study

from emotion_detection.config import Params, load_params, load_recipe
from emotion_detection.errors import DEBUG, UsageError
from emotion_detection.experiments import runs
from emotion_detection.experiments.calls import write_artifacts
from emotion_detection.experiments.provenance import Origin, origin, read_data_report
from emotion_detection.experiments.store_location import sqlite_uri, store_uri
from emotion_detection.redaction import redact_uri
from emotion_detection.tuning import conflicts, finalists, plots, processes, search_space, worker
from emotion_detection.tuning.report import Outcome, recipe, summary
from emotion_detection.tuning.storage import translate_errors
from emotion_detection.tuning.study import TrialMonitor, open_study, wait_for_attribute
from emotion_detection.tuning.supervisor import Limits, OnBest, progress, supervise

MAX_WORKERS = 256  # processes of one machine


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """The files and settings of a search."""

    params: Path
    """params.yaml"""
    faces: Path
    """The npz file of the prepare stage."""
    data_report: Path
    """The JSON report of the prepare stage."""
    recipes: Path
    """A folder of recipes. The search tries those inside the search space first."""
    out: Path
    """The folder for best.yaml, figures, logs and the default storage."""
    workers: int = 1
    """Processes that share this machine."""
    study: str = ""
    """The study's name; by default the name of the data set."""
    storage: str = ""
    """sqlite:///, postgresql:// or grpc://; by default OPTUNA_STORAGE, else a file in the folder of --out."""


@dataclass(frozen=True)
class Search:
    """An open search: its studies, settings and folders."""

    study: Study
    finalists: Study | None  # the trainings of finalists, if there are any
    params: Params
    options: TuneOptions
    storage: str
    folder: Path  # for results
    private: Path  # for the logs and unfinished results of this command only
    origin: Origin  # of this command, for its run and those of its trials

    @property
    def studies(self) -> list[Study]:
        return [self.study, self.finalists] if self.finalists else [self.study]


def tune(options: TuneOptions) -> None:
    """Search for better settings of `train` with Optuna. The same command on another machine joins the search.

    An interrupted search continues when the command is repeated.
    """
    params = load_params(options.params)
    search_space.check(params.tune.space, params.train)
    if not 1 <= options.workers <= MAX_WORKERS:
        raise UsageError(f"--workers is {options.workers}: use 1 or more, at most {MAX_WORKERS}")
    dataset, digest = read_data_report(options.data_report, "dataset", "digest")
    conflicts.check(params, options.faces)
    conflicts.check_teachers(params, dataset)
    name = options.study or dataset
    search, new = _open(options, params, name, digest)
    with translate_errors(search.storage), reconciling(*search.studies):
        parent = None if new else wait_for_attribute(search.study, "run_id")
        if parent is not None and not runs.run_exists(parent):
            print(f"{redact_uri(store_uri())} has no run {parent}: the study gets a new run")
            parent = None
        data = {"dataset": dataset, "dataset_digest": digest}
        tags = search.origin.tags | data | {"study": name, "storage": redact_uri(search.storage)}
        try:
            with runs.start_run(parent, name=f"tune {name}", tags=tags) as run:
                if parent is None:
                    run.log_params({"tune": params.tune.model_dump(mode="json")})
                    search.study.set_user_attr("run_id", run.id)
                run.log_contents(search.origin.files)
                if not _run_trials(search, run):
                    _run_finalists(search, run)
                _report(search, run)
        except OSError as error:
            raise UsageError(
                f"{error.filename2 or error.filename or options.out} cannot be written ({error.strerror}). Finished "
                "trials are kept: fix this or choose another folder with --out, then repeat the command"
            ) from error


def _open(options: TuneOptions, params: Params, name: str, digest: str) -> tuple[Search, bool]:
    """The search, and whether it is new."""
    folder, private = _create_folders(options.out)
    storage = options.storage or os.environ.get("OPTUNA_STORAGE") or sqlite_uri(folder / "study.db")
    definition = about(params, digest, options.recipes)
    study, new = open_study(storage, name, definition)
    retrained = None
    if params.tune.finalists:
        retrained, _ = open_study(storage, finalists.study_name(name), definition | {"finalists_of": name})
    started = origin(params.train.model_dump(mode="json"), options.params.resolve().parent)
    return Search(study, retrained, params, options, storage, folder, private, started), new


def about(params: Params, digest: str, recipes: Path) -> dict[str, Any]:
    """The definition of a search, as plain values. Commands with the same definition can share a study."""
    base = params.train.model_dump(mode="json", exclude={"epochs", "patience"})
    sections: dict[str, Any] = {"params.yaml": {}} | {
        str(path): load_recipe(path) for path in sorted(recipes.glob("*.yaml"))
    }
    return {
        "data": digest,
        "train": base,
        "space": {key: dimension.model_dump(mode="json") for key, dimension in params.tune.space.items()},
        "conditions": {key: [parent, list(values)] for key, (parent, values) in search_space.CONDITIONS.items()},
        "epochs": params.tune.epochs,
        "known": search_space.known_points(params.train, sections, params.tune.space),
    }


def _run_trials(search: Search, run: runs.Run) -> bool:
    """Run the trials of the search; returns whether Ctrl-C was pressed."""
    tune, study = search.params.tune, search.study
    TrialMonitor(study).requeue_dead_trials()  # of a command that was killed
    if progress(study).finished >= tune.trials:
        print(f"{study.study_name} has its {tune.trials} trials: increase tune.trials for more")
        return False

    def log_best(finished: int, best: float) -> None:
        run.log_epoch({"epoch": finished, "best_val_macro_f1": best})

    return _supervise(search, study, Limits(tune.trials, tune.epochs, tune.minutes), run, log_best)


def _run_finalists(search: Search, run: runs.Run) -> None:
    """Retrain the best trials with other seeds."""
    tune, study = search.params.tune, search.finalists
    if study is None:
        return
    TrialMonitor(study).requeue_dead_trials()
    finalists.enqueue(
        study, finalists.best_trials(search.study, tune.finalists), finalists.finalist_seeds(search.params)
    )
    if study.get_trials(deepcopy=False, states=finalists.PENDING):
        _supervise(search, study, Limits(None, tune.epochs), run)


def _supervise(search: Search, study: Study, limits: Limits, run: runs.Run, on_best: OnBest | None = None) -> bool:
    phase = "finalists" if study is search.finalists else "search"
    with TemporaryDirectory(prefix="origin-", dir=search.private) as records:
        write_artifacts(search.origin.files, Path(records))
        job = {
            "train": search.params.train.model_dump(mode="json"),
            "tune": search.params.tune.model_dump(mode="json"),
            "known": search.study.user_attrs["about"]["known"],
            "faces": str(search.options.faces.resolve()),
            "study": study.study_name,
            "parent": run.id,
            "tags": search.origin.tags,
            "records": records,
            "finalists": phase == "finalists",
            "trainer": worker.TRAINER,
        }
        workers = processes.start_workers(
            worker.__name__,
            [json.dumps(job)],
            count=search.options.workers,
            logs=search.private / phase,
            environment={"OPTUNA_STORAGE": search.storage, DEBUG: "1"},  # tracebacks go to the logs
        )
        return supervise(study, limits, workers, on_best)


@contextmanager
def reconciling(*studies: Study) -> Iterator[None]:
    """Update MLflow after the body, even if the body raises an error."""
    try:
        yield
    except BaseException:
        with suppress(Exception):  # keep the original error
            reconcile(*studies)
        raise
    reconcile(*studies)


def reconcile(*studies: Study) -> None:
    """Add what MLflow misses: epochs while it was unavailable, and the end of trials whose process was killed."""
    for study in studies:
        for trial in study.get_trials(deepcopy=False):
            if trial.state.is_finished() and "run_id" in trial.user_attrs:
                runs.reconcile(trial.user_attrs["run_id"], trial.state.name, trial.user_attrs.get("history", []))


def _report(search: Search, run: runs.Run) -> None:
    """Write the figures and best.yaml into the folder and into MLflow, and print a summary."""
    files = [f"{name}.png" for name in plots.draw(search.study, search.private)]
    current = progress(search.study)
    lines = [f"{current.finished} trials finished; figures in {search.folder}"]
    if current.best is not None:
        outcome = Outcome(search.study, current.best, _results(search))
        (search.private / "best.yaml").write_text(recipe(outcome), encoding="utf-8")
        files.append("best.yaml")
        lines += [*summary(outcome), f"make adopt FROM={search.folder / 'best.yaml'}"]
        if outcome.winner:
            scores = {
                "finalist_mean_val_macro_f1": outcome.winner.mean,
                "finalist_std_val_macro_f1": outcome.winner.std,
            }
            run.log_epoch({"epoch": current.finished, **scores})
    for name in files:
        os.replace(search.private / name, search.folder / name)
        run.log_file(search.folder / name, "tuning")
    print("\n".join(lines))


def _results(search: Search) -> list[finalists.Finalist]:
    if search.finalists is None:
        return []
    trials = finalists.best_trials(search.study, search.params.tune.finalists)
    return finalists.results(search.finalists, trials, finalists.finalist_seeds(search.params))


def _create_folders(out: Path) -> tuple[Path, Path]:
    """The folder for results, and one for the logs and unfinished results of this command only."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        return out.resolve(), processes.private_folder(out.resolve() / "logs")
    except OSError as error:
        raise UsageError(f"{out} cannot be created ({error.strerror}): choose another folder with --out") from error
