"""Tensors of the Open Inference Protocol (V2): from the bytes of a request to arrays, and back.

A tensor is JSON, or bytes after the JSON (the extension for binary tensors). Shapes, sizes and types are compared with
what a model takes before memory is reserved.
"""

import base64
import binascii
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from emotion_detection.errors import shorten
from emotion_detection.serving.refusals import RequestError

Parameters: TypeAlias = dict[str, bool | int | float | str]

HEADER = "inference-header-content-length"
BINARY_SIZE, BINARY_DATA, BINARY_OUTPUT = "binary_data_size", "binary_data", "binary_data_output"
UNSUPPORTED = ("shared_memory_region", "classification")  # extensions that change what a tensor means
# For each value of the largest request. Nested data has twice as many separators as flat data, so that they are refused
# for half as many faces: a separator may cost 250 bytes of memory.
SEPARATORS = 1.3
MARKS = 10_000  # colons or quotes; a request has some for each tensor and each picture
SHOWN = 60  # characters of a name in a message


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class InputTensor(_Strict):
    """A tensor of a request. `data` is flat or nested, in row-major order; without it, the bytes follow the JSON."""

    name: str
    shape: list[int] = Field(max_length=8)
    datatype: str
    parameters: Parameters | None = None
    data: list[Any] | None = None


class RequestedOutput(_Strict):
    """An output that the client wants."""

    name: str
    parameters: Parameters | None = None


class InferRequest(_Strict):
    """A request to infer."""

    id: str | None = Field(default=None, max_length=1000)  # is repeated in the answer
    parameters: Parameters | None = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=16)
    outputs: list[RequestedOutput] | None = Field(default=None, max_length=16)


class OutputTensor(_Strict):
    """A tensor of an answer. With binary output, `data` is missing and `binary_data_size` is a parameter."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = None
    data: list[Any] | None = None


class InferAnswer(_Strict):
    """The answer to a request to infer. Its parameters name the served model's source and its SHA-256."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[OutputTensor]


@dataclass(frozen=True)
class TensorType:
    """What a model takes or returns; -1 in the shape stands for any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """As in the metadata of a model."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Output:
    """A result: a numeric array, or texts (n,) for BYTES."""

    type: TensorType
    values: NDArray[Any] | Sequence[str]

    @property
    def shape(self) -> list[int]:
        """The shape of the tensor."""
        return list(self.values.shape) if isinstance(self.values, np.ndarray) else [len(self.values)]


def parse_request(body: bytes, header: str | None, *, max_values: int) -> tuple[InferRequest, bytes]:
    """The JSON of a request, and the bytes after it.

    header: Inference-Header-Content-Length, the size of the JSON. max_values: more values in the JSON are refused
    before it is parsed. Raises RequestError.
    """
    size = _json_size(header, len(body))
    text = body[:size]
    if (
        sum(map(text.count, (b",", b"["))) > SEPARATORS * max_values + 1000
        or max(map(text.count, (b":", b'"'))) > MARKS
    ):
        raise RequestError(413, "The JSON has too many values: send fewer faces at once, or binary tensors.")
    try:
        return InferRequest.model_validate_json(text), body[size:]
    except ValidationError as error:
        raise RequestError(400, f"The request is malformed: {describe(error)}.") from None


