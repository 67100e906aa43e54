"""Trials per hour of `make tune` with one worker and with two, on prepared faces.

    python benchmarks/search_workers.py [--trials 6] [--rounds 2] [--workers 1 2]

Each measurement runs the command from start to end, with a new study, MLflow store and folder. Pruning and finalists
are off, so that all measurements train the same epochs. The numbers of workers alternate.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import yaml

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--faces", type=Path, default=ROOT / "build" / "faces.npz")
    arguments = parser.parse_args()
    speeds: dict[int, list[float]] = {workers: [] for workers in arguments.workers}
    for _ in range(arguments.rounds):
        for workers, measured in speeds.items():
            seconds = search(arguments.faces.resolve(), workers, arguments.trials)
            measured.append(3600 * arguments.trials / seconds)
            print(f"{workers} workers: {seconds:.0f} s, {measured[-1]:.0f} trials per hour", flush=True)
    first = median(speeds[arguments.workers[0]])
    for workers, measured in speeds.items():
        print(f"{workers} workers: {median(measured):.0f} trials per hour, {median(measured) / first:.2f}x")


def search(faces: Path, workers: int, trials: int) -> float:
    """The duration of one search in seconds."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["tune"] |= {"trials": trials, "pruner": None, "minutes": 0, "finalists": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        command = [sys.executable, "-m", "emotion_detection", "tune", "--params", "params.yaml", "--out", "out"]
        command += ["--faces", str(faces), "--data-report", str(faces.with_name("data_report.json"))]
        command += ["--recipes", str(ROOT / "recipes"), "--workers", str(workers)]
        store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "PYTHONPATH": str(ROOT / "src")}
        start = time.monotonic()
        subprocess.run(command, cwd=folder, env=os.environ | store, check=True, capture_output=True)
        return time.monotonic() - start


if __name__ == "__main__":
    main()
