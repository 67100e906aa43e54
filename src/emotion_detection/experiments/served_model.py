"""The model as MLflow serves it: faces in, the probability of each emotion by its name out.

MLflow copies this file into each registered model and runs it there, so it uses no other module of the project.
"""

import json
import os
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported

import mlflow
import numpy as np
import onnxruntime
from mlflow.pyfunc import PythonModel


class EmotionModel(PythonModel):
    """Runs the ONNX file of the model, whose metadata has the names of the emotions."""

    def load_context(self, context: Any) -> None:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads sleep
        model, providers = context.artifacts["model"], ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(model, options, providers=providers)
        self._emotions = json.loads(self._session.get_modelmeta().custom_metadata_map["labels"])

    # The type is a plain array, because MLflow takes a more precise one for a schema.
    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> list[dict[str, float]]:  # noqa: ARG002
        """model_input: uint8 (n, 48, 48, 1). Returns a dictionary for each face: emotion -> probability."""
        name = self._session.get_inputs()[0].name
        (probabilities,) = self._session.run(None, {name: np.asarray(model_input, np.uint8)})
        return [dict(zip(self._emotions, map(float, row), strict=True)) for row in probabilities]


mlflow.models.set_model(EmotionModel())
