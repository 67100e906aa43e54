"""Look at an ONNX file before onnxruntime does: only the operations that this project exports, and bounded memory.

An ONNX file is a program. Its loops can be endless, and a kilobyte can ask for any amount of memory. The allowed
operations have no loops, no subgraphs and no shapes as values that could expand a constant.
"""

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from emotion_detection.errors import ModelError, shorten

# Of the exports of model/architectures.py, and their close relatives. Without Constant, ConstantOfShape, Expand, Tile,
# Pad, Resize, Loop, If and Scan.
OPERATIONS = set(
    "Add AveragePool BatchNormalization Cast Clip Concat Conv Div Dropout Elu Exp Flatten Gather Gemm "  # noqa: SIM905
    "GlobalAveragePool Identity LeakyRelu MatMul Max MaxPool Min Mul Neg Pow Reciprocal ReduceMean Relu Reshape Shape "
    "Sigmoid Slice Softmax Sqrt Squeeze Sub Tanh Transpose Unsqueeze".split()
)
MAX_BYTES = 250_000_000  # paper_cnn, the largest network of this project, has 113 MB, or 226 MB in float32
MAX_FIELDS = 1_000_000  # of the file; the networks of this project have 2,000
MAX_METADATA = 100_000  # bytes of one entry
MAX_ACTIVATIONS = 100_000_000  # bytes for the two faces of a trial
WEIGHT_COPIES = 4  # in memory, in units of the file: float16, float32, and one reordered for the processor
DEADLINE_S = 30.0  # for the two faces of a trial

PROVIDERS = ["CPUExecutionProvider"]  # with enable_fallback=0: the fallback prints and tries the same again

# Field numbers of onnx.proto.
GRAPH, METADATA, TRAINING, FUNCTIONS = 7, 14, 20, 25  # of a model
NODE, INITIALIZER, INPUT, SPARSE = 1, 5, 11, 15  # of a graph
OPERATION, ATTRIBUTE, DOMAIN = 4, 5, 7  # of a node
VALUES = {5, 6, 10, 11, 22, 23}  # of an attribute: tensors and graphs
DIMS, EXTERNAL_DATA, DATA_LOCATION = 1, 13, 14  # of a tensor

Field = tuple[int, int | memoryview]

_registration = threading.Lock()  # onnxruntime has one shared allocator in a process


class _RefusedError(Exception):
    """The file is not usable. The message is a reason without the file's name."""


def check_onnx(path: Path) -> None:
    """Raise ModelError unless a file is an ONNX model with allowed operations and the constants that it declares."""
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            if not path.is_file() or not 0 < size <= MAX_BYTES:
                raise _RefusedError(f"it is empty, not a file, or larger than {MAX_BYTES // 10**6} MB")
            _Checker().check_model(memoryview(stream.read(MAX_BYTES)))
    except OSError as error:
        raise refused(path, error.strerror) from error
    except _RefusedError as error:
        raise refused(path, error) from error


def refused(path: Path, reason: object) -> ModelError:
    """The error for a file that is not a usable ONNX model."""
    return ModelError(
        f"{path} cannot be loaded as an ONNX model: {shorten(reason)}. Use a model.onnx of the train stage"
    )


@contextmanager
def trial_session(path: Path) -> Iterator[onnxruntime.InferenceSession]:
    """Yield a session with bounded memory and without optimizations, which would run parts of the graph.

    What runs with it shows what an ordinary session needs.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # its errors are raised as well
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    with _registration:
        _limit_memory(MAX_ACTIVATIONS + WEIGHT_COPIES * path.stat().st_size)
        try:
            yield onnxruntime.InferenceSession(str(path), options, providers=PROVIDERS, enable_fallback=0)
        finally:
            _limit_memory(1_000_000)  # replaces the allocator and so releases its memory


def run_with_deadline(session: onnxruntime.InferenceSession, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Run a session. Raise TimeoutError after DEADLINE_S, or the error of onnxruntime."""
    options, outputs = onnxruntime.RunOptions(), list[list[NDArray[Any]]]()
    options.log_severity_level = 4
    errors: list[Exception] = []

    def run() -> None:
        try:
            outputs.append(session.run(None, inputs, options))
        except Exception as error:  # onnxruntime's exceptions have no other common base
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    if thread.is_alive():
        options.terminate = True
        raise TimeoutError(f"two faces take more than {DEADLINE_S:.0f} s")
    if errors:
        raise errors[0]
    return outputs[0]


