"""Optuna's sampler and pruner of a search."""

from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from emotion_detection.config import Categorical, NumberRange, Train, Tune
from emotion_detection.tuning import search_space
from emotion_detection.tuning.search_space import Space, Values
from emotion_detection.tuning.study import DUPLICATE

REDUCTION_FACTOR = 3  # one of three trials continues
STARTUP_TRIALS = 5  # before the sampler learns from the trials and the median is meaningful


class SeededSampler(BaseSampler):
    """Suggest the known points first, then sample with Optuna.

    The sampler is seeded with the trial's number. A single worker therefore draws the same trials in the same order
    after any number of interruptions, and the retry of a trial has the same settings.
    """

    def __init__(self, tune: Tune, known: Sequence[Values]) -> None:
        self._tune, self._known = tune, known
        self._sampler: BaseSampler = RandomSampler()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        seed = (self._tune.seed * 100_003 + _original_number(trial)) % 2**32  # NumPy accepts no larger seeds
        if self._tune.sampler == "random" or _follows_duplicate(study, trial):  # TPE may draw the same point again
            self._sampler = RandomSampler(seed=seed)
        else:
            # group: settings that only some trials have are modelled separately.
            self._sampler = TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, group=True)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        known = _original_number(trial) < len(self._known)
        return {} if known else self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> Values:
        return self._sampler.sample_relative(study, trial, search_space) if search_space else {}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        if _original_number(trial) < len(self._known):
            return self._known[_original_number(trial)][param_name]
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._sampler.after_trial(study, trial, state, values)


def _original_number(trial: FrozenTrial) -> int:
    """The trial's number, or that of the failed trial which it retries."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


def _follows_duplicate(study: Study, trial: FrozenTrial) -> bool:
    earlier = study.get_trials(deepcopy=False)[: trial.number]
    return bool(earlier) and DUPLICATE in earlier[-1].user_attrs


def create_pruner(tune: Tune) -> BasePruner:
    """The pruner of unpromising trials. Its resource is the epoch, and it prunes none in the first half of the epochs.

    On FER-2013 the ranking after one or two of nine epochs is the reverse of the final ranking; from the fifth epoch on
    it predicts the final one (EXPERIMENTS.md, 2026-11-23). Hyperband is not offered: its brackets differ in how early
    they prune, and between half of the epochs and all of them there is room for one bracket, which is halving.
    """
    first_epoch = -(-tune.epochs // 2)
    if tune.pruner == "median":
        return MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=first_epoch)
    if tune.pruner == "halving":
        return SuccessiveHalvingPruner(min_resource=first_epoch, reduction_factor=REDUCTION_FACTOR)
    return NopPruner()


def suggest(trial: Trial, space: Space, base: Train) -> Values:
    """A value for each setting of the space that has an effect in this trial."""
    values: Values = {}
    for key in search_space.parents_first(space):
        if search_space.has_effect(key, values, base):
            values[key] = search_space.rounded(_suggest(trial, key, space[key]), space[key])
    return values


def _suggest(trial: Trial, key: str, dimension: NumberRange | Categorical) -> Any:
    if isinstance(dimension, Categorical):
        return trial.suggest_categorical(key, [search_space.as_text(choice) for choice in dimension.choices])
    if isinstance(dimension.low, int) and isinstance(dimension.high, int):
        return trial.suggest_int(key, dimension.low, dimension.high, log=dimension.log)
    return trial.suggest_float(key, dimension.low, dimension.high, log=dimension.log)
