"""Training throughput: of seed_cnn, this project's way against the original's, and of fer_resnet, with batch
normalisation in one kernel against Keras's own; batch by batch in one run.

The original trains in float32 on PNG files that Keras's ImageDataGenerator reads from class folders; we train in
mixed_bfloat16 (where the CPU has it) on an array in memory. Prints images a second (medians) and their ratio, once
with the time for fetching a batch and once without it, as if the original's loader thread hid all of its work. Also
prints, for epochs of fit, the seconds that no batch accounts for: validation, checkpoint, and any idle tail.

    python benchmarks/training_speed.py [--batches 60]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import cv2
import keras
import numpy as np
import yaml
from keras.src.legacy.preprocessing.image import ImageDataGenerator  # the class the original uses

from emotion_detection.commands.adopt import merged
from emotion_detection.config import Train, check_params
from emotion_detection.data.dataset import Faces
from emotion_detection.emotions import EMOTIONS
from emotion_detection.model import architectures
from emotion_detection.synthetic.sample import draw_faces
from emotion_detection.training import trainer
from emotion_detection.training.augmentation import batches
from emotion_detection.training.distillation import targets
from emotion_detection.training.optimizer import compile_for, resolve_precision

ROOT = Path(__file__).parents[1]
BATCH = 64
Step = Callable[[], tuple[float, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=60, help="batches timed each way")
    count = parser.parse_args().batches
    train, resnet = recipe("seed_cnn"), recipe("fer_resnet")
    images, labels = draw_faces(per_class=100, seed=0)
    faces = Faces(images, labels, np.zeros(len(images), np.uint8), np.zeros(len(images), bool))
    with tempfile.TemporaryDirectory() as folder:
        write_folders(faces, Path(folder))
        ways = {"original": original_way(train, Path(folder)), "ours": our_way(train, faces)}
        print("seed_cnn; target: at least 1.8 times the original")
        compare(ways, count)
    with patch.object(architectures, "BatchNorm", lambda _, **settings: keras.layers.BatchNormalization(**settings)):
        ways = {"Keras's batch normalisation": our_way(resnet, faces)}
    print("fer_resnet")
    compare(ways | {"ours": our_way(resnet, faces)}, count)
    show_tail(train, faces)


def recipe(name: str) -> Train:
    params, fragment = (ROOT / "params.yaml").read_text(), (ROOT / "recipes" / f"{name}.yaml").read_text()
    return check_params(yaml.safe_load(merged(params, fragment, source=name)), name).train


def write_folders(faces: Faces, folder: Path) -> None:
    """One PNG per face under its emotion, as the original's prepare script leaves them."""
    for number, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
        path = folder / EMOTIONS[label] / f"im{number}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), image)


def stepper(train: Train, precision: str, steps: Iterator[tuple[Any, Any]]) -> Step:
    """A function that fetches one batch and trains on it; returns the seconds of both."""
    model = trainer.build_with(train, precision=precision)
    compile_for(model, train, steps=1000)

    def step() -> tuple[float, float]:
        start = time.perf_counter()
        batch = next(steps)
        fetched = time.perf_counter()
        model.train_on_batch(*batch)
        return fetched - start, time.perf_counter() - fetched

    return step


def original_way(train: Train, folder: Path) -> Step:
    flow = ImageDataGenerator(rescale=1 / 255).flow_from_directory(
        folder, target_size=(48, 48), batch_size=BATCH, color_mode="grayscale", class_mode="categorical"
    )
    whole = (batch for batch in flow if len(batch[0]) == BATCH)  # a smaller last batch would blur the median
    return stepper(train, "float32", whole)


def our_way(train: Train, faces: Faces) -> Step:
    return stepper(train, resolve_precision("auto"), whole_batches(train, faces))


def whole_batches(train: Train, faces: Faces) -> Iterator[tuple[Any, Any]]:
    for epoch in range(10_000):
        yield from batches(faces, targets(train, faces)[0], train.augment, batch_size=BATCH, seed=0, epoch=epoch)


def compare(ways: dict[str, Step], count: int) -> None:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(count + 5):
        for name, step in ways.items():
            seconds = step()
            if number >= 5:  # the first ones compile
                times[name].append(seconds)
    for what, first in (("fetching and training", 0), ("training alone", 1)):
        speeds = {name: BATCH / median(sum(pair[first:]) for pair in pairs) for name, pairs in times.items()}
        shown = ", ".join(f"{name} {speed:.0f} images/s" for name, speed in speeds.items())
        other = next(iter(speeds.values()))
        print(f"{what}: {shown}, ratio {speeds['ours'] / other:.2f}")


def show_tail(train: Train, faces: Faces) -> None:
    """The wall clock from epoch to epoch, less the seconds that training took by the history's own speed."""
    splits = (np.arange(len(faces)) % 8 == 0).astype(np.uint8)  # an eighth is val
    part = Faces(faces.images, faces.labels, splits, faces.copied)
    ends: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer.fit(
            train.model_copy(update={"epochs": 6, "patience": 6}),
            part,
            checkpoint=Path(folder),
            on_epoch=lambda row: ends.append((time.perf_counter(), len(part.of("train")) / row["images_per_second"])),
        )
    pairs = pairwise(ends)
    rest = [f"{end - before - taught:.2f} of {end - before:.2f}" for (before, _), (end, taught) in pairs]
    print("seconds of an epoch outside its batches:", ", ".join(rest))


if __name__ == "__main__":
    main()
