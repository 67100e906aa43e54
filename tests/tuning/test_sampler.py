from typing import Any

import optuna
import pytest

from emotion_detection.config import Categorical, NumberRange, Tune
from emotion_detection.tuning import sampler
from emotion_detection.tuning.search_space import Space

SPACE: Space = {
    "learning_rate": NumberRange(low=0.001, high=0.1, log=True),
    "batch_size": NumberRange(low=2, high=64, log=False),
    "widths": Categorical(choices=([8, 16], [4, 8])),
}


@pytest.fixture
def tune(params) -> Tune:
    return params.tune.model_copy(update={"space": SPACE, "epochs": 9})


def places(tune: Tune, known: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The trials that one worker after the other draws: each has its own sampler, as after a restart."""
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(storage=storage, study_name="study", direction="maximize")
    drawn = []
    for _ in range(count):
        study = optuna.load_study(storage=storage, study_name="study", sampler=sampler.SeededSampler(tune, known))
        trial = study.ask()
        drawn.append(sampler.suggest(trial, SPACE))
        study.tell(trial, drawn[-1]["learning_rate"])
    return drawn


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_seed_draws_the_same_and_another_does_not(tune, sampler):
    tune = tune.model_copy(update={"sampler": sampler})
    first = places(tune, [], 12)
    assert places(tune, [], 12) == first
    assert places(tune.model_copy(update={"seed": 99}), [], 12) != first
    assert len({str(place) for place in first}) == 12


def test_what_is_known_comes_first(tune):
    known = [{"learning_rate": 0.01, "batch_size": 8, "widths": "[4, 8]"}]
    first, second, *_ = places(tune, known, 3)
    assert first == known[0]
    assert second != known[0]


def test_values_lie_in_their_space(tune):
    for place in places(tune, [], 12):
        assert 0.001 <= place["learning_rate"] <= 0.1
        assert isinstance(place["batch_size"], int)
        assert place["widths"] in ("[8, 16]", "[4, 8]")


def test_the_sampler_learns(tune):
    # The larger the learning rate, the better: what is drawn last is larger than what is drawn by chance.
    drawn = [place["learning_rate"] for place in places(tune, [], 30)]
    by_chance = [place["learning_rate"] for place in places(tune.model_copy(update={"sampler": "random"}), [], 30)]
    assert sorted(drawn[10:])[10] > 1.5 * sorted(by_chance[10:])[10]


@pytest.mark.parametrize("pruner", ["median", "halving", "hyperband"])
def test_a_pruner_gives_up_the_hopeless_and_keeps_the_best(tune, pruner):
    pruned, kept = play(tune.model_copy(update={"pruner": pruner}))
    assert pruned >= 3
    assert kept == 1


def test_none_gives_up_nothing(tune):
    assert play(tune.model_copy(update={"pruner": None})) == (0, 1)


def play(tune: Tune) -> tuple[int, int]:
    """Trials of value 0..19 in a shuffled order: how many are pruned, and whether the best is not."""
    study = optuna.create_study(study_name="played", direction="maximize", pruner=sampler.pruner(tune))
    pruned, kept = 0, 0
    first = -(-tune.epochs // 2)
    for value in (7 * number % 20 for number in range(20)):
        trial = study.ask()
        for epoch in range(1, tune.epochs + 1):
            trial.report(value, epoch)
            if trial.should_prune():
                assert epoch >= first  # of the first half nobody knows anything
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                pruned += 1
                break
        else:
            study.tell(trial, value)
            kept += value == 19
    return pruned, kept
