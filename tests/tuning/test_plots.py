"""The figures of a study."""

from unittest.mock import Mock

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from emotion_detection.tuning import plots

SPACE = {
    "learning_rate": FloatDistribution(0.01, 0.3, log=True),
    "dropout": FloatDistribution(0, 0.5),
    "widths": CategoricalDistribution(["[8, 16]", "[16, 32]", "[32, 64]"]),
    "batch_size": CategoricalDistribution([64, 128]),
    "augment.shift": FloatDistribution(0, 0.1),
}
ALL = {"history", "curves", "timeline", "parallel", "importances", "slices"}


def study(complete: int, pruned: int = 0) -> optuna.Study:
    made = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(complete + pruned):
        trial = made.ask(SPACE)
        trial.report(0.1, 1)
        if number < complete:
            made.tell(trial, trial.params["dropout"])
        else:
            made.tell(trial, state=TrialState.PRUNED)
    return made


@pytest.mark.parametrize(
    ("complete", "pruned", "expected"),
    [
        (5, 2, ALL),
        (1, 2, ALL),
        (1, 0, ALL - {"importances"}),
        (0, 2, {"curves", "timeline"}),
    ],
)
def test_figures_depend_on_the_trials(tmp_path, complete, pruned, expected):
    names = plots.draw(study(complete, pruned), tmp_path)
    assert set(names) == expected == {path.stem for path in tmp_path.iterdir()}
    assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())


def test_study_without_trials_has_two_figures(tmp_path):
    assert set(plots.draw(study(0), tmp_path)) == {"curves", "timeline"}


def test_slices_show_settings_that_only_some_trials_have(tmp_path, monkeypatch):
    made = study(3)
    distributions = {"dropout": SPACE["dropout"], "momentum": FloatDistribution(0, 1)}
    made.add_trial(create_trial(params={"dropout": 0.1, "momentum": 0.9}, distributions=distributions, value=0.3))
    panels = Mock(wraps=plots._slice)
    monkeypatch.setattr(plots, "_slice", panels)
    plots.slices(made.get_trials(), tmp_path / "slices.png")
    assert (tmp_path / "slices.png").exists()
    shown = {call.args[2]: len(call.args[1]) for call in panels.call_args_list}
    assert shown == dict.fromkeys(SPACE, 3) | {"dropout": 4, "momentum": 1}


def test_importances_and_parallel_figures_include_settings_that_only_some_trials_have(tmp_path):
    made = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(12):
        trial = made.ask()
        value = trial.suggest_float("dropout", 0, 0.5)
        if trial.suggest_categorical("architecture", ["fer_resnet", "mini_xception"]) == "fer_resnet":
            value += trial.suggest_categorical("widths", ["[8, 16]", "[16, 32]"]) == "[8, 16]"
        trial.report(value, number)
        made.tell(trial, value)
    assert set(plots.draw(made, tmp_path)) == ALL
    assert optuna.importance.get_param_importances(made)["widths"] > 0


def test_figures_show_pruned_trials_with_their_numbers(monkeypatch, tmp_path):
    made = study(1)
    made.tell(made.ask(SPACE), state=TrialState.FAIL)
    pruned = made.ask(SPACE)
    pruned.report(0.2, 1)
    made.tell(pruned, state=TrialState.PRUNED)
    history = Mock(wraps=plots.OF_VALUES["history"])
    monkeypatch.setitem(plots.OF_VALUES, "history", history)
    plots.draw(made, tmp_path)
    complete = history.call_args.args[0].get_trials(states=(TrialState.COMPLETE,))
    assert [(trial.number, trial.value) for trial in complete] == [(0, made.trials[0].value), (2, 0.2)]
    assert [trial.state for trial in made.trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED]


def test_drawing_does_not_change_the_style_of_other_figures(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.draw(study(2), tmp_path)
    assert {key for key, value in matplotlib.rcParams.items() if before[key] != value} <= {"backend"}
