"""Figures of a study, one PNG each: progress, importance of the settings, and their values."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import optuna
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.ticker import NullFormatter
from optuna.distributions import CategoricalDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots

from emotion_detection.atomic import atomic_output
from emotion_detection.plotting.style import DPI, saved_figure

TARGET = "val macro-F1"  # of pruned trials: the last value before pruning
COLORS = "viridis_r"  # Optuna's color map starts with white
COLUMNS = 4  # of the slices figure
SETTING_WIDTH_IN = 1.5  # inches for each setting of the parallel figure
# File name -> function that draws the figure.
OF_TRIALS: dict[str, Callable[[Study], Any]] = {
    "curves": plots.plot_intermediate_values,
    "timeline": plots.plot_timeline,
}
OF_VALUES: dict[str, Callable[[Study], Any]] = {
    "history": lambda study: plots.plot_optimization_history(study, target_name=TARGET),
    "parallel": lambda study: plots.plot_parallel_coordinate(study, target_name=TARGET),
    "importances": lambda study: plots.plot_param_importances(study, target_name=TARGET),
}


def draw(study: Study, folder: Path) -> list[str]:
    """Write the figures for which the study has enough trials into the folder; returns their names."""
    for name in OF_TRIALS:
        _draw_with_optuna(study, name, folder)
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    valued = [trial for trial in finished if trial.value is not None]  # pruned trials without an epoch have none
    if not any(trial.state == TrialState.COMPLETE for trial in valued):
        return [*OF_TRIALS]
    possible = [*OF_VALUES][: 2 if len(valued) == 1 else 3]  # importances need two values
    copied = _with_pruned_as_complete(study)
    for name in possible:
        _draw_with_optuna(copied, name, folder)
    slices(valued, folder / "slices.png")
    return [*OF_TRIALS, *possible, "slices"]


def _with_pruned_as_complete(study: Study) -> Study:
    """A copy in memory whose pruned trials are complete, because Optuna's figures omit pruned trials."""
    copied = optuna.create_study(direction=study.direction)
    for trial in study.get_trials():
        if trial.state == TrialState.PRUNED and trial.value is not None:
            trial.state = TrialState.COMPLETE
        if trial.state.is_finished():
            copied.add_trial(trial)
    return copied


def slices(trials: list[FrozenTrial], path: Path) -> None:
    """Draw the value of the trials over each setting. Later trials are darker; pruned trials are rings.

    A panel shows only the trials that have its setting.
    """
    distributions = {key: value for trial in trials for key, value in trial.distributions.items()}
    rows = -(-len(distributions) // COLUMNS)
    with saved_figure(path, 2.6 * COLUMNS, 0.5 + 2.1 * rows) as figure:
        figure.suptitle(f"{TARGET}; later trials are darker, rings are pruned trials", x=0.01, ha="left")
        panels = list(figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).flat)
        for axes in panels[len(distributions) :]:
            axes.set_visible(False)
        for axes, (key, distribution) in zip(panels, distributions.items(), strict=False):
            _slice(axes, [trial for trial in trials if key in trial.params], key, distribution)


def _slice(axes: Axes, trials: list[FrozenTrial], key: str, distribution: Any) -> None:
    values = [trial.params[key] for trial in trials]
    if isinstance(distribution, CategoricalDistribution):
        choices = [str(choice) for choice in distribution.choices]
        values = [choices.index(str(value)) for value in values]
        axes.set_xticks(range(len(choices)), choices, rotation=20 if len(choices) > 2 else 0)
        axes.set_xlim(-0.5, len(choices) - 0.5)
    else:
        axes.set_xscale("log" if distribution.log else "linear")
        axes.set_xlim(distribution.low, distribution.high)
        axes.xaxis.set_minor_formatter(NullFormatter())
    order = Normalize(trials[0].number, trials[-1].number)
    colors = [matplotlib.colormaps[COLORS](order(trial.number)) for trial in trials]
    complete = [trial.state == TrialState.COMPLETE for trial in trials]
    fills = [color if filled else "none" for color, filled in zip(colors, complete, strict=True)]
    scores = [trial.values[0] for trial in trials]
    axes.scatter(values, scores, s=22, edgecolors=colors, facecolors=fills, clip_on=False, zorder=3)
    axes.set_title(key)
    axes.grid(axis="y")


def _draw_with_optuna(study: Study, name: str, folder: Path) -> None:
    matplotlib.use("Agg")  # Optuna uses pyplot, which would otherwise need a display
    with atomic_output(folder / f"{name}.png") as written, pyplot.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        axes = (OF_TRIALS | OF_VALUES)[name](study)
        settings = len({key for trial in study.get_trials(deepcopy=False) for key in trial.params})
        if name == "parallel":
            for lines in axes.collections:
                lines.set_cmap(COLORS)
        axes.figure.set_size_inches(max(8, SETTING_WIDTH_IN * settings) if name == "parallel" else 8, 4.5)
        axes.figure.savefig(written, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
        pyplot.close(axes.figure)
