"""Print how long trainings took to reach an accuracy on val, from their runs in the MLflow store.

    python benchmarks/time_to_accuracy.py RUN_ID [RUN_ID ...] [--accuracy 0.632] [--figure time_to_accuracy.png]

The time is the wall-clock time since the start of the run. It includes loading TensorFlow, building the network, and
the validation and checkpoint of every epoch, but not the `prepare` stage, which takes seconds. A run that was
interrupted is refused, because its times include the interruption. 63.2 % is the accuracy that the original project
reports for its network, on val and test together.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import mlflow

from emotion_detection.experiments.store_location import store_uri

MAX_EPOCH = 3  # times the median epoch; a longer epoch was interrupted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN_ID")
    parser.add_argument("--accuracy", type=float, default=0.632, help="accuracy on val to reach, as a fraction")
    parser.add_argument("--figure", type=Path, help="the PNG file to write")
    arguments = parser.parse_args()
    client = mlflow.MlflowClient(store_uri(), store_uri())
    curves = {run: curve(client, run) for run in arguments.runs}
    print(f"{'run':34}{'minutes':>9}{'images/s':>10}{'best val':>10}{f'to {arguments.accuracy:.1%}':>12}")
    for run, points in curves.items():
        reached = next((f"{minutes:.1f} min" for minutes, value in points if value >= arguments.accuracy), "never")
        best = max(value for _, value in points)
        print(f"{name(client, run):34}{points[-1][0]:9.1f}{speed(client, run):10.0f}{best:10.1%}{reached:>12}")
    if arguments.figure:
        draw({name(client, run): points for run, points in curves.items()}, arguments.accuracy, arguments.figure)


def curve(client: mlflow.MlflowClient, run: str) -> list[tuple[float, float]]:
    """Return (minutes since the start of the run, val accuracy) for every epoch."""
    start = client.get_run(run).info.start_time
    epochs = len(client.get_metric_history(run, "images_per_second"))  # excludes the score of the exported model
    history = [metric for metric in client.get_metric_history(run, "val_accuracy") if 1 <= metric.step <= epochs]
    points = [((metric.timestamp - start) / 60_000, metric.value) for metric in history]
    durations = sorted(later[0] - sooner[0] for sooner, later in pairwise(points))
    if durations[-1] > MAX_EPOCH * durations[len(durations) // 2]:
        raise SystemExit(f"run {run} was interrupted for {durations[-1]:.0f} minutes: use an uninterrupted run")
    return points


def name(client: mlflow.MlflowClient, run: str) -> str:
    params = client.get_run(run).data.params
    return f"{params['train.architecture']}, {params['train.epochs']} epochs ({run[:6]})"


def speed(client: mlflow.MlflowClient, run: str) -> float:
    values = [metric.value for metric in client.get_metric_history(run, "images_per_second")]
    return sorted(values)[len(values) // 2]


def draw(curves: dict[str, list[tuple[float, float]]], accuracy: float, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for label, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker=".", label=label)
    axes.axhline(accuracy, color="gray", linestyle="--", label=f"{accuracy:.1%}, reported by the original")
    axes.set(xlabel="minutes since the start", ylabel="val accuracy", title="Accuracy over wall-clock time, two cores")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
