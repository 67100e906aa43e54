"""Search better settings of `train` with Optuna: `make tune`. The same command on another machine joins the search."""

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from emotion_detection import space, storages, studies, tracking, workers
from emotion_detection.addresses import shown
from emotion_detection.config import Params, load_params, load_recipe
from emotion_detection.errors import InputError, one_line
from emotion_detection.provenance import provenance
from emotion_detection.replacing import replacing
from emotion_detection.search import progress, search
from emotion_detection.study_figures import draw

WORKER = "emotion_detection.trials"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True, help="params.yaml")
    parser.add_argument("--faces", type=Path, required=True, help="npz file of the prepare stage")
    parser.add_argument("--data-report", type=Path, required=True, help="its JSON report")
    parser.add_argument("--recipes", type=Path, required=True, help="folder of settings that are known to be good")
    parser.add_argument("--out", type=Path, required=True, help="folder for best.yaml, figures and the default storage")
    parser.add_argument("--workers", type=int, default=1, help="processes that share this machine")
    parser.add_argument("--study", default="", help="its name; that of the data set unless told")
    parser.add_argument("--storage", default="", help="sqlite:///, postgresql:// or grpc://, else OPTUNA_STORAGE")
    arguments = parser.parse_args()
    with one_line():
        tune(arguments)


def tune(given: argparse.Namespace) -> None:
    """Open or join the study, search until it is done, and tell what was found; at no moment is anything lost."""
    params = load_params(given.params)
    space.check(params.tune.space, params.train)
    if given.workers < 1:
        raise InputError(f"--workers {given.workers}: one at least has to do the work")
    data = json.loads(_text(given.data_report))
    name = given.study or data["dataset"]
    storage = given.storage or os.environ.get("OPTUNA_STORAGE") or f"sqlite:///{_folder(given.out) / 'study.db'}"
    study, new = studies.open_study(storage, name, about(params, data["digest"], given.recipes))
    with storages.answering(storage), settling(study):
        parent = None if new else studies.wait_for(study, "run_id")
        if parent is not None and not tracking.exists(parent):
            print(f"{shown(tracking.store_uri())} does not know the study's run {parent}: it gets a new one")
            parent = None
        tags = provenance() | {"dataset": data["dataset"], "study": name, "storage": shown(storage)}
        try:
            with tracking.run(parent, name=f"tune {name}", tags=tags) as run:
                if parent is None:
                    run.log_params({"tune": params.tune.model_dump(mode="json")})
                    study.set_user_attr("run_id", run.id)
                _search(study, params, run, storage, given)
                report(study, run, _folder(given.out))
        except OSError as error:
            raise InputError(
                f"{error.filename or given.out} cannot be written ({error.strerror}): free some space or name another "
                "folder with --out; no trial is lost, and the same command goes on"
            ) from error


def about(params: Params, digest: str, recipes: Path) -> dict[str, Any]:
    """What a study searches, as plain values: two that agree on this are one."""
    base = params.train.model_dump(mode="json", exclude={"epochs", "patience"})
    sections: dict[str, Any] = {"params.yaml": {}} | {
        str(path): load_recipe(path) for path in sorted(recipes.glob("*.yaml"))
    }
    return {
        "data": digest,
        "train": base,
        "space": {key: dimension.model_dump(mode="json") for key, dimension in params.tune.space.items()},
        "epochs": params.tune.epochs,
        "known": space.known(params.train, sections, params.tune.space),
    }


def _search(study: studies.Study, params: Params, run: tracking.Run, storage: str, given: argparse.Namespace) -> None:
    tune = params.tune
    studies.revive(study)  # what a killed search left behind
    job = {
        "train": params.train.model_dump(mode="json"),
        "known": study.user_attrs["about"]["known"],
        "tune": tune.model_dump(mode="json"),
        "faces": str(given.faces.resolve()),
        "study": study.study_name,
        "parent": run.id,
    }
    if progress(study).finished >= tune.trials:
        print(f"{study.study_name} has its {tune.trials} trials: raise tune.trials for more")
        return
    crew = workers.start(
        WORKER, [json.dumps(job)], count=given.workers, logs=given.out, told={"OPTUNA_STORAGE": storage}
    )
    search(study, tune, crew, lambda finished, best: run.log_epoch({"epoch": finished, "best_val_macro_f1": best}))


@contextmanager
def settling(study: studies.Study) -> Iterator[None]:
    """Settle with MLflow after the body, whatever came of that."""
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the first error is the one to show
            settle(study)
        raise
    settle(study)


def settle(study: studies.Study) -> None:
    """Tell MLflow what it has missed: epochs while it was away, and the end of trials whose process was killed."""
    for trial in study.get_trials(deepcopy=False):
        if trial.state.is_finished() and "run_id" in trial.user_attrs:
            tracking.settle(trial.user_attrs["run_id"], trial.state.name, trial.user_attrs.get("history", []))


def report(study: studies.Study, run: tracking.Run, folder: Path) -> None:
    """Figures and best.yaml, into the folder and into MLflow."""
    best = progress(study).best
    figures = draw(study, folder)
    if best is not None:
        with replacing(folder / "best.yaml") as written:
            written.write_text(recipe(study, best))
        run.log_file(folder / "best.yaml", "tuning")
    for name in figures:
        run.log_file(folder / f"{name}.png", "tuning")
    finished = progress(study).finished
    print(f"{finished} trials finished; figures in {folder}")
    if best is not None:
        print(f"best: {best.values[0]:.3f} val macro-F1, trial {best.number}; make adopt FROM={folder / 'best.yaml'}")


def recipe(study: studies.Study, best: studies.FrozenTrial) -> str:
    """best.yaml: a recipe with the settings that the search has found."""
    epochs = study.user_attrs["about"]["epochs"]
    return (
        f"# The best of the study {study.study_name}: trial {best.number}, val macro-F1 {best.values[0]:.3f}\n"
        f"# after {epochs} epochs, MLflow run {best.user_attrs['run_id']}.\n"
        "# make adopt takes it over, make repro trains it in full.\n"
        + yaml.safe_dump(space.fragment(best.user_attrs["values"]), sort_keys=False, default_flow_style=None)
    )


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be made ({error.strerror}): name another with --out") from error
    return path.resolve()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}): mend it; `dvc repro prepare` makes what is built"
        ) from error


if __name__ == "__main__":
    main()
