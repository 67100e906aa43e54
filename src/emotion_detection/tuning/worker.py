"""A worker of a study: `python -m emotion_detection.tuning.worker JOB` runs trials, each in its own MLflow run."""

import os
import sys
from pathlib import Path

from optuna import TrialPruned
from optuna.trial import Trial

from emotion_detection.config import Section, Train, Tune
from emotion_detection.data.dataset import Faces, load
from emotion_detection.errors import DivergedError, InputError, report_errors
from emotion_detection.experiments import runs
from emotion_detection.training.trainer import Epoch, fit
from emotion_detection.tuning import processes, search_space
from emotion_detection.tuning.sampler import SeededSampler, pruner, suggest
from emotion_detection.tuning.storage import translate_errors
from emotion_detection.tuning.study import join_study, run_trials


class Job(Section):
    """What every worker of a study on one machine is told; the storage's address stands in its environment."""

    train: Train  # what the trials change
    tune: Tune
    known: tuple[search_space.Values, ...]  # places of the space to begin with
    faces: Path
    study: str
    parent: str  # MLflow run of the study


def main() -> None:
    with report_errors():
        run(Job.model_validate_json(sys.argv[1]), os.environ["OPTUNA_STORAGE"])


def run(job: Job, storage: str) -> None:
    """Run trials until the study is done, or until told to stop."""
    asked = processes.stop_requested()
    faces = load(job.faces)
    with translate_errors(storage):
        study = join_study(storage, job.study, SeededSampler(job.tune, job.known), pruner(job.tune))
        run_trials(study, lambda trial: teach(trial, job, faces), trials=job.tune.trials, asked=asked)


def teach(trial: Trial, job: Job, faces: Faces) -> float:
    """Train with the trial's settings; its best val_macro_f1. Hopeless ones end early, as TrialPruned."""
    values = suggest(trial, job.tune.space)
    train = search_space.settings(job.train, values, epochs=job.tune.epochs)
    trial.set_user_attr("values", values)  # as they are trained: Optuna keeps what it drew, with all its digits
    tags = {"study": job.study, "trial": str(trial.number)}
    history: list[Epoch] = []
    taught = False
    try:
        with runs.run(name=f"{job.study} {trial.number}", parent=job.parent, tags=tags) as run:
            trial.set_user_attr("run_id", run.id)
            run.log_params({"train": train.model_dump()})
            pruned = _fit(trial, train, faces, run, history)
            trial.set_user_attr("history", history)
            taught = True
            run.log_missing(history)
            run.tag("trial_state", "PRUNED" if pruned else "COMPLETE")
    except InputError:
        if not taught:
            raise
        # MLflow went away at the end; the study knows all that it lacks, and `settle` will tell it.
    if pruned:
        raise TrialPruned
    return max(row["val_macro_f1"] for row in history)


def _fit(trial: Trial, train: Train, faces: Faces, run: runs.Run, history: list[Epoch]) -> bool:
    """Train, filling the history; whether the trial was pruned. A loss that is no number is as hopeless as can be."""

    def on_epoch(row: Epoch) -> None:
        history.append(row)
        run.log_epoch(row)
        trial.report(row["val_macro_f1"], int(row["epoch"]))
        if row["epoch"] < train.epochs and trial.should_prune():  # what is whole has a value
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
