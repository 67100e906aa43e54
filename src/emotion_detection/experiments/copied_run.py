"""The run of a training, also in a store that has never had it: a new store, or that of another machine."""

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from emotion_detection.decoding.json_text import read_json
from emotion_detection.errors import DataError
from emotion_detection.experiments.delivery import locate
from emotion_detection.experiments.provenance import model_digests
from emotion_detection.experiments.runs import Run, find_run, start_run

CURVES = {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "val_macro_f1", "learning_rate"}
COPY_OF = "copy_of_run"  # the tag with the ID of the run in the store of the training


@contextmanager
def training_run(model: Path, report: Path, tags: Mapping[str, str]) -> Iterator[Run]:
    """Resume the run in which a model was trained. A store without it gets a copy, made from the files.

    model, report: the folders of the train and the evaluate stage. tags: those of a copy. Raises StoreError if the
    store does not respond, and DataError if a file is damaged.
    """
    original = read_json(model / "run.json", "run_id")["run_id"]
    run_id = locate(original) or find_run({COPY_OF: original}) or _copy(model, report, tags)
    with start_run(run_id) as run:
        yield run


def _copy(model: Path, report: Path, tags: Mapping[str, str]) -> str:
    """A new run with the settings, the epochs, the scores and the report of the training; returns its ID."""
    about = read_json(model / "run.json", "run_id", "train")
    history = read_history(model / "history.csv")
    with start_run(name=f"copy of the run {about['run_id']}", tags=tags) as run:
        run.log_params({"train": about["train"]})
        run.tag_all(model_digests(model))
        run.log_history(history, model / "history.csv")
        run.log_scores(read_json(report / "metrics.json"), history)
        run.log_folder(report, "report")
        run.tag(COPY_OF, about["run_id"])  # last: an interrupted copy is not used
    return run.id


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the history of a training. Raises DataError if it is missing or damaged."""
    try:
        with path.open(newline="") as stream:
            history = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]
        if history and all(row.keys() >= CURVES for row in history):
            return history
    except (OSError, ValueError, TypeError, csv.Error):
        pass
    raise DataError(f"{path} is missing or damaged: repeat `dvc repro`, which writes it")
