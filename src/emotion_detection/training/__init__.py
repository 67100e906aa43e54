"""Train a network on labeled faces and export it to ONNX."""
