"""Figures of a study: how it went, what mattered, which values did well. Each is one PNG."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import optuna
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter
from optuna.distributions import CategoricalDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots

from emotion_detection.replacing import replacing
from emotion_detection.sheets import DPI, sheet

TARGET = "val macro-F1"
COLOURS = "viridis_r"  # Optuna's own begin with white, on white
COLUMNS = 4  # of slices
SETTING_IN = 1.5  # width that a setting needs to be read in parallel
# name of the file -> what draws it
OPTUNAS: dict[str, Callable[[Study], Any]] = {
    "curves": plots.plot_intermediate_values,
    "timeline": plots.plot_timeline,
    "history": lambda study: plots.plot_optimization_history(study, target_name=TARGET),
    "parallel": lambda study: plots.plot_parallel_coordinate(study, target_name=TARGET),
    "importances": lambda study: plots.plot_param_importances(study, target_name=TARGET),
}


def draw(study: Study, folder: Path) -> list[str]:
    """Write into the folder the figures that the study's trials allow; returns their names."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    possible = 2 if not complete else 4 if len(complete) == 1 else 5  # one value tells nothing of importance
    names = [*OPTUNAS][:possible]
    for name in names:
        with replacing(folder / f"{name}.png") as written:
            _optunas(study, name, written)
    if complete:
        slices(complete, folder / "slices.png")
        names.append("slices")
    return names


def slices(complete: list[FrozenTrial], path: Path) -> None:
    """The value of every complete trial against each setting; the darker, the later."""
    distributions = complete[0].distributions
    rows = -(-len(distributions) // COLUMNS)
    with sheet(path, 2.6 * COLUMNS, 0.5 + 2.1 * rows) as figure:
        figure.suptitle(f"{TARGET} against each setting: the darker, the later the trial", x=0.01, ha="left")
        panels = list(figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).flat)
        for axes in panels[len(distributions) :]:
            axes.set_visible(False)
        for axes, (key, distribution) in zip(panels, distributions.items(), strict=False):
            _slice(axes, [trial for trial in complete if key in trial.params], key, distribution)


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
    order = [trial.number for trial in trials]
    axes.scatter(values, [trial.values[0] for trial in trials], c=order, cmap=COLOURS, s=22, clip_on=False, zorder=3)
    axes.set_title(key)
    axes.grid(axis="y")


def _optunas(study: Study, name: str, path: Path) -> None:
    matplotlib.use("Agg")  # Optuna draws by pyplot, which would look for a window
    with pyplot.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        axes = OPTUNAS[name](study)
        settings = len({key for trial in study.get_trials(deepcopy=False) for key in trial.params})
        if name == "parallel":
            for lines in axes.collections:
                lines.set_cmap(COLOURS)
        axes.figure.set_size_inches(max(8, SETTING_IN * settings) if name == "parallel" else 8, 4.5)
        axes.figure.savefig(path, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
        pyplot.close(axes.figure)
