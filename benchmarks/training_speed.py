"""Training throughput of seed_cnn: this project's way against the original's, batch by batch in one run.

The original trains in float32 on PNG files that Keras's ImageDataGenerator reads from class folders; we train in
mixed_bfloat16 (where the CPU has it) on an array in memory. Also shows that no time passes between an epoch's last
batch and its end. Prints images a second (medians) and their ratio.

    python benchmarks/training_speed.py [--batches 60]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import yaml
from keras.src.legacy.preprocessing.image import ImageDataGenerator  # the class the original uses

from emotion_detection import training
from emotion_detection.batches import batches
from emotion_detection.config import Train, check_params
from emotion_detection.dataset import Faces
from emotion_detection.labels import EMOTIONS
from emotion_detection.optimization import compile_for, resolve_precision
from emotion_detection.stages.adopt import merged
from emotion_detection.synthetic import draw_faces

ROOT = Path(__file__).parents[1]
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=60, help="batches timed each way")
    count = parser.parse_args().batches
    train = seed_recipe()
    images, labels = draw_faces(per_class=100, seed=0)
    faces = Faces(images, labels, np.zeros(len(images), np.uint8), np.zeros(len(images), bool))
    with tempfile.TemporaryDirectory() as folder:
        write_folders(faces, Path(folder))
        ways = {"original": original_way(train, Path(folder)), "ours": our_way(train, faces)}
        compare(ways, count)
    show_tail(train, faces)


def seed_recipe() -> Train:
    params, recipe = (ROOT / "params.yaml").read_text(), (ROOT / "recipes" / "seed_cnn.yaml").read_text()
    return check_params(yaml.safe_load(merged(params, recipe, source="seed_cnn.yaml")), "seed_cnn.yaml").train


def write_folders(faces: Faces, folder: Path) -> None:
    """One PNG per face under its emotion, as the original's prepare script leaves them."""
    for number, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
        path = folder / EMOTIONS[label] / f"im{number}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), image)


def stepper(train: Train, precision: str, steps: Iterator[tuple[Any, Any]]) -> Callable[[], None]:
    """A function that fetches one batch and trains on it."""
    model = training.build_with(train, precision=precision)
    compile_for(model, train, steps=1000)

    def step() -> None:
        model.train_on_batch(*next(steps))

    return step


def original_way(train: Train, folder: Path) -> Callable[[], None]:
    flow = ImageDataGenerator(rescale=1 / 255).flow_from_directory(
        folder, target_size=(48, 48), batch_size=BATCH, color_mode="grayscale", class_mode="categorical"
    )
    whole = ((images, labels) for images, labels in flow if len(images) == BATCH)
    return stepper(train, "float32", whole)


def our_way(train: Train, faces: Faces) -> Callable[[], None]:
    return stepper(train, resolve_precision("auto"), whole_batches(train, faces))


def whole_batches(train: Train, faces: Faces) -> Iterator[tuple[Any, Any]]:
    """Epoch after epoch without the smaller last batch, which would blur the median."""
    for epoch in range(10_000):
        for images, labels in batches(faces, train.augment, batch_size=BATCH, seed=0, epoch=epoch):
            if len(images) == BATCH:
                yield images, training.ONE_HOT[labels]


def compare(ways: dict[str, Callable[[], None]], count: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(count + 5):
        for name, step in ways.items():
            start = time.perf_counter()
            step()
            if number >= 5:  # the first ones compile
                times[name].append(time.perf_counter() - start)
    speeds = {name: BATCH / median(seconds) for name, seconds in times.items()}
    for name, speed in speeds.items():
        print(f"{name:9} {speed:6.0f} images/s, median of {count} batches of {BATCH}")
    print(f"ratio     {speeds['ours'] / speeds['original']:6.2f} (target: at least 1.8)")


def show_tail(train: Train, faces: Faces) -> None:
    """Seconds of an epoch that no batch accounts for."""
    both = Faces(faces.images, faces.labels, np.arange(len(faces), dtype=np.uint8) % 2, faces.copied)
    with tempfile.TemporaryDirectory() as folder:
        ends: list[float] = []
        training.fit(
            train.model_copy(update={"epochs": 4}),
            both,
            checkpoint=Path(folder),
            on_epoch=lambda row: ends.append(len(both) / 2 / row["images_per_second"]),
        )
    print("epochs of the same 6 batches, seconds:", ", ".join(f"{seconds:.2f}" for seconds in ends[1:]))


if __name__ == "__main__":
    main()
