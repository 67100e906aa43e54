"""Measure the training throughput, with alternating batches in a single process.

seed_cnn: this project against the original project. The original trains in float32 on PNG files that the
ImageDataGenerator of Keras reads from class folders. This project trains in mixed_bfloat16, where the CPU supports it,
on an array in memory. fer_resnet: batch normalization in one kernel against that of Keras.

Prints the median images per second and their ratio, with and without the time to fetch a batch. Without it, the
comparison assumes that the loader thread of the original takes no time. Also prints the seconds of each epoch of `fit`
outside its batches: validation, checkpoint and idle time.

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
    parser.add_argument("--batches", type=int, default=60, help="number of batches per variant")
    count = parser.parse_args().batches
    train, resnet = recipe("seed_cnn"), recipe("fer_resnet")
    images, labels = draw_faces(per_class=100, seed=0)
    faces = Faces(images, labels, np.zeros(len(images), np.uint8), np.zeros(len(images), bool))
    with tempfile.TemporaryDirectory() as folder:
        write_folders(faces, Path(folder))
        variants = {"original": original_variant(train, Path(folder)), "ours": our_variant(train, faces)}
        print("seed_cnn; target: at least 1.8 times the original")
        compare(variants, count)
    with patch.object(architectures, "BatchNorm", lambda _, **settings: keras.layers.BatchNormalization(**settings)):
        variants = {"batch normalization of Keras": our_variant(resnet, faces)}
    print("fer_resnet")
    compare(variants | {"ours": our_variant(resnet, faces)}, count)
    print_overhead(train, faces)


def recipe(name: str) -> Train:
    params, fragment = (ROOT / "params.yaml").read_text(), (ROOT / "recipes" / f"{name}.yaml").read_text()
    return check_params(yaml.safe_load(merged(params, fragment, source=name)), name).train


def write_folders(faces: Faces, folder: Path) -> None:
    """Write a PNG per face into a folder per emotion, like the prepare script of the original."""
    for number, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
        path = folder / EMOTIONS[label] / f"im{number}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), image)


def make_step(train: Train, precision: str, steps: Iterator[tuple[Any, Any]]) -> Step:
    """Return a function that fetches a batch, trains on it and returns the seconds of both."""
    model = trainer.build_with(train, precision=precision)
    compile_for(model, train, steps=1000)

    def step() -> tuple[float, float]:
        start = time.perf_counter()
        batch = next(steps)
        fetched = time.perf_counter()
        model.train_on_batch(*batch)
        return fetched - start, time.perf_counter() - fetched

    return step


def original_variant(train: Train, folder: Path) -> Step:
    flow = ImageDataGenerator(rescale=1 / 255).flow_from_directory(
        folder, target_size=(48, 48), batch_size=BATCH, color_mode="grayscale", class_mode="categorical"
    )
    full_batches = (batch for batch in flow if len(batch[0]) == BATCH)  # the last batch is smaller
    return make_step(train, "float32", full_batches)


def our_variant(train: Train, faces: Faces) -> Step:
    return make_step(train, resolve_precision("auto"), endless_batches(train, faces))


def endless_batches(train: Train, faces: Faces) -> Iterator[tuple[Any, Any]]:
    for epoch in range(10_000):
        yield from batches(faces, targets(train, faces)[0], train.augment, batch_size=BATCH, seed=0, epoch=epoch)


def compare(variants: dict[str, Step], count: int) -> None:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for number in range(count + 5):
        for name, step in variants.items():
            seconds = step()
            if number >= 5:  # the first batches include compilation
                times[name].append(seconds)
    for part, first in (("fetching and training", 0), ("training only", 1)):
        speeds = {name: BATCH / median(sum(pair[first:]) for pair in pairs) for name, pairs in times.items()}
        listed = ", ".join(f"{name} {speed:.0f} images/s" for name, speed in speeds.items())
        reference = next(iter(speeds.values()))
        print(f"{part}: {listed}, ratio {speeds['ours'] / reference:.2f}")


def print_overhead(train: Train, faces: Faces) -> None:
    """Print the time between the ends of epochs minus the training time that images_per_second implies."""
    splits = (np.arange(len(faces)) % 8 == 0).astype(np.uint8)  # every eighth face is val
    split_faces = Faces(faces.images, faces.labels, splits, faces.copied)
    faces_per_epoch = len(split_faces.of("train"))
    ends: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer.fit(
            train.model_copy(update={"epochs": 6, "patience": 6}),
            split_faces,
            checkpoint=Path(folder),
            on_epoch=lambda row: ends.append((time.perf_counter(), faces_per_epoch / row["images_per_second"])),
        )
    pairs = pairwise(ends)
    overheads = [f"{end - start - training:.2f} of {end - start:.2f}" for (start, _), (end, training) in pairs]
    print("seconds of an epoch outside its batches:", ", ".join(overheads))


if __name__ == "__main__":
    main()
