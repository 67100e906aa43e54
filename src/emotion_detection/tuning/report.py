"""The results of a search: best.yaml, a recipe for `make adopt`, and the summary that the command prints."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import fill

import yaml
from optuna.study import Study
from optuna.trial import FrozenTrial

from emotion_detection.tuning import search_space
from emotion_detection.tuning.finalists import Finalist, winner

WIDTH = 120


@dataclass(frozen=True)
class Outcome:
    """The results of a search so far."""

    study: Study
    best: FrozenTrial  # of the search
    finalists: Sequence[Finalist]

    @property
    def winner(self) -> Finalist | None:
        return winner(self.finalists)

    @property
    def chosen(self) -> FrozenTrial:
        """The trial of the winner, or else the best trial of the search."""
        return self.winner.trial if self.winner else self.best

    def score(self) -> str:
        """The val macro-F1 of the chosen trial, and how it was measured."""
        if self.winner:
            mean, std, seeds = self.winner.mean, self.winner.std, self.winner.seeds
            return f"{mean:.3f} ± {std:.3f} val macro-F1 (last epoch, mean and standard deviation over {seeds})"
        return f"{self.best.values[0]:.3f} val macro-F1 (best epoch of one training, not retrained with other seeds)"


def recipe(outcome: Outcome) -> str:
    """best.yaml: a recipe with the settings of the chosen trial."""
    study, trial = outcome.study, outcome.chosen
    comment = (
        f"The best settings of the search {study.study_name}: trial {trial.number}, {outcome.score()} after "
        f"{study.user_attrs['about']['epochs']} epochs. MLflow run {trial.user_attrs['run_id']}. "
        "`make adopt` writes them into params.yaml, and `make repro` trains with them."
    )
    values = {key: value for key, value in trial.user_attrs["values"].items() if key != "seed" or not outcome.winner}
    settings = yaml.safe_dump(search_space.fragment(values), sort_keys=False, default_flow_style=None)
    return f"{fill(comment, WIDTH, initial_indent='# ', subsequent_indent='# ')}\n{settings}"


def summary(outcome: Outcome) -> Iterator[str]:
    """Lines for the person who started the search."""
    yield from (f"finalist {finalist}" for finalist in outcome.finalists)
    pending = sum(finalist.pending for finalist in outcome.finalists)
    if pending:
        yield f"{pending} trainings of finalists are pending: repeat the command to continue"
    yield f"best: trial {outcome.chosen.number}, {outcome.score()}"
