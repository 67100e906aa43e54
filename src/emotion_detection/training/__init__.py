"""From faces and settings to a trained network and its ONNX file. Nothing here knows MLflow."""
