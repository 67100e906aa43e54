"""The wheel: it holds the shipped model, and its light core reads a face without the packages of any extra."""

import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.support.paths import ROOT

# Runs code with the unpacked wheel on the path; every import of a blocked package fails.
GUARD = """
import sys
from importlib.abc import MetaPathFinder
class Wall(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Wall())
sys.path.insert(0, {wheel!r})
import emotion_detection
assert emotion_detection.__file__.startswith({wheel!r}), emotion_detection.__file__
{code}
"""
READ = """
import numpy as np
from emotion_detection import EMOTIONS, FaceTracker, Recognizer, read_image
frame = read_image(sys.argv[1])
readings = Recognizer.load().recognize(frame)
tracked = FaceTracker(Recognizer.load()).recognize(frame, 0.0)
print(len(readings), len(tracked), readings[0].emotion in EMOTIONS)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The project's wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    # Not pip, which uv leaves out of an environment.
    code = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    copied = folder / "source"
    copied.mkdir()
    for name in ("src", "pyproject.toml", "README.md", "LICENSE"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(copied)], check=True)
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=copied, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def extras_only() -> set[str]:
    """Top-level modules that the extras install and the light core does not."""
    core = closure({Requirement(line).name for line in metadata.requires("emotion-detection") or [] if ";" not in line})
    provided = metadata.packages_distributions()
    return {module for module, names in provided.items() if module.isidentifier() and not core & set(map(plain, names))}


def closure(names: set[str]) -> set[str]:
    """The distributions of these names and all that they require."""
    seen: set[str] = set()
    waiting = {plain(name) for name in names}
    while waiting:
        seen |= waiting
        lines = (line for name in waiting for line in metadata.requires(name) or [])
        required = (Requirement(line) for line in lines)
        waiting = {plain(one.name) for one in required if not one.marker or one.marker.evaluate({"extra": ""})} - seen
    return seen


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def run(wheel: Path, code: str, *arguments: str) -> str:
    blocked = extras_only() - {"emotion_detection"}
    assert {"tensorflow", "keras", "mlflow", "optuna", "matplotlib", "sklearn", "gradio"} <= blocked
    assert not {"numpy", "cv2", "onnxruntime"} & blocked
    script = GUARD.format(blocked=blocked, wheel=str(wheel), code=code)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=wheel.parent, env=environment
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    import cv2
    import numpy as np

    from emotion_detection.synthetic.sample import draw_frame

    frame, _ = draw_frame(["happy"], np.random.default_rng(0), width_px=320, height_px=240)
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    cv2.imwrite(str(path), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return path


def test_wheel_holds_the_shipped_model_the_types_and_the_command(wheel):
    package = wheel / "emotion_detection"
    assert (package / "py.typed").is_file()
    for name in ("model.onnx", "metrics.json", "run.json", "README.md"):
        assert (package / "pretrained" / name).read_bytes() == (
            ROOT / "src" / "emotion_detection" / "pretrained" / name
        ).read_bytes()
    (entry_points,) = wheel.glob("*.dist-info/entry_points.txt")
    assert "emotion-detection = emotion_detection.cli:main" in entry_points.read_text()


def test_public_api_needs_the_light_core_only(wheel, photo):
    assert run(wheel, READ, str(photo)) == "1 1 True\n"


def test_predict_needs_the_light_core_only(wheel, photo):
    printed = run(wheel, "from emotion_detection.cli import main; main(['predict', sys.argv[1]])", str(photo))
    assert printed.splitlines()[-1].startswith("1 picture, 1 face: ")
