"""The sampler and the pruner of a search."""

from typing import Any

import optuna
import pytest
from tests.support.paths import ROOT

from emotion_detection.config import Categorical, NumberRange, Tune, load_params
from emotion_detection.tuning import sampler
from emotion_detection.tuning.search_space import Space
from emotion_detection.tuning.study import DUPLICATE

BASE = load_params(ROOT / "params.yaml").train

SPACE: Space = {
    "learning_rate": NumberRange(low=0.001, high=0.1, log=True),
    "batch_size": NumberRange(low=2, high=64, log=False),
    "widths": Categorical(choices=([8, 16], [4, 8])),
}


@pytest.fixture
def tune(params) -> Tune:
    return params.tune.model_copy(update={"space": SPACE, "epochs": 9})


def sampled(tune: Tune, known: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The trials of workers that run one after the other; each has its own sampler, as after a restart."""
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(storage=storage, study_name="study", direction="maximize")
    points = []
    for _ in range(count):
        study = optuna.load_study(storage=storage, study_name="study", sampler=sampler.SeededSampler(tune, known))
        trial = study.ask()
        points.append(sampler.suggest(trial, tune.space, BASE))
        study.tell(trial, points[-1]["learning_rate"])
    return points


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_same_seed_samples_the_same_points(tune, sampler):
    tune = tune.model_copy(update={"sampler": sampler})
    first = sampled(tune, [], 12)
    assert sampled(tune, [], 12) == first
    assert sampled(tune.model_copy(update={"seed": 99}), [], 12) != first
    assert len({str(point) for point in first}) == 12


def test_known_points_come_first(tune):
    known = [{"learning_rate": 0.01, "batch_size": 8, "widths": "[4, 8]"}]
    first, second, *_ = sampled(tune, known, 3)
    assert first == known[0]
    assert second != known[0]


def test_values_are_in_their_space(tune):
    for point in sampled(tune, [], 12):
        assert 0.001 <= point["learning_rate"] <= 0.1
        assert isinstance(point["batch_size"], int)
        assert point["widths"] in ("[8, 16]", "[4, 8]")


def test_the_sampler_learns(tune):
    # A larger learning rate is better, so the later points have larger ones than random points.
    learned = [point["learning_rate"] for point in sampled(tune, [], 30)]
    random = [point["learning_rate"] for point in sampled(tune.model_copy(update={"sampler": "random"}), [], 30)]
    assert sorted(learned[10:])[10] > 1.5 * sorted(random[10:])[10]


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_settings_without_effect_are_not_sampled(tune, name):
    space = {
        "widths": Categorical(choices=([8, 16], [4, 8])),  # before its condition
        "momentum": NumberRange(low=0.5, high=0.9, log=False),
        "architecture": Categorical(choices=("fer_resnet", "mini_xception")),
        "optimizer": Categorical(choices=("sgd", "adam")),
        "learning_rate": SPACE["learning_rate"],
    }
    points = sampled(tune.model_copy(update={"space": space, "sampler": name}), [], 20)
    for point in points:
        assert ("widths" in point) == (point["architecture"] == "fer_resnet")
        assert ("momentum" in point) == (point["optimizer"] == "sgd")
    assert len({(point["architecture"], point["optimizer"]) for point in points}) == 4


def test_point_after_a_duplicate_is_random(tune):
    tune = tune.model_copy(update={"space": {"dropout": Categorical(choices=(0.1, 0.2))}})
    study = optuna.create_study(direction="maximize", sampler=sampler.SeededSampler(tune, []))
    for _ in range(8):  # TPE prefers 0.1
        trial = study.ask()
        study.tell(trial, -sampler.suggest(trial, tune.space, BASE)["dropout"])
    seeds = []
    for _ in range(20):
        trial = study.ask()
        seeds.append(sampler.suggest(trial, tune.space, BASE)["dropout"])
        trial.set_user_attr(DUPLICATE, 0)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert set(seeds[1:]) == {0.1, 0.2}


@pytest.mark.parametrize("pruner", ["median", "halving"])
def test_pruner_stops_poor_trials_and_keeps_the_best(tune, pruner):
    pruned, kept = replay(tune.model_copy(update={"pruner": pruner}))
    assert pruned >= 3
    assert kept == 1


def test_without_a_pruner_no_trial_is_pruned(tune):
    assert replay(tune.model_copy(update={"pruner": None})) == (0, 1)


def replay(tune: Tune) -> tuple[int, int]:
    """Run trials with the values 0 to 19 in a shuffled order: how many are pruned, and whether the best is complete."""
    study = optuna.create_study(direction="maximize", pruner=sampler.create_pruner(tune))
    pruned, kept = 0, 0
    first = -(-tune.epochs // 2)
    for value in (7 * number % 20 for number in range(20)):
        trial = study.ask()
        for epoch in range(1, tune.epochs + 1):
            trial.report(value, epoch)
            if trial.should_prune():
                assert epoch >= first  # the ranking in the first half of the epochs is not meaningful
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                pruned += 1
                break
        else:
            study.tell(trial, value)
            kept += value == 19
    return pruned, kept
