"""Measure `emotion-detection batch`: pictures per second with 1 and 2 workers, and memory for more and more pictures.

    python -m benchmarks.batch [--photos 300] [--crops 1000,10000] [--folder FOLDER]

The photos have 640x480 pixels and none to two drawn faces, which the default detector finds. The crops are drawn faces
of 48x48 pixels, which are read with --crops. All are written to FOLDER (by default a temporary one) before they are
read. CPU seconds count all processes; they do not depend on what else the machine does, unlike the time. The peak of
memory is that of the largest process. The last lines calculate what 100 million pictures would take.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_detection.inference.pretrained import MODEL
from emotion_detection.synthetic.sample import draw_faces

MANY = 100_000_000
VARIANTS = 100  # different pictures; the others are copies with another name
PER_FOLDER = 1000


@dataclass(frozen=True)
class Measurement:
    pictures: int
    wall_s: float
    cpu_s: float
    peak_mb: float
    out_bytes: int
    plan_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=300, help="number of photos; 0 leaves them out")
    parser.add_argument("--crops", default="1000,10000", help="numbers of crops, separated by commas")
    parser.add_argument("--folder", type=Path, help="where to write the pictures and the tables")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        photos = []
        if arguments.photos:
            source = write(folder / "photos", draw_photos(), arguments.photos)
            photos = [measure(source, folder / f"photos-{workers}", workers, arguments.photos) for workers in (1, 2)]
        crops = []
        for count in map(int, arguments.crops.split(",")):
            source = write(folder / f"crops-{count}", draw_crops(), count)
            crops.append(measure(source, folder / f"out-{count}", 1, count, "--crops"))
    for name, results in (("640x480 photos, 1 and 2 workers", photos), ("crops, 1 worker", crops)):
        print(f"\n{name}\n{'pictures':>10}{'per s':>9}{'CPU ms':>9}{'peak MB':>9}{'B per picture':>15}")
        for one in results:
            rate, cpu_ms = one.pictures / one.wall_s, 1000 * one.cpu_s / one.pictures
            size = one.out_bytes / one.pictures
            print(f"{one.pictures:10,}{rate:9.1f}{cpu_ms:9.2f}{one.peak_mb:9.0f}{size:15.0f}")
    for name, results in (("photos", photos), ("crops", crops)):
        if results:
            print(paper_sum(name, results[-1]))


def paper_sum(name: str, one: Measurement) -> str:
    """What 100 million pictures of this kind would take, calculated from this measurement."""
    days, scale = one.cpu_s / one.pictures * MANY / 86_400, MANY / one.pictures / 1e9
    return (
        f"100 million {name}: {days:.1f} days of one core, {MANY // 1000:,} parts, {one.out_bytes * scale:.0f} GB of "
        f"tables, {one.plan_bytes * scale:.1f} GB for the plan"
    )


def write(folder: Path, files: Sequence[bytes], count: int) -> Path:
    for number in range(count):
        if number % PER_FOLDER == 0:
            (folder / f"{number // PER_FOLDER:05}").mkdir(parents=True, exist_ok=True)
        path = folder / f"{number // PER_FOLDER:05}" / f"{number:08}.jpg"
        path.write_bytes(files[number % len(files)])
    return folder


def draw_photos() -> list[bytes]:
    """JPEG files with none to two faces."""
    rng, faces = np.random.default_rng(0), draw_faces(per_class=10, seed=1)[0]
    photos = []
    for number in range(VARIANTS):
        photo = cv2.resize(rng.integers(60, 200, (12, 16), dtype=np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
        for place in range(number % 3):
            side = int(rng.integers(90, 220))
            left = 40 + 300 * place
            photo[100 : 100 + side, left : left + side] = cv2.resize(faces[rng.integers(len(faces))], (side, side))
        photos.append(jpeg(photo))
    return photos


def draw_crops() -> list[bytes]:
    return [jpeg(face) for face in draw_faces(per_class=VARIANTS // 7, seed=2)[0]]


def jpeg(image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


def measure(source: Path, out: Path, workers: int, pictures: int, *flags: str) -> Measurement:
    """Run the command in a process of its own. A folder of an earlier run would be finished already."""
    if out.exists():
        sys.exit(f"{out} exists already: remove it, or use another --folder")
    command = [sys.executable, "-m", "emotion_detection", "batch", str(source), "--out", str(out)]
    options = ["--workers", str(workers), "--model", str(MODEL), "--part-size", "100" if pictures < 1000 else "1000"]
    start = time.perf_counter()
    process = subprocess.Popen([*command, *options, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"the command failed with status {process.returncode}")
    size = sum(path.stat().st_size for path in out.rglob("*.parquet"))
    cpu_s, peak_mb = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000
    plan = (out / "_plan.jsonl").stat().st_size
    return Measurement(pictures, time.perf_counter() - start, cpu_s, peak_mb, size, plan)


if __name__ == "__main__":
    main()