def _limit_memory(limit: int) -> None:
    arena = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", arena, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(limit, -1, -1, -1))


class _Checker:
    """Walks through the messages of a model. Protocol Buffers are read here because the light core has no onnx."""

    def __init__(self) -> None:
        self._remaining = MAX_FIELDS

    def check_model(self, model: memoryview) -> None:
        graphs = 0
        for number, value in self._fields(model):
            if number == GRAPH:
                graphs += 1
                self._check_graph(_message(value))
            elif number in (TRAINING, FUNCTIONS):
                raise _RefusedError("it contains functions or training steps")
            elif number == METADATA and len(_message(value)) > MAX_METADATA:
                raise _RefusedError("its metadata are too long")
        if graphs != 1:
            raise _RefusedError("it is damaged or another kind of file")

    def _check_graph(self, graph: memoryview) -> None:
        if not any(number == INPUT for number, _ in self._fields(graph)):
            raise _RefusedError("it maps nothing to its output")
        for number, value in self._fields(graph):
            if number == SPARSE:
                raise _RefusedError("it contains sparse constants")
            if number == INITIALIZER:
                self._check_constant(_message(value))
            elif number == NODE:
                self._check_node(_message(value))

    def _check_node(self, node: memoryview) -> None:
        for number, value in self._fields(node):
            if number == OPERATION and (name := _text(value)) not in OPERATIONS:
                raise _RefusedError(
                    f"it contains the operation {shorten(name, 40)}, which no export of this project has"
                )
            if number == DOMAIN and _text(value) not in ("", "ai.onnx"):
                raise _RefusedError("it contains operations of an extension")
            if number == ATTRIBUTE and any(field in VALUES for field, _ in self._fields(_message(value))):
                raise _RefusedError("an operation contains constants or a graph")

    def _check_constant(self, tensor: memoryview) -> None:
        """Each value takes at least a byte, so there cannot be more values than bytes."""
        dims: list[int] = []
        for number, value in self._fields(tensor):
            if number == DIMS:
                dims += [value] if isinstance(value, int) else self._numbers(value)
            if number == EXTERNAL_DATA or (number == DATA_LOCATION and value):
                raise _RefusedError("its constants are in another file")
        if math.prod(dims) > len(tensor):
            raise _RefusedError(f"a constant of {math.prod(dims[:8]):,} values is incomplete")

    def _numbers(self, packed: memoryview) -> list[int]:
        numbers, position = [], 0
        while position < len(packed):
            number, position = self._number(packed, position)
            numbers.append(number)
        return numbers

    def _fields(self, message: memoryview) -> Iterator[Field]:
        """Yield the number and the value of each field; the value of a fixed-size field is its bytes."""
        position = 0
        while position < len(message):
            key, position = self._number(message, position)
            kind = key & 7
            if kind == 0:
                value, position = self._number(message, position)
                yield key >> 3, value
                continue
            size, position = (
                self._number(message, position) if kind == 2 else ({1: 8, 5: 4}.get(kind, len(message) + 1), position)
            )
            if size > len(message) - position:
                raise _RefusedError("it is damaged or another kind of file")
            yield key >> 3, message[position : position + size]
            position += size

    def _number(self, message: memoryview, position: int) -> tuple[int, int]:
        """Read a varint of at most ten bytes; return it and the position after it."""
        self._remaining -= 1
        if self._remaining < 0:
            raise _RefusedError("it has too many parts")
        number = 0
        for shift, byte in enumerate(message[position : position + 10]):
            number |= (byte & 0x7F) << (7 * shift)
            if byte < 0x80:
                return number, position + shift + 1
        raise _RefusedError("it is damaged or another kind of file")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _RefusedError("it is damaged or another kind of file")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)[:100]).decode("utf-8", "replace")
