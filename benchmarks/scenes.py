"""Pictures of the benchmarks of detectors: faces of many sizes, turns and lights, and pictures without faces."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from emotion_detection.arrays import Gray, Images
from emotion_detection.evaluation.detector_crops import PADDING, draw_background, paste_face
from emotion_detection.inference.reading import Box

DISTANCE = 0.3  # of a face's side: the least space around it


def draw_structure(height: int, width: int, rng: np.random.Generator) -> Gray:
    """Draw shapes and letters in front of noise."""
    canvas = draw_background(height, width, rng)
    for _ in range(int(rng.integers(10, 40))):
        shade, line = int(rng.integers(256)), int(rng.integers(1, 6))
        (left, top), (right, bottom) = rng.integers(0, (width, height), (2, 2)).tolist()
        radius, other = rng.integers(4, height // 4, 2).tolist()
        match rng.integers(5):
            case 0:
                cv2.rectangle(canvas, (left, top), (right, bottom), shade, line)
            case 1:
                cv2.circle(canvas, (left, top), radius, shade, -1 if line > 3 else line)
            case 2:
                cv2.line(canvas, (left, top), (right, bottom), shade, line)
            case 3:
                cv2.ellipse(canvas, (left, top), (radius, other), float(rng.uniform(0, 180)), 0, 360, shade, line)
            case 4:
                text = "".join(map(chr, rng.integers(48, 123, 6)))
                cv2.putText(canvas, text, (left, top), int(rng.integers(8)), float(rng.uniform(0.5, 4)), shade, line)
    return cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.5, 1.5))


def crop_picture(paths: Sequence[Path], height: int, width: int, rng: np.random.Generator) -> Gray:
    """A random part of a random picture."""
    path = paths[int(rng.integers(len(paths)))]
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert picture is not None, f"{path} cannot be read"
    scale = max(height / picture.shape[0], width / picture.shape[1]) * rng.uniform(1, 1.6)
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    top, left = int(rng.integers(picture.shape[0] - height + 1)), int(rng.integers(picture.shape[1] - width + 1))
    part = picture[top : top + height, left : left + width]
    return np.ascontiguousarray(part[:, ::-1] if rng.random() < 0.5 else part)


def draw_empty(paths: Sequence[Path], height: int, width: int, rng: np.random.Generator) -> Gray:
    """A picture without faces: a part of one of `paths`, if there are any, or a drawn one."""
    kind = int(rng.integers(0 if paths else 1, 3))
    if kind == 0:
        return crop_picture(paths, height, width, rng)
    return draw_structure(height, width, rng) if kind == 1 else draw_background(height, width, rng)


def alter(face: Gray, rng: np.random.Generator, degrees: float) -> Gray:
    """Turn a face by up to `degrees` and change its light."""
    turn = cv2.getRotationMatrix2D((23.5, 23.5), rng.uniform(-degrees, degrees), 1)
    turned = cv2.warpAffine(face, turn, (48, 48), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    slope = 1 + np.linspace(-1, 1, 48) * rng.uniform(-0.5, 0.5)
    light = 255 * (turned / 255) ** rng.uniform(0.6, 1.8) * rng.uniform(0.5, 1.1) * slope
    return np.clip(light, 0, 255).astype(np.uint8)


def paste_faces(canvas: Gray, faces: Images, sides: Sequence[int], rng: np.random.Generator) -> list[Box]:
    """Paste as many faces as fit, with the given sides in px. Return their boxes, in the order of the faces."""
    height, width = canvas.shape
    boxes: list[Box] = []
    for side in sides:
        gap = round(max(DISTANCE, PADDING) * side)
        for _ in range(50):
            left, top = (int(rng.integers(gap, size - side - gap)) for size in (width, height))
            around = Box(left - gap // 2, top - gap // 2, side + gap, side + gap)
            if all(around.overlap(box) == 0 for box in boxes):
                paste_face(canvas, faces[len(boxes)], Box(left, top, side, side))
                boxes.append(Box(left, top, side, side))
                break
        if len(boxes) == len(faces):
            break
    return boxes


def revision(name: str) -> dict[str, ModuleType]:
    """The modules detector and face_tracker of a Git revision."""
    modules = {}
    for module in ("detector", "face_tracker"):
        path = f"src/emotion_detection/inference/{module}.py"
        code = subprocess.check_output(["git", "show", f"{name}:{path}"], text=True, cwd=Path(__file__).parents[1])
        modules[module] = ModuleType(f"{module}_of_{name}")
        exec(compile(code, path, "exec"), modules[module].__dict__)
    return modules
