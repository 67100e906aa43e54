"""Train the verifier of the Haar detector: inference/face_verifier.npz.

    OMP_NUM_THREADS=1 python -m benchmarks.face_verifier --faces build/faces.npz [--pictures FOLDER] --out verifier.npz

Windows that the cascade accepts are collected in scenes with faces of FER-2013's training split. A window on a face is
a positive example, another one a negative example. A network with one hidden layer then separates them. The last
scenes are held out. FOLDER has pictures without faces, for more backgrounds. The shipped file was trained with 19
pictures: brick, cell, chelsea, clock_motion, coins, grass, gravel, horse, hubble_deep_field, ihc, moon, page, retina,
rocket and text of scikit-image 0.26, flower of scikit-learn, and cheetah, cheetah1 and tower of Gradio. One thread
makes the result the same in each run.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from benchmarks.scenes import alter, draw_empty, paste_faces
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

from emotion_detection.arrays import Gray, Images
from emotion_detection.data.dataset import load
from emotion_detection.inference.haar import describe, load_cascade, patches
from emotion_detection.inference.reading import Box

HEIGHT, WIDTH = 360, 480
STAGES = 14  # of the cascade: fewer than the detector's, for more windows that are hard to tell from faces
SCENES = {7: 300, 8: 300, 9: 80, 10: 80, 11: 80, 12: 80}  # seed -> number of scenes
EMPTY = (9, 10, 11, 12)  # seeds of scenes without faces; of the others, two in three have faces
TRAIN_SCENES = 255  # of each seed; the following ones are held out
ON_FACE, BESIDE = 0.45, 0.2  # overlap with a face; windows in between are not used
HIDDEN = 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, help="npz file of the prepare stage, of FER-2013")
    parser.add_argument("--pictures", type=Path, help="folder of pictures without faces")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)  # several threads return windows in any order
    paths = sorted(arguments.pictures.iterdir()) if arguments.pictures else []
    faces = load(arguments.faces).of("train").images
    parts = [collect(faces, paths, seed) for seed in SCENES]
    images, overlaps, scenes = (np.concatenate(part) for part in zip(*parts, strict=True))
    hidden, hidden_bias, output, output_bias = fit(images, overlaps, scenes < TRAIN_SCENES)
    np.savez(arguments.out, hidden=hidden, hidden_bias=hidden_bias, output=output, output_bias=output_bias)


def collect(faces: Images, paths: Sequence[Path], seed: int) -> tuple[Images, NDArray[np.float32], NDArray[np.intp]]:
    """The windows u8 (n, 32, 32), their overlaps with a face and their scenes."""
    cascade, rng = load_cascade(STAGES), np.random.default_rng(seed)
    cut, overlaps, scenes = [], [], []
    for scene in range(SCENES[seed]):
        has_faces = seed not in EMPTY and scene % 3 > 0
        canvas, boxes = draw_scene(faces, paths, rng, has_faces=has_faces)
        windows = np.array(cascade.detectMultiScale(canvas, 1.2, 0, minSize=(20, 20)), int).reshape(-1, 4)
        cut.append(patches(canvas, windows))
        overlaps += [max((Box(*window).overlap(box) for box in boxes), default=0) for window in windows.tolist()]
        scenes += [scene] * len(windows)
    return np.concatenate(cut), np.array(overlaps, np.float32), np.array(scenes)


def draw_scene(
    faces: Images, paths: Sequence[Path], rng: np.random.Generator, *, has_faces: bool
) -> tuple[Gray, list[Box]]:
    canvas = draw_empty(paths, HEIGHT, WIDTH, rng)
    if not has_faces:
        return canvas, []
    chosen = faces[rng.integers(len(faces), size=8)]
    altered = np.array([alter(face, rng, 20) if rng.random() < 0.6 else face for face in chosen])
    sides = np.exp(rng.uniform(np.log(22), np.log(150), 12)).astype(int).tolist()
    boxes = paste_faces(canvas, altered, sides, rng)
    noisy = np.clip(canvas + rng.normal(0, rng.uniform(0, 6), canvas.shape), 0, 255).astype(np.uint8)
    return noisy, boxes


def fit(images: Images, overlaps: NDArray[np.float32], train: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    """Train on the windows and their mirror images. Return the network's arrays."""
    clear = (overlaps < BESIDE) | (overlaps >= ON_FACE)
    images, labels, train = images[clear], overlaps[clear] >= ON_FACE, train[clear]
    examples = np.concatenate([describe(images[train]), describe(images[train][:, :, ::-1])])
    network = MLPClassifier(HIDDEN, alpha=1e-3, batch_size=512, learning_rate_init=2e-3, max_iter=14, random_state=0)
    network.fit(examples, np.tile(labels[train], 2))
    area = roc_auc_score(labels[~train], network.predict_proba(describe(images[~train]))[:, 1])
    print(f"{labels.sum()} windows of faces, {(~labels).sum()} others; area under the ROC curve {area:.4f}")
    (hidden, output), (hidden_bias, output_bias) = network.coefs_, network.intercepts_
    arrays = (hidden, hidden_bias, output[:, 0], output_bias[0])
    return [np.asarray(values, np.float32) for values in arrays]


if __name__ == "__main__":
    main()
