"""Where in a face the network saw an emotion: class activation maps from the exported graph, without TensorFlow."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import InputError

POOLING = "GlobalAveragePool"
# What may follow it: anything else would bend the logits, and the maps would no longer average to them.
LINEAR = {"Squeeze", "Reshape", "Flatten", "MatMul", "Add", "Mul", "Softmax"}


class ClassActivation:
    """Class activation maps (Zhou et al. 2016, arXiv 1512.04150).

    A network that averages its last feature maps over the face and weighs the averages can as well weigh first and
    average last: the weighted maps show where the evidence for each emotion lies.
    """

    def __init__(self, path: Path) -> None:
        """InputError if the graph does not end with a global average, as fer_resnet and mini_xception do."""
        graph = onnx.load(path)
        pools = [node for node in graph.graph.node if node.op_type == POOLING]
        after = _after(graph, pools[-1]) if pools else []
        if not pools or {node.op_type for node in after} - LINEAR:
            raise InputError(f"{path} does not end with a global average of feature maps: it has no heat map")
        features = pools[-1].input[0]
        self._weights, self._bias = _dense(graph, after)
        graph.graph.output.append(onnx.ValueInfoProto(name=features))
        self._session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        self._features = features

    def evidence(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Faces u8 (n,48,48) -> f32 (n,7,h,w), whose mean over h and w is the logit of each emotion."""
        (reads, *_) = self._session.get_inputs()
        (features,) = self._session.run([self._features], {reads.name: faces[..., np.newaxis]})
        weighed = np.einsum("nchw,ce->nehw", features, self._weights)
        return (weighed + self._bias[:, np.newaxis, np.newaxis]).astype(np.float32)

    def maps(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Faces u8 (n,48,48) -> f32 (n,7,h,w): the evidence for each emotion, 0 none, 1 the face's strongest."""
        positive = np.maximum(self.evidence(faces), 0)
        return positive / np.maximum(positive.max(axis=(1, 2, 3), keepdims=True), 1e-6)


def _after(graph: onnx.ModelProto, pool: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes that work on the pooled features, in order."""
    reached, nodes = set(pool.output), []
    for node in graph.graph.node:
        if reached & set(node.input) and node is not pool:
            reached |= set(node.output)
            nodes.append(node)
    return nodes


def _dense(graph: onnx.ModelProto, after: list[onnx.NodeProto]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights f32 (c,7) and bias f32 (7,) of all that follows the average: a dense layer and the temperature, or none.

    Of mini_xception's last convolution the features are the logits already: identity and 0.
    """
    constants = {one.name: numpy_helper.to_array(one).astype(np.float32) for one in graph.graph.initializer}
    halves = (node for node in graph.graph.node if node.op_type == "Cast" and node.input[0] in constants)
    constants |= {node.output[0]: constants[node.input[0]] for node in halves}  # the exporter's float16 weights
    weights: NDArray[np.float32] = np.eye(len(EMOTIONS), dtype=np.float32)
    bias: NDArray[np.float32] = np.zeros(len(EMOTIONS), np.float32)
    for node in after:
        known = next((constants[name] for name in node.input if name in constants), np.ones(1, np.float32))
        if node.op_type == "MatMul":
            weights = known
        elif node.op_type == "Add":
            bias = bias + known
        elif node.op_type == "Mul":  # the temperature
            weights, bias = weights * known, bias * known
    return weights, bias
