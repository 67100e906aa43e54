"""The search of `make tune` against random draws and against the settings in params.yaml, at equal compute.

    python benchmarks/search.py --faces build/faces.npz --out build/search [--share 0.25] [--budget 90] [--seeds 1 2 3]

Compute is counted in image passes: faces of the train split that went through a training step. In every arm an
attempt trains for tune.epochs: `hand` makes one, with params.yaml as it is; `random` draws from tune.space and prunes
nothing; `search` is what `make tune` does. A table and a PNG of the best val macro-F1 of finished attempts over image
passes. All whole curves are then played to every pruner, in many orders: how much each saves, and what it finds for the
same compute; and how well the order of the attempts after each epoch foretells the last one. Goes on where it was
stopped. --share takes that part of the training faces.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from scipy.stats import spearmanr

from emotion_detection.config import Params, Train, Tune, load_params
from emotion_detection.data.dataset import TRAIN, Faces, load
from emotion_detection.errors import DivergedError
from emotion_detection.training.trainer import fit
from emotion_detection.tuning import sampler, search_space
from emotion_detection.tuning.study import FINISHED, join_study, open_study, requeue_dead_trials, run_trials

PRUNERS = (None, "median", "halving", "hyperband")
ARMS = ("hand", "random", "search")
ORDERS = 40  # in which the recorded curves are played


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.25, help="of the training faces")
    parser.add_argument("--budget", type=int, default=90, help="epochs an arm may spend")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arms", nargs="*", default=ARMS, choices=ARMS, help="to train now; the table tells of all")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    params, faces = load_params(arguments.params), thinned(load(arguments.faces), arguments.share)
    passes = len(faces.of("train"))
    storage = f"sqlite:///{arguments.out.resolve() / 'studies.db'}"
    found: dict[str, list[list[FrozenTrial]]] = {arm: [] for arm in ARMS}
    for seed in arguments.seeds:
        for arm, done in found.items():
            budget = arguments.budget if arm in arguments.arms else 0
            done.append(attempts(arm, seed, params, faces, storage, budget))
    if not all(trials for done in found.values() for trials in done):
        return  # another process trains the other arms
    report(found, passes, arguments.budget, arguments.out / "search.png")
    replay([trial for arm in found.values() for done in arm for trial in done], params.tune, arguments.budget)


def thinned(faces: Faces, share: float) -> Faces:
    """The faces with that share of the train split, drawn once."""
    kept = np.random.default_rng(0).random(len(faces)) < share
    return faces[kept | (faces.splits != TRAIN)]


def attempts(arm: str, seed: int, params: Params, faces: Faces, storage: str, budget: int) -> list[FrozenTrial]:
    """Run an arm until its epochs are spent, or go on with it; its finished attempts in their order."""
    own = {"seed": seed} if arm == "search" else {"seed": seed, "sampler": "random", "pruner": None}
    tune = params.tune.model_copy(update=own)
    base = params.train.model_copy(update={"seed": seed})
    known = [place] if arm != "random" and (place := search_space.place(params.train, tune.space)) else []
    name, about = f"{arm}-{seed}", {"train": base.model_dump(mode="json"), "faces": len(faces)}
    open_study(storage, name, about)
    study = join_study(storage, name, sampler.SeededSampler(tune, known), sampler.pruner(tune))
    requeue_dead_trials(study)

    def spent() -> bool:
        # What was killed is tried again.
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.FAIL]
        epochs = sum(len(trial.intermediate_values) for trial in trials)
        return epochs >= (min(budget, tune.epochs) if arm == "hand" else budget)

    run_trials(study, attempt(base, tune, faces), trials=10_000, asked=spent)
    return [trial for trial in study.get_trials() if trial.state in FINISHED]


def attempt(base: Train, tune: Tune, faces: Faces) -> Callable[[Trial], float]:
    def run(trial: Trial) -> float:
        train = search_space.settings(base, sampler.suggest(trial, tune.space), epochs=tune.epochs)

        def on_epoch(row: dict[str, float]) -> None:
            trial.report(row["val_macro_f1"], int(row["epoch"]))
            if row["epoch"] < train.epochs and trial.should_prune():
                raise optuna.TrialPruned

        try:
            history = fit(train, faces, on_epoch=on_epoch).history
        except DivergedError as error:
            raise optuna.TrialPruned from error
        return max(row["val_macro_f1"] for row in history)

    return run


def best_over_epochs(trials: Sequence[FrozenTrial]) -> tuple[list[int], list[float]]:
    """Epochs spent when an attempt ended, and the best complete value until then; from the first complete one on."""
    at, best = [], []
    spent, value = 0, float("-inf")
    for trial in trials:
        spent += len(trial.intermediate_values)
        if trial.state == TrialState.COMPLETE:
            value = max(value, trial.values[0])
        if np.isfinite(value):
            at.append(spent)
            best.append(value)
    return at, best


def report(found: dict[str, list[list[FrozenTrial]]], passes: int, budget: int, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    print(f"{passes} image passes an epoch, {budget * passes:,} an arm")
    print(f"{'arm':10}{'attempts':>10}{'pruned':>8}{'epochs':>8}  best val macro-F1 of each seed")
    for (arm, done), colour in zip(found.items(), ("#000000", "#E69F00", "#0072B2"), strict=True):
        for number, trials in enumerate(done):
            at, best = best_over_epochs(trials)
            x = [epochs * passes / 1e6 for epochs in [*at, max(budget, at[-1])]]
            label = arm if number == 0 else None
            # Dashed and on top: the search begins with the hand's attempt, and may never better it.
            style = {"linestyle": "--", "zorder": 3} if arm == "hand" else {"zorder": 2}
            axes.step(x, [*best, best[-1]], where="post", color=colour, label=label, linewidth=1.8, **style)
        tried = [trial for trials in done for trial in trials]
        pruned = sum(trial.state == TrialState.PRUNED for trial in tried)
        epochs = sum(len(trial.intermediate_values) for trial in tried)
        values = " ".join(f"{best_over_epochs(trials)[1][-1]:.3f}" for trials in done)
        print(f"{arm:10}{len(tried):10}{pruned:8}{epochs:8}  {values}")
    axes.set_xlabel("image passes, millions")
    axes.set_ylabel("best val macro-F1 so far")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E6E6E6")
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)


def replay(trials: Sequence[FrozenTrial], tune: Tune, budget: int) -> None:
    """Play whole curves to each pruner: epochs saved over all of them, and the best found within the budget."""
    played_out = {tuple(trial.intermediate_values.values()) for trial in trials}
    curves = sorted(list(curve) for curve in played_out if len(curve) == tune.epochs)
    print(f"\n{len(curves)} different whole curves, played in {ORDERS} orders")
    final = [max(curve) for curve in curves]
    ranks = (spearmanr([curve[epoch] for curve in curves], final).statistic for epoch in range(tune.epochs))
    print("rank correlation of each epoch with the best:", " ".join(f"{rank:.2f}" for rank in ranks))
    print(f"{'pruner':10}{'epochs saved':>14}{'finds the best':>16}{f'best in {budget} epochs':>20}")
    for name in PRUNERS:
        played = [play(curves, tune.model_copy(update={"pruner": name}), budget, order) for order in range(ORDERS)]
        saved, hit, best = (mean(values) for values in zip(*played, strict=True))
        print(f"{name:10}{saved:14.0%}{hit:16.0%}{best:20.3f}")


def play(curves: list[list[float]], tune: Tune, budget: int, order: int) -> tuple[float, bool, float]:
    """(share of epochs saved, whether the best curve was let through, best value within the budget) of one order."""
    study = optuna.create_study(study_name=f"order-{order}", direction="maximize", pruner=sampler.pruner(tune))
    spent, best, in_budget = 0, 0.0, 0.0
    for row in np.random.default_rng(order).permutation(len(curves)):
        trial, pruned = study.ask(), False
        for epoch, value in enumerate(curves[row], 1):
            trial.report(value, epoch)
            spent += 1
            if pruned := epoch < len(curves[row]) and trial.should_prune():
                break
        study.tell(trial, None if pruned else max(curves[row]), state=TrialState.PRUNED if pruned else None)
        best = max(best, 0 if pruned else max(curves[row]))
        in_budget = best if spent <= budget else in_budget
    whole = sum(map(len, curves))
    return 1 - spent / whole, best == max(map(max, curves)), in_budget


if __name__ == "__main__":
    main()
