"""Pictures in each form that the batch command reads, and a fast model."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.onnx_files import write_linear
from tests.support.shards import read

from emotion_detection.cli import main


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return write_linear(tmp_path_factory.mktemp("model") / "model.onnx", seed=3)


@pytest.fixture(scope="session")
def pngs() -> dict[str, bytes]:
    """Ten different crops of faces as PNG files, by their names."""
    rng = np.random.default_rng(0)
    files = {}
    for number in range(10):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (48, 48), dtype=np.uint8)).save(stream, "PNG")
        files[f"{number % 2}/face-{number}.png"] = stream.getvalue()
    return files


@pytest.fixture
def folder(tmp_path, pngs) -> Path:
    for name, content in pngs.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
    return tmp_path / "photos"


@pytest.fixture
def run_batch(model):
    """Run the command on crops with the fast model, and return the rows of both tables as dictionaries."""

    def run(source, out, *flags: str, model: Path = model, workers: int = 1) -> tuple[list[dict], list[dict]]:
        command = ["batch", str(source), "--out", str(out), "--crops", "--workers", str(workers), "--model", str(model)]
        main([*command, *flags])
        return read(out)

    return run
