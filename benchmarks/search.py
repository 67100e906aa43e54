"""Compare the search of `make tune` with random search and with the settings in params.yaml, at equal compute.

    python benchmarks/search.py --faces build/faces.npz --out build/search [--share 0.25] [--budget 90] [--seeds 1 2 3]

Compute is counted in image passes: training faces that went through a training step. Each attempt of an arm trains for
tune.epochs. `hand` makes one attempt with params.yaml as it is, `random` samples tune.space without pruning, `search`
is what `make tune` does, without finalists. Prints a table and writes a PNG of the best val macro-F1 of finished
attempts over image passes. Then replays all complete curves to each pruner in many orders: the epochs it saves, the
best value for the same compute, and how well the ranking after each epoch predicts the final one. Resumes when the
command is repeated. --share selects a fraction of the training faces.
"""

import argparse
from collections.abc import Sequence
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
from emotion_detection.tuning.study import FINISHED, TrialMonitor, claim_settings, join_study, open_study, run_trials

PRUNERS = (None, "median", "halving")
ARMS = ("hand", "random", "search")
ORDERS = 40  # in which the recorded curves are replayed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.25, help="fraction of the training faces")
    parser.add_argument("--budget", type=int, default=90, help="epochs of an arm")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arms", nargs="*", default=ARMS, choices=ARMS, help="to train now; the table shows all")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    params, faces = load_params(arguments.params), subset(load(arguments.faces), arguments.share)
    passes = len(faces.of("train"))
    storage = f"sqlite:///{arguments.out.resolve() / 'studies.db'}"
    results: dict[str, list[list[FrozenTrial]]] = {arm: [] for arm in ARMS}
    for seed in arguments.seeds:
        for arm, attempts in results.items():
            budget = arguments.budget if arm in arguments.arms else 0
            attempts.append(run_arm(arm, seed, params, faces, storage, budget))
    if not all(trials for attempts in results.values() for trials in attempts):
        return  # another process trains the other arms
    report(results, passes, arguments.budget, arguments.out / "search.png")
    trials = [trial for arm in results.values() for attempts in arm for trial in attempts]
    replay(trials, params.tune, arguments.budget)


def subset(faces: Faces, share: float) -> Faces:
    """The faces with a fixed random fraction of the train split."""
    kept = np.random.default_rng(0).random(len(faces)) < share
    return faces[kept | (faces.splits != TRAIN)]


def run_arm(arm: str, seed: int, params: Params, faces: Faces, storage: str, budget: int) -> list[FrozenTrial]:
    """Run or resume an arm until its epochs are spent; returns its finished attempts in order."""
    changes = {"seed": seed} if arm == "search" else {"seed": seed, "sampler": "random", "pruner": None}
    tune = params.tune.model_copy(update=changes)
    base = params.train.model_copy(update={"seed": seed})
    known = [point] if arm != "random" and (point := search_space.locate(params.train, tune.space)) else []
    name, about = f"{arm}-{seed}", {"train": base.model_dump(mode="json"), "faces": len(faces)}
    open_study(storage, name, about)
    study = join_study(storage, name, sampler.SeededSampler(tune, known), sampler.create_pruner(tune))
    TrialMonitor(study).requeue_dead_trials()

    def budget_is_spent() -> bool:
        # Failed trials are retried.
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.FAIL]
        epochs = sum(len(trial.intermediate_values) for trial in trials)
        return epochs >= (min(budget, tune.epochs) if arm == "hand" else budget)

    def objective(trial: Trial) -> float:
        values = sampler.suggest(trial, tune.space, base)
        claim_settings(study, trial, values)
        return train_trial(trial, search_space.settings(base, values, epochs=tune.epochs), faces)

    run_trials(study, objective, trials=10_000, stop_requested=budget_is_spent)
    return [trial for trial in study.get_trials() if trial.state in FINISHED]


