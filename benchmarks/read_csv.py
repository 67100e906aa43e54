"""How long reading fer2013.csv takes and how much memory: `python benchmarks/read_csv.py [FILE]`.

Without FILE a table of the real one's size (35,887 rows, some 300 MB) is drawn into a temporary folder.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROWS = 35_887
LIMIT_S = 4.0
LIMIT_MB = 300  # above the interpreter with its libraries, the 83 MB of pixels included
USAGES = np.repeat(["Training", "PublicTest", "PrivateTest"], [28_709, 3_589, 3_589])


def write_table(path: Path, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Write 1,000 random faces again and again as text; returns images u8 (n,48,48) and labels u8 (n,)."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (1000, 48, 48), np.uint8)
    texts = [" ".join(map(str, picture.ravel().tolist())) for picture in pictures]
    chosen = rng.integers(0, len(pictures), ROWS)
    labels = rng.integers(0, 7, ROWS, np.uint8)
    with path.open("w") as file:
        file.write("emotion,pixels,Usage\n")
        for label, picture, usage in zip(labels, chosen, USAGES, strict=True):
            file.write(f"{label},{texts[picture]},{usage}\n")
    return pictures[chosen], labels


def measure(path: Path) -> None:
    """Print seconds and peak megabytes of one read; to be run in a process of its own."""
    from emotion_detection.data.formats import read_raw

    before = _peak_mb()
    start = time.perf_counter()
    faces = read_raw(path).faces
    seconds = time.perf_counter() - start
    megabytes = _peak_mb() - before
    print(f"{len(faces):,} rows: {seconds:.2f} s (limit {LIMIT_S:g}), {megabytes:.0f} MB (limit {LIMIT_MB})")


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)  # bytes there, KiB elsewhere


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
        # A process starts with its parent's peak memory, so what needs much runs in a process of its own.
        for step in ("measure",) if arguments.file else ("write", "measure"):
            subprocess.run([sys.executable, __file__, str(path), "--step", step], check=True)


if __name__ == "__main__":
    main()
