"""A worker of a study: `python -m emotion_detection.tuning.worker JOB` runs trials, each as an MLflow run."""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from optuna import TrialPruned
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.trial import Trial

from emotion_detection.config import Section, Train, Tune
from emotion_detection.data.dataset import Faces, load
from emotion_detection.errors import DivergedError, EmotionDetectionError, report_errors
from emotion_detection.evaluation.metrics import kept_epoch
from emotion_detection.experiments import runs
from emotion_detection.tuning import search_space
from emotion_detection.tuning.processes import watch_stdin
from emotion_detection.tuning.sampler import SeededSampler, create_pruner, suggest
from emotion_detection.tuning.storage import translate_errors
from emotion_detection.tuning.study import claim_settings, join_study, run_trials

TRAINER = "emotion_detection.training.trainer:fit"
Epoch = dict[str, float]
Fit = Callable[..., Any]  # the signature of training.trainer.fit


class Job(Section):
    """The task of the workers of a study. The storage's address is in their environment, because of its password."""

    train: Train  # the base of every trial
    tune: Tune
    known: tuple[search_space.Values, ...]  # the first points of the search
    faces: Path
    study: str
    parent: str  # MLflow run of the search
    tags: dict[str, str]  # of each trial's run: the code and the machine of the command
    records: Path  # the folder of the files that say more about them, such as the changes of the code
    finalists: bool = False  # run the queued trainings of finalists
    trainer: str = TRAINER  # module:function; tests replace it


def main() -> None:
    with report_errors():
        run(Job.model_validate_json(sys.argv[1]), os.environ["OPTUNA_STORAGE"], watch_stdin())


def run(job: Job, storage: str, stop_requested: Callable[[], bool]) -> None:
    """Run trials until the study is done or a stop is requested."""
    faces = load(job.faces)
    module, _, name = job.trainer.partition(":")
    fit: Fit = getattr(import_module(module), name)
    sampler = RandomSampler() if job.finalists else SeededSampler(job.tune, job.known)
    pruner = NopPruner() if job.finalists else create_pruner(job.tune)
    with translate_errors(storage):
        study = join_study(storage, job.study, sampler, pruner)

        def objective(trial: Trial) -> float:
            values = trial.params if job.finalists else suggest(trial, job.tune.space, job.train)
            claim_settings(study, trial, values)
            return train_trial(trial, values, job, faces, fit)

        run_trials(study, objective, trials=None if job.finalists else job.tune.trials, stop_requested=stop_requested)


def train_trial(trial: Trial, values: search_space.Values, job: Job, faces: Faces, fit: Fit) -> float:
    """Train with the trial's settings; returns val_macro_f1 of the kept epoch, or of a finalist's last one.

    Raises TrialPruned for an unpromising or diverged trial.
    """
    train = search_space.settings(job.train, values, epochs=job.tune.epochs)
    tags = job.tags | {"study": job.study, "trial": str(trial.number)}
    history: list[Epoch] = []
    trained = False
    try:
        with runs.start_run(name=f"{job.study} {trial.number}", parent=job.parent, tags=tags) as run:
            trial.set_user_attr("run_id", run.id)
            run.log_params({"train": train.model_dump()})
            run.log_contents(_records(job.records))
            pruned = _train(trial, train, faces, run, history, fit)
            trial.set_user_attr("history", history)
            trained = True
            run.log_missing_epochs(history)
            run.tag("trial_state", "PRUNED" if pruned else "COMPLETE")
    except EmotionDetectionError:
        if not trained:
            raise
        # MLflow became unavailable at the end. The study has all results, and `reconcile` adds them to MLflow later.
    if pruned:
        raise TrialPruned
    place = len(history) if job.finalists else kept_epoch(history, train.keep)
    return history[place - 1]["val_macro_f1"]


def _records(folder: Path) -> dict[str, bytes]:
    """The files that describe the code and the machine, by their paths in a run."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _train(trial: Trial, train: Train, faces: Faces, run: runs.Run, history: list[Epoch], fit: Fit) -> bool:
    """Train and append to the history; returns whether the trial was pruned or diverged."""

    def on_epoch(row: Epoch) -> None:
        history.append(row)
        run.log_epoch(row)
        trial.report(row["val_macro_f1"], int(row["epoch"]))
        if row["epoch"] < train.epochs and trial.should_prune():  # a trial with all epochs is complete
            raise TrialPruned

    try:
        fit(train, faces, on_epoch=on_epoch)
    except TrialPruned:
        return True
    except DivergedError as error:
        trial.set_user_attr("diverged", str(error))
        return True
    return False


if __name__ == "__main__":
    main()
