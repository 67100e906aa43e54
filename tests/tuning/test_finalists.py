"""Finalists: which trials are retrained, what their scores are, and which one wins."""

import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from emotion_detection.tuning import finalists
from emotion_detection.tuning.report import Outcome, recipe, summary

SPACE = {"dropout": FloatDistribution(0, 0.5), "widths": CategoricalDistribution(["[8, 16]", "[16, 32]"])}
SEEDS = (2, 3)


@pytest.fixture
def search() -> optuna.Study:
    """Four trials: two complete, one pruned, one failed."""
    study = optuna.create_study(study_name="faces", direction="maximize")
    study.set_user_attr("about", {"epochs": 9})
    ends = [(0.6, TrialState.COMPLETE), (None, TrialState.PRUNED), (0.7, TrialState.COMPLETE), (None, TrialState.FAIL)]
    for number, (value, state) in enumerate(ends):
        values = {"dropout": number / 10, "widths": "[8, 16]"}
        study.add_trial(
            create_trial(
                params=values,
                distributions=SPACE,
                value=value,
                state=state,
                user_attrs={"values": values, "run_id": f"run-{number}"},
            )
        )
    return study


@pytest.fixture
def retrained() -> optuna.Study:
    return optuna.create_study(study_name="faces-finalists", direction="maximize")


def finish(study: optuna.Study, scores: dict[tuple[float, int], float | None]) -> None:
    """Run the queued trainings; scores by dropout and seed, None for a diverged training."""
    while study.get_trials(states=(TrialState.WAITING,)):
        trial = study.ask()
        score = scores[trial.params["dropout"], trial.params["seed"]]
        study.tell(trial, score, state=TrialState.COMPLETE if score is not None else TrialState.PRUNED)


def outcome(search: optuna.Study, retrained: optuna.Study) -> Outcome:
    best = finalists.best_trials(search, 1)[0]
    return Outcome(search, best, finalists.results(retrained, finalists.best_trials(search, 2), SEEDS))


def test_best_complete_trials_are_chosen(search):
    assert [trial.number for trial in finalists.best_trials(search, 5)] == [2, 0]
    assert [trial.number for trial in finalists.best_trials(search, 1)] == [2]
    assert finalists.best_trials(search, 0) == []


def test_seeds_differ_from_the_seed_of_the_search(params):
    seeds = finalists.finalist_seeds(params)
    assert len(set(seeds)) == params.tune.finalist_seeds
    assert params.train.seed not in seeds


def test_each_training_is_queued_once(search, retrained):
    best = finalists.best_trials(search, 2)
    for _ in range(2):
        finalists.enqueue(retrained, best, SEEDS)
    queued = retrained.get_trials()
    assert [trial.state for trial in queued] == [TrialState.WAITING] * 4
    assert [(trial.params["dropout"], trial.params["seed"]) for trial in queued] == [(0.2, 2), (0.2, 3), (0, 2), (0, 3)]
    finish(retrained, dict.fromkeys([(0.2, 2), (0.2, 3), (0, 2), (0, 3)], 0.5))
    finalists.enqueue(retrained, best, (*SEEDS, 4))
    assert [trial.params["seed"] for trial in retrained.get_trials(states=(TrialState.WAITING,))] == [4, 4]


def test_finalist_with_the_best_mean_wins(search, retrained):
    finalists.enqueue(retrained, finalists.best_trials(search, 2), SEEDS)
    assert outcome(search, retrained).winner is None  # trainings are pending
    finish(retrained, {(0.2, 2): 0.7, (0.2, 3): 0.5, (0, 2): 0.61, (0, 3): 0.63})
    result = outcome(search, retrained)
    assert result.winner is not None
    assert (result.chosen.number, result.winner.mean) == (0, pytest.approx(0.62))
    assert result.winner.std == pytest.approx(0.02 / 2**0.5)
    text = recipe(result)
    assert yaml.safe_load(text) == {"train": {"dropout": 0.0, "widths": [8, 16]}}
    comment = " ".join(text.replace("\n# ", " ").split())
    assert "search faces: trial 0, 0.620 ± 0.014 val macro-F1" in comment
    assert "over 2 seeds) after 9 epochs. MLflow run run-0." in comment
    assert [*summary(result)] == [
        "finalist trial 2: 0.600 ± 0.141 over 2 seeds",
        "finalist trial 0: 0.620 ± 0.014 over 2 seeds",
        "best: trial 0, 0.620 ± 0.014 val macro-F1 (last epoch, mean and standard deviation over 2 seeds)",
    ]


def test_diverged_finalist_cannot_win(search, retrained):
    finalists.enqueue(retrained, finalists.best_trials(search, 2), SEEDS)
    finish(retrained, {(0.2, 2): 0.9, (0.2, 3): None, (0, 2): 0.5, (0, 3): 0.5})
    result = outcome(search, retrained)
    assert result.chosen.number == 0
    assert str(result.finalists[0]) == "trial 2: 0.900 ± 0.000 over 1 seed, 1 failed"


def test_pending_finalists_leave_the_best_trial_of_the_search(search, retrained):
    assert [str(one) for one in outcome(search, retrained).finalists] == [
        "trial 2: no score, 2 pending",
        "trial 0: no score, 2 pending",
    ]
    finalists.enqueue(retrained, finalists.best_trials(search, 2), SEEDS)
    result = outcome(search, retrained)
    assert result.chosen.number == 2
    assert "0.700 val macro-F1 (best epoch of one training, not retrained with other seeds)" in result.score()
    assert "4 trainings of finalists are pending: repeat the command to continue" in summary(result)


def test_seed_of_the_search_is_not_adopted_from_a_finalist(search, retrained):
    values = {"dropout": 0.4, "seed": 7}
    distributions = {"dropout": SPACE["dropout"], "seed": CategoricalDistribution([7, 8])}
    attributes = {"values": values, "run_id": "run-4"}
    search.add_trial(create_trial(params=values, distributions=distributions, value=0.9, user_attrs=attributes))
    best = finalists.best_trials(search, 1)
    result = Outcome(search, best[0], [])
    assert yaml.safe_load(recipe(result)) == {"train": {"dropout": 0.4, "seed": 7}}
    finalists.enqueue(retrained, best, SEEDS)
    finish(retrained, {(0.4, 2): 0.5, (0.4, 3): 0.5})
    result = Outcome(search, best[0], finalists.results(retrained, best, SEEDS))
    assert yaml.safe_load(recipe(result)) == {"train": {"dropout": 0.4}}