def train_trial(trial: Trial, train: Train, faces: Faces) -> float:
    def on_epoch(row: dict[str, float]) -> None:
        trial.report(row["val_macro_f1"], int(row["epoch"]))
        if row["epoch"] < train.epochs and trial.should_prune():
            raise optuna.TrialPruned

    try:
        history = fit(train, faces, on_epoch=on_epoch).history
    except DivergedError as error:
        raise optuna.TrialPruned from error
    return max(row["val_macro_f1"] for row in history)


def best_over_epochs(trials: Sequence[FrozenTrial]) -> tuple[list[int], list[float]]:
    """Epochs spent at the end of each attempt, and the best complete value so far, from the first complete one on."""
    epochs, best = [], []
    spent, value = 0, float("-inf")
    for trial in trials:
        spent += len(trial.intermediate_values)
        if trial.state == TrialState.COMPLETE:
            value = max(value, trial.values[0])
        if np.isfinite(value):
            epochs.append(spent)
            best.append(value)
    return epochs, best


def report(results: dict[str, list[list[FrozenTrial]]], passes: int, budget: int, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    print(f"{passes} image passes per epoch, {budget * passes:,} per arm")
    print(f"{'arm':10}{'attempts':>10}{'pruned':>8}{'epochs':>8}  best val macro-F1 of each seed")
    for (arm, attempts), color in zip(results.items(), ("#000000", "#E69F00", "#0072B2"), strict=True):
        for number, trials in enumerate(attempts):
            spent, best = best_over_epochs(trials)
            x = [epochs * passes / 1e6 for epochs in [*spent, max(budget, spent[-1])]]
            label = arm if number == 0 else None
            # Dashed and in front: the search starts with the attempt of `hand`, so the lines can coincide.
            style = {"linestyle": "--", "zorder": 3} if arm == "hand" else {"zorder": 2}
            axes.step(x, [*best, best[-1]], where="post", color=color, label=label, linewidth=1.8, **style)
        everything = [trial for trials in attempts for trial in trials]
        pruned = sum(trial.state == TrialState.PRUNED for trial in everything)
        epochs = sum(len(trial.intermediate_values) for trial in everything)
        values = " ".join(f"{best_over_epochs(trials)[1][-1]:.3f}" for trials in attempts)
        print(f"{arm:10}{len(everything):10}{pruned:8}{epochs:8}  {values}")
    axes.set_xlabel("image passes, millions")
    axes.set_ylabel("best val macro-F1 so far")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E6E6E6")
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)


def replay(trials: Sequence[FrozenTrial], tune: Tune, budget: int) -> None:
    """Replay complete curves to each pruner: the epochs it saves, and the best value within the budget."""
    different = {tuple(trial.intermediate_values.values()) for trial in trials}
    curves = sorted(list(curve) for curve in different if len(curve) == tune.epochs)
    print(f"\n{len(curves)} different complete curves, replayed in {ORDERS} orders")
    final = [max(curve) for curve in curves]
    ranks = (spearmanr([curve[epoch] for curve in curves], final).statistic for epoch in range(tune.epochs))
    print("rank correlation of each epoch with the best value:", " ".join(f"{rank:.2f}" for rank in ranks))
    print(f"{'pruner':10}{'epochs saved':>14}{'finds the best':>16}{f'best in {budget} epochs':>20}")
    for name in PRUNERS:
        pruner = tune.model_copy(update={"pruner": name})
        replayed = [replay_order(curves, pruner, budget, order) for order in range(ORDERS)]
        saved, hit, best = (mean(values) for values in zip(*replayed, strict=True))
        print(f"{name or 'null':10}{saved:14.0%}{hit:16.0%}{best:20.3f}")


def replay_order(curves: list[list[float]], tune: Tune, budget: int, order: int) -> tuple[float, bool, float]:
    """Returns the fraction of epochs saved, whether the best curve was completed, and the best value in the budget."""
    study = optuna.create_study(study_name=f"order-{order}", direction="maximize", pruner=sampler.create_pruner(tune))
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
    total = sum(map(len, curves))
    return 1 - spent / total, best == max(map(max, curves)), in_budget


if __name__ == "__main__":
    main()