def describe(error: ValidationError) -> str:
    """The first thing that is wrong, without the data."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(shorten(part, SHOWN) for part in first["loc"][:6])
    return f"{place}: {shorten(first['msg'])}" if place else shorten(first["msg"])


def _json_size(header: str | None, size: int) -> int:
    if header is None:
        return size
    if not (header.isascii() and header.isdecimal() and len(header) < 12):
        raise RequestError(400, "Inference-Header-Content-Length is not a number: send the size of the JSON in bytes.")
    if int(header) > size:
        raise RequestError(400, f"Inference-Header-Content-Length is {header}, but the body has only {size} bytes.")
    return int(header)


def read_inputs(request: InferRequest, rest: bytes, types: Sequence[TensorType], *, most: int) -> list[Any]:
    """The inputs in the order of `types`: uint8 arrays, and lists of bytes for BYTES.

    most: the largest first dimension. Raises RequestError.
    """
    names = [tensor.name for tensor in request.inputs]
    known = [one.name for one in types]
    if sorted(names) != sorted(known):
        raise RequestError(400, f"The inputs are {_names(names)}: send {_names(known)}.")
    expected = {one.name: one for one in types}
    values, place = {}, 0
    for tensor in request.inputs:
        _check(tensor, expected[tensor.name], most)
        size = _binary_size(tensor)
        if size is not None and size > len(rest) - place:
            left = len(rest) - place
            raise RequestError(400, f"The input {tensor.name} declares {size} bytes, but only {left} follow the JSON.")
        content = None if size is None else rest[place : place + size]
        place += size or 0
        values[tensor.name] = _read_bytes(tensor, content) if tensor.datatype == "BYTES" else _uint8(tensor, content)
    if place != len(rest):
        raise RequestError(400, f"{len(rest) - place} bytes follow that belong to no input: check binary_data_size.")
    return [values[name] for name in known]


def _names(names: Sequence[str]) -> str:
    return ", ".join(repr(shorten(name, SHOWN)) for name in names[:5]) or "nothing"


def _check(tensor: InputTensor, expected: TensorType, most: int) -> None:
    """Compare type and shape with what the model takes."""
    where = f"The input {tensor.name}"
    if tensor.datatype != expected.datatype:
        raise RequestError(
            400, f"{where} has the datatype {shorten(tensor.datatype, SHOWN)!r}: send {expected.datatype}."
        )
    fits = len(tensor.shape) == len(expected.shape) and all(
        size == wanted or (wanted == -1 and size >= 0)
        for size, wanted in zip(tensor.shape, expected.shape, strict=True)
    )
    if not fits:
        raise RequestError(400, f"{where} has the shape {shorten(tensor.shape, SHOWN)}: send {list(expected.shape)}.")
    if tensor.shape[0] > most:
        raise RequestError(
            413, f"{where} has {shorten(tensor.shape[0], SHOWN)} rows: send at most {most} in a request."
        )


def _binary_size(tensor: InputTensor) -> int | None:
    """How many bytes of the tensor follow the JSON; None if its data are in the JSON."""
    where, parameters = f"The input {tensor.name}", tensor.parameters or {}
    for name in UNSUPPORTED:
        if name in parameters:
            raise RequestError(400, f"{where} has the parameter {name}, which is not supported: send its data.")
    size = parameters.get(BINARY_SIZE)
    if (size is None) == (tensor.data is None):
        raise RequestError(400, f"{where} needs either data or the parameter {BINARY_SIZE}: send one of them.")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise RequestError(400, f"{where} has a {BINARY_SIZE} that is not a number of bytes.")
    return size


def _uint8(tensor: InputTensor, content: bytes | None) -> NDArray[np.uint8]:
    count = math.prod(tensor.shape)
    if content is None:
        values = _flat(tensor)
        if values and set(map(type, values)) != {int}:
            raise RequestError(400, f"The input {tensor.name} has values that are not whole numbers: send 0 to 255.")
        try:
            content = bytes(values)
        except ValueError:
            raise RequestError(400, f"The input {tensor.name} has values outside of 0 to 255.") from None
    if len(content) != count:
        raise RequestError(
            400, f"The input {tensor.name} has {len(content)} values, but its shape {tensor.shape} needs {count}."
        )
    return np.frombuffer(content, np.uint8).reshape(tensor.shape)


def _flat(tensor: InputTensor) -> list[Any]:
    """The values of flat or nested JSON in row-major order."""
    values = tensor.data or []
    if list not in set(map(type, values)):
        return values
    rows: list[Any] = [values]
    for size in tensor.shape:
        if any(type(row) is not list or len(row) != size for row in rows):
            raise RequestError(400, f"The nested data of the input {tensor.name} does not have its shape.")
        rows = list(chain.from_iterable(rows))
    return rows


def _read_bytes(tensor: InputTensor, content: bytes | None) -> list[bytes]:
    values = _base64(tensor) if content is None else _prefixed(tensor, content)
    if len(values) != tensor.shape[0]:
        raise RequestError(
            400,
            f"The input {tensor.name} has {len(values)} elements instead of the {tensor.shape[0]} of its shape.",
        )
    return values


def _base64(tensor: InputTensor) -> list[bytes]:
    try:
        return [base64.b64decode(value, validate=True) for value in tensor.data or []]
    except (TypeError, ValueError, binascii.Error):
        raise RequestError(
            400, f"The input {tensor.name} has an element that is not base64: JSON takes bytes as base64 only."
        ) from None


def _prefixed(tensor: InputTensor, content: bytes) -> list[bytes]:
    """Elements that each have their size in front, 4 bytes in little-endian order."""
    values: list[bytes] = []
    place = 0
    while place < len(content) and len(values) <= tensor.shape[0]:
        if place + 4 > len(content):
            break
        (size,) = struct.unpack_from("<I", content, place)
        values.append(content[place + 4 : place + 4 + size])
        place += 4 + size
    if place != len(content):
        raise RequestError(400, f"The elements of the input {tensor.name} do not fill its bytes: check their sizes.")
    return values


def select_outputs(request: InferRequest, known: Sequence[TensorType]) -> list[tuple[str, bool]]:
    """The wanted outputs, all by default, and whether each is binary. Raises RequestError."""
    everywhere = _flag(request.parameters, BINARY_OUTPUT, False)
    known_names = [one.name for one in known]
    if not request.outputs:
        return [(name, everywhere) for name in known_names]
    names = [output.name for output in request.outputs]
    unknown = [name for name in names if name not in known_names]
    if unknown or len(set(names)) < len(names):
        raise RequestError(
            400,
            f"The outputs {_names(unknown or names)} are unknown or repeated: choose from {_names(known_names)}.",
        )
    for output in request.outputs:
        for name in UNSUPPORTED:
            if name in (output.parameters or {}):
                raise RequestError(400, f"The output {output.name} has the parameter {name}, which is not supported.")
    return [(output.name, _flag(output.parameters, BINARY_DATA, everywhere)) for output in request.outputs]


def _flag(parameters: Parameters | None, name: str, default: bool) -> bool:
    value = (parameters or {}).get(name, default)
    if type(value) is not bool:
        raise RequestError(400, f"The parameter {name} is not true or false.")
    return value


def encode_answer(
    head: dict[str, Any], outputs: Sequence[Output], wanted: Sequence[tuple[str, bool]]
) -> tuple[bytes, int | None]:
    """The body of an answer, and the size of its JSON if binary tensors follow it."""
    by_name = {output.type.name: output for output in outputs}
    described, tail = [], []
    for name, binary in wanted:
        output = by_name[name]
        tensor: dict[str, Any] = {"name": name, "datatype": output.type.datatype, "shape": output.shape}
        if binary:
            tail.append(_binary(output))
            tensor["parameters"] = {BINARY_SIZE: len(tail[-1])}
        else:
            values = output.values
            tensor["data"] = values.ravel().tolist() if isinstance(values, np.ndarray) else list(values)
        described.append(tensor)
    text = to_json(head | {"outputs": described})
    return b"".join([text, *tail]), len(text) if tail else None


def _binary(output: Output) -> bytes:
    if isinstance(output.values, np.ndarray):
        return np.ascontiguousarray(output.values).astype(output.values.dtype.newbyteorder("<")).tobytes()
    encoded = [value.encode() for value in output.values]
    return b"".join(struct.pack("<I", len(one)) + one for one in encoded)
