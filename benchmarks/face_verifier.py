"""Train the verifier of the Haar detector: inference/face_verifier.npz.

    python -m benchmarks.face_verifier --faces build/faces.npz [--pictures FOLDER] [--scenes 500] --out verifier.npz

Windows that the cascade accepts are collected in scenes with faces of FER-2013's training split. A window on a face is
a positive example, another one a negative example. FOLDER has pictures without faces, for more backgrounds. The shipped
file was trained with 22 pictures of scikit-image, scikit-learn and Gradio, and also with windows of OpenCV's default
cascade. A logistic regression then separates their histograms of gradients.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from benchmarks.scenes import alter, draw_empty, paste_faces
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from emotion_detection.arrays import Images
from emotion_detection.data.dataset import load
from emotion_detection.inference.haar import CASCADE, SCALE_FACTOR, SMALLEST_PX, gradients
from emotion_detection.inference.reading import Box

HEIGHT, WIDTH = 360, 480


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, help="npz file of the prepare stage, of FER-2013")
    parser.add_argument("--pictures", type=Path, help="folder of pictures without faces")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    paths = sorted(arguments.pictures.iterdir()) if arguments.pictures else []
    features, labels, scenes = collect(load(arguments.faces).of("train").images, paths, arguments.scenes)
    kept = scenes < 0.8 * arguments.scenes
    held_out = fit(features[kept], labels[kept])
    area = roc_auc_score(labels[~kept], held_out.decision_function(features[~kept]))
    print(f"{(labels == 1).sum()} windows of faces, {(labels == 0).sum()} others; area under the ROC curve {area:.3f}")
    model = fit(features, labels)
    np.savez(arguments.out, weights=model.coef_[0].astype(np.float32), bias=np.float32(model.intercept_[0]))


def collect(
    faces: Images, paths: Sequence[Path], count: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.intp]]:
    """The gradients f32 (n, 324) of all windows and their mirror images, whether they are faces, and their scenes."""
    cascade, rng = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADE), np.random.default_rng(7)
    features, labels, scenes = [], [], []
    for scene in range(count):
        canvas, boxes = draw_empty(paths, HEIGHT, WIDTH, rng), list[Box]()
        if scene % 3:
            chosen = faces[rng.integers(len(faces), size=8)]
            altered = np.array([alter(face, rng, 15) if rng.random() < 0.6 else face for face in chosen])
            sides = np.exp(rng.uniform(np.log(22), np.log(150), 12)).astype(int).tolist()
            boxes = paste_faces(canvas, altered, sides, rng)
            canvas = np.clip(canvas + rng.normal(0, 4, canvas.shape), 0, 255).astype(np.uint8)
        for window in cascade.detectMultiScale(canvas, SCALE_FACTOR, 0, minSize=(SMALLEST_PX, SMALLEST_PX)):
            box = Box(*map(int, window))
            overlap = max((box.overlap(other) for other in boxes), default=0)
            if 0.2 <= overlap < 0.45:
                continue
            mirrored = Box(WIDTH - box.left - box.width, box.top, box.width, box.height)
            features += [gradients(canvas, box), gradients(canvas[:, ::-1], mirrored)]
            labels += 2 * [overlap >= 0.45]
            scenes += 2 * [scene]
    return np.array(features), np.array(labels, np.uint8), np.array(scenes)


def fit(features: NDArray[np.float32], labels: NDArray[np.uint8]) -> LogisticRegression:
    return LogisticRegression(C=0.1, max_iter=500, class_weight="balanced").fit(features, labels)


if __name__ == "__main__":
    main()
