"""Retrain the best trials of a search with other seeds, so that a lucky trial or epoch does not win.

The value of a trial is the best of its epochs, and the best trial is the best of many: both favor luck. A finalist is
trained once for each seed, and none of these seeds was used in the search. Its score is the mean over the seeds of the
val macro-F1 after the last epoch. The trainings are queued in an Optuna study of their own, in the same storage.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from optuna.distributions import IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from emotion_detection.config import Params
from emotion_detection.tuning.search_space import Values

SEED = IntDistribution(0, 2**31 - 1)
PENDING = (TrialState.WAITING, TrialState.RUNNING)


@dataclass(frozen=True)
class Finalist:
    """A trial of the search and its scores, one for each seed whose training has finished."""

    trial: FrozenTrial
    scores: tuple[float, ...]
    pending: int  # trainings that have not finished
    failed: int  # trainings that diverged or were given up

    @property
    def mean(self) -> float:
        return mean(self.scores)

    @property
    def std(self) -> float:
        """The standard deviation over the seeds; 0 for one seed."""
        return stdev(self.scores) if len(self.scores) > 1 else 0.0

    @property
    def seeds(self) -> str:
        return f"{len(self.scores)} seed{'s' * (len(self.scores) != 1)}"

    def __str__(self) -> str:
        scores = f"{self.mean:.3f} ± {self.std:.3f} over {self.seeds}" if self.scores else "no score"
        others = ((self.pending, "pending"), (self.failed, "failed"))
        return ", ".join([f"trial {self.trial.number}: {scores}", *(f"{n} {state}" for n, state in others if n)])


def study_name(search: str) -> str:
    """The name of the study with the finalists of a search."""
    return f"{search}-finalists"


def finalist_seeds(params: Params) -> list[int]:
    """The seeds of the finalists' trainings. The search uses train.seed, so it is not among them."""
    return [(params.train.seed + number) % 2**32 for number in range(1, params.tune.finalist_seeds + 1)]


def best_trials(search: Study, count: int) -> list[FrozenTrial]:
    """The complete trials with the best values, best first."""
    complete = search.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: -trial.values[0])[:count]


def enqueue(study: Study, trials: Iterable[FrozenTrial], seeds: Sequence[int]) -> None:
    """Queue the trainings that the study does not have yet.

    If two processes queue the same training at once, the second one is skipped as a duplicate when it starts.
    """
    existing = [trial.params for trial in study.get_trials(deepcopy=False)]
    for trial in trials:
        for params in _trainings(trial, seeds):
            if params not in existing:
                existing.append(params)
                distributions = {key: trial.distributions[key] for key in params if key != "seed"} | {"seed": SEED}
                study.add_trial(create_trial(state=TrialState.WAITING, params=params, distributions=distributions))


def results(study: Study, trials: Iterable[FrozenTrial], seeds: Sequence[int]) -> list[Finalist]:
    """The finalists in the order of `trials`, with their scores so far."""
    finalists = []
    for trial in trials:
        params = _trainings(trial, seeds)
        trainings = [one for one in study.get_trials(deepcopy=False) if one.params in params]
        scores = {one.params["seed"]: one.values[0] for one in trainings if one.state == TrialState.COMPLETE}
        pending = {one.params["seed"] for one in trainings if one.state in PENDING}
        failed = len({one.params["seed"] for one in trainings} - pending - scores.keys())
        finalists.append(Finalist(trial, tuple(scores.values()), len(seeds) - len(scores) - failed, failed))
    return finalists


def winner(finalists: Sequence[Finalist]) -> Finalist | None:
    """The finalist with the best mean among those whose trainings all succeeded; None while trainings are pending."""
    if any(finalist.pending for finalist in finalists):
        return None
    successful = [finalist for finalist in finalists if not finalist.failed]
    return max(successful, key=lambda finalist: finalist.mean, default=None)


def _trainings(trial: FrozenTrial, seeds: Iterable[int]) -> list[Values]:
    return [trial.user_attrs["values"] | {"seed": seed} for seed in seeds]
