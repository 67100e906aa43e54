"""The model that ships with the project: where it lies and what it is called."""

from pathlib import Path

FOLDER = Path(__file__).parents[2] / "pretrained"
MODEL = FOLDER / "model.onnx"
MODEL_NAME = "emotion-detection"
ALIAS = "champion"
CHAMPION = f"models:/{MODEL_NAME}@{ALIAS}"
