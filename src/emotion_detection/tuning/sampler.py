"""How a study chooses: what the next trial is, and which trial is given up."""

from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from emotion_detection.config import Categorical, NumberRange, Tune
from emotion_detection.tuning.search_space import Space, Values, drawn, text

ETA = 3  # of three trials, one is trained further
UNGUIDED = 5  # trials before the sampler learns from them and a median means something


class SeededSampler(BaseSampler):
    """Known places first, then Optuna's own sampler.

    It is seeded anew by each trial's number, so that one worker draws the same trials in the same order however often
    it was interrupted, and a trial that is tried again is the same trial.
    """

    def __init__(self, tune: Tune, known: Sequence[Values]) -> None:
        self._tune, self._known = tune, known
        self._sampler: BaseSampler = RandomSampler()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        seed = self._tune.seed * 100_003 + _number(trial)
        if self._tune.sampler == "random":
            self._sampler = RandomSampler(seed=seed)
        else:
            self._sampler = TPESampler(seed=seed, n_startup_trials=UNGUIDED)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        known = _number(trial) < len(self._known)
        return {} if known else self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> Values:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        if _number(trial) < len(self._known):
            return self._known[_number(trial)][param_name]
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._sampler.after_trial(study, trial, state, values)


def _number(trial: FrozenTrial) -> int:
    """The trial's number, or that of the killed one which it repeats."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


def pruner(tune: Tune) -> BasePruner:
    """What stops hopeless trials early; its resource is the epoch, and none is stopped in the first half of them.

    On FER-2013 the order after one or two epochs of nine is the reverse of the last one, and tells it from the fifth on
    (EXPERIMENTS.md, 2026-11-23): a small network that learns fast is soon overtaken.
    """
    first = -(-tune.epochs // 2)
    if tune.pruner == "median":
        return MedianPruner(n_startup_trials=UNGUIDED, n_warmup_steps=first)
    if tune.pruner == "halving":
        return SuccessiveHalvingPruner(min_resource=first, reduction_factor=ETA)
    if tune.pruner == "hyperband":
        return HyperbandPruner(min_resource=first, max_resource=tune.epochs, reduction_factor=ETA)
    return NopPruner()


def suggest(trial: Trial, space: Space) -> Values:
    """A value for each setting of the space."""
    return {key: drawn(_suggest(trial, key, dimension), dimension) for key, dimension in space.items()}


def _suggest(trial: Trial, key: str, dimension: NumberRange | Categorical) -> Any:
    if isinstance(dimension, Categorical):
        return trial.suggest_categorical(key, [text(choice) for choice in dimension.choices])
    if isinstance(dimension.low, int) and isinstance(dimension.high, int):
        return trial.suggest_int(key, dimension.low, dimension.high, log=dimension.log)
    return trial.suggest_float(key, dimension.low, dimension.high, log=dimension.log)
