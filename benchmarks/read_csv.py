"""Measure the time and memory of reading fer2013.csv: `python benchmarks/read_csv.py [FILE]`.

Without FILE, a random table of the same size (35,887 rows, about 300 MB) is written to a temporary folder.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from emotion_detection.arrays import Images, Labels

ROWS = 35_887
LIMIT_S = 4.0
LIMIT_MB = 300  # in addition to the interpreter and its libraries; the pixels have 83 MB


def write_table(path: Path, rows: int = ROWS, seed: int = 0) -> tuple[Images, Labels]:
    """Write a table that repeats up to 1,000 random faces; 10 % of the rows are val, and 10 % are test."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (min(rows, 1000), 48, 48), np.uint8)
    texts = [" ".join(map(str, image.ravel().tolist())) for image in images]
    chosen = rng.integers(0, len(images), rows)
    labels = rng.integers(0, 7, rows, np.uint8)
    held_out = round(rows / 10)
    usages = np.repeat(["Training", "PublicTest", "PrivateTest"], [rows - 2 * held_out, held_out, held_out])
    with path.open("w") as file:
        file.write("emotion,pixels,Usage\n")
        for label, index, usage in zip(labels, chosen, usages, strict=True):
            file.write(f"{label},{texts[index]},{usage}\n")
    return images[chosen], labels


def measure(path: Path) -> None:
    """Print the time and the peak memory of reading a file. Call this in a new process."""
    from emotion_detection.data.formats import read_raw

    before = _peak_mb()
    start = time.perf_counter()
    faces = read_raw(path).faces
    seconds = time.perf_counter() - start
    megabytes = _peak_mb() - before
    print(f"{len(faces):,} rows: {seconds:.2f} s (limit {LIMIT_S:g}), {megabytes:.0f} MB (limit {LIMIT_MB})")


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)  # bytes on macOS, KiB on Linux


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--step", choices=["write", "measure"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step == "write":
        write_table(arguments.file)
        return
    if arguments.step == "measure":
        measure(arguments.file)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or Path(folder, "fer2013.csv")
        # A process inherits the peak memory of its parent, so each step runs in a new process.
        for step in ("measure",) if arguments.file else ("write", "measure"):
            subprocess.run([sys.executable, __file__, str(path), "--step", step], check=True)


if __name__ == "__main__":
    main()
