"""Class activation maps: which parts of a face are the evidence for an emotion, from an exported model."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from emotion_detection.arrays import Images
from emotion_detection.decoding.onnx_file import PROVIDERS
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE
from emotion_detection.errors import ModelError
from emotion_detection.inference.classifier import check_model

POOLING = "GlobalAveragePool"
# The operations allowed after pooling. With a nonlinear one, the mean of the maps would not be the logits.
LINEAR = {"Squeeze", "Reshape", "Flatten", "MatMul", "Add", "Mul", "Softmax"}


class ClassActivationMapper:
    """Computes class activation maps (Zhou et al. 2016, arXiv 1512.04150).

    A network with global average pooling averages its last feature maps and then weights the averages. Weighting the
    maps first gives the same logits, and shows where in the face the evidence for each emotion is.
    """

    def __init__(self, path: Path) -> None:
        """Raises ModelError if the file is not a usable model (see `classifier.check_model`).

        It also raises ModelError if the network does not end with global average pooling, as the residual networks do.
        """
        check_model(path)
        try:
            self._prepare(onnx.load(path, load_external_data=False))
            evidence = self.evidence(np.zeros((1, IMAGE_SIZE, IMAGE_SIZE), np.uint8))
            is_usable = evidence.shape[1:2] == (len(EMOTIONS),) and bool(np.isfinite(evidence).all())
        except Exception as error:  # onnx, onnxruntime and NumPy raise many kinds for a graph of another form
            raise _unsuitable(path) from error
        if not is_usable:
            raise _unsuitable(path)

    def _prepare(self, model: onnx.ModelProto) -> None:
        pools = [node for node in model.graph.node if node.op_type == POOLING]
        following = _following(model, pools[-1]) if pools else []
        if not pools or {node.op_type for node in following} - LINEAR:
            raise ValueError("no global average pooling at the end")
        self._features = pools[-1].input[0]
        self._weights, self._bias = _dense(model, following)
        model.graph.output.append(onnx.ValueInfoProto(name=self._features))
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads sleep
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=PROVIDERS, enable_fallback=0
        )

    def evidence(self, faces: Images) -> NDArray[np.float32]:
        """Return f32 (n, 7, h, w), whose mean over h and w is the logit of each emotion."""
        (face, *_) = self._session.get_inputs()
        (features,) = self._session.run([self._features], {face.name: faces[..., np.newaxis]})
        weighted = np.einsum("nchw,ce->nehw", features, self._weights)
        return (weighted + self._bias[:, np.newaxis, np.newaxis]).astype(np.float32)

    def heatmaps(self, faces: Images) -> NDArray[np.float32]:
        """Return f32 (n, 7, h, w): the positive evidence for each emotion, scaled to a maximum of 1 per face."""
        positive = np.maximum(self.evidence(faces), 0)
        return positive / np.maximum(positive.max(axis=(1, 2, 3), keepdims=True), 1e-6)


def _unsuitable(path: Path) -> ModelError:
    return ModelError(
        f"{path} does not end with global average pooling: use fer_resnet or mini_xception for activation maps"
    )


def _following(model: onnx.ModelProto, pool: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes that process the pooled features, in order."""
    reached, nodes = set(pool.output), []
    for node in model.graph.node:
        if reached & set(node.input) and node is not pool:
            reached |= set(node.output)
            nodes.append(node)
    return nodes


def _dense(model: onnx.ModelProto, following: list[onnx.NodeProto]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights f32 (c, 7) and bias f32 (7,) of all operations after pooling: dense layer and temperature.

    The feature maps of mini_xception are the logits already: the weights are the identity and the bias is 0.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor).astype(np.float32) for tensor in model.graph.initializer}
    casts = (node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in constants)
    constants |= {node.output[0]: constants[node.input[0]] for node in casts}  # weights are stored as float16
    weights: NDArray[np.float32] = np.eye(len(EMOTIONS), dtype=np.float32)
    bias: NDArray[np.float32] = np.zeros(len(EMOTIONS), np.float32)
    for node in following:
        constant = next((constants[name] for name in node.input if name in constants), np.ones(1, np.float32))
        if node.op_type == "MatMul":
            weights = constant
        elif node.op_type == "Add":
            bias = bias + constant
        elif node.op_type == "Mul":  # the temperature
            weights, bias = weights * constant, bias * constant
    return weights, bias
