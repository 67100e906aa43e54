"""The Open Inference Protocol (V2), which KServe, Triton and MLServer share.

Two models: one that classifies faces, under the name of the registered model, and `faces`, which finds the faces in
encoded pictures first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version as installed_version
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE
from emotion_detection.errors import shorten
from emotion_detection.inference.reading import Box, Reading
from emotion_detection.serving import tensors
from emotion_detection.serving.limits import client_name
from emotion_detection.serving.reader import Reader
from emotion_detection.serving.refusals import RequestError
from emotion_detection.serving.served_model import LoadedModel, shown_source
from emotion_detection.serving.tensors import InferAnswer, Output, TensorType

PICTURES = "faces"  # the name of the model that finds the faces
PLATFORM = "onnxruntime_onnx"
JSON, BINARY = "application/json", "application/octet-stream"
PIXELS = IMAGE_SIZE * IMAGE_SIZE
WHOLE = Box(0, 0, IMAGE_SIZE, IMAGE_SIZE)

FACES = TensorType("faces", "UINT8", (-1, IMAGE_SIZE, IMAGE_SIZE, 1))
ENCODED = TensorType("pictures", "BYTES", (-1,))
PROBABILITIES = TensorType("probabilities", "FP32", (-1, len(EMOTIONS)))
EMOTION = TensorType("emotion", "BYTES", (-1,))
UNSURE = TensorType("unsure", "BOOL", (-1,))
PICTURE = TensorType("picture", "INT32", (-1,))
BOX = TensorType("box", "INT32", (-1, 4))


ModelName = Annotated[str, Path(description="`faces`, or the name of the registered model", examples=["faces"])]
Version = Annotated[str, Path(description="The version that is served: / names it")]


class Error(BaseModel):
    """Why a request failed, in one sentence."""

    error: str = Field(examples=["One sentence with the reason."])


class Live(BaseModel):
    """Whether the process answers."""

    live: bool


class Ready(BaseModel):
    """Whether a model is loaded and requests should come here."""

    ready: bool


class ModelReady(BaseModel):
    """Whether a model is loaded."""

    name: str
    ready: bool


class ServerMetadata(BaseModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """What a model takes or returns; -1 in the shape stands for any number."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """What a model is. Its parameters name its source and its SHA-256, and the emotions in their order."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, str]


@dataclass(frozen=True)
class Signature:
    """What one of the models takes and returns."""

    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    most: Callable[[Reader], int]
    """The largest first dimension of its inputs."""
    run: Callable[[Reader, LoadedModel, list[Any]], list[Output]]


def classify(reader: Reader, model: LoadedModel, values: list[Any]) -> list[Output]:
    """Classify faces u8 (n, 48, 48, 1)."""
    return _readings([Reading(WHOLE, row) for row in reader.classify(model, values[0][..., 0])])


def find(reader: Reader, model: LoadedModel, values: list[Any]) -> list[Output]:
    """Find the faces in encoded pictures and classify them. The outputs have one row for each face."""
    contents = values[0]
    pictures = [
        reader.read(model, content, f"picture {number} of {len(contents)}")
        for number, content in enumerate(contents, start=1)
    ]
    readings = [reading for picture in pictures for reading in picture.readings]
    numbers = [place for place, picture in enumerate(pictures) for _ in picture.readings]
    boxes = [reading.as_dict()["box"] for reading in readings]
    return [
        *_readings(readings),
        Output(PICTURE, np.array(numbers, np.int32)),
        Output(BOX, np.array(boxes, np.int32).reshape(-1, 4)),
    ]


def _readings(readings: Sequence[Reading]) -> list[Output]:
    rows = [reading.probabilities for reading in readings]
    return [
        Output(PROBABILITIES, np.array(rows, np.float32).reshape(-1, len(EMOTIONS))),
        Output(EMOTION, [reading.emotion for reading in readings]),
        Output(UNSURE, np.array([reading.unsure for reading in readings], bool)),
    ]


CLASSIFY = Signature((FACES,), (PROBABILITIES, EMOTION, UNSURE), lambda reader: reader.limits.faces, classify)
FIND = Signature(
    (ENCODED,), (PROBABILITIES, EMOTION, UNSURE, PICTURE, BOX), lambda reader: reader.limits.pictures, find
)


def public_source(model: LoadedModel) -> str:
    """The source of a model for clients: models:/NAME/NUMBER, or the name of its file without its folder."""
    return shown_source(model.source)


def infer(
    reader: Reader, model: LoadedModel, signature: Signature, name: str, body: bytes, header: str | None
) -> Response:
    """Answer the body of a request to infer. Raises RequestError and MediaError."""
    request, rest = tensors.parse_request(body, header, max_values=reader.limits.faces * PIXELS)
    wanted = tensors.select_outputs(request, signature.outputs)
    values = tensors.read_inputs(request, rest, signature.inputs, most=signature.most(reader))
    head: dict[str, Any] = {"model_name": name, "model_version": model.version}
    if request.id is not None:
        head["id"] = request.id
    head["parameters"] = {"source": public_source(model), "sha256": model.sha256}
    content, json_bytes = tensors.encode_answer(head, signature.run(reader, model, values), wanted)
    if json_bytes is None:
        return Response(content, media_type=JSON)
    return Response(content, media_type=BINARY, headers={tensors.HEADER: str(json_bytes)})


DESCRIPTION = """\
`MODEL` (the name of the registered model) classifies faces: the input `faces`, UINT8 [n, 48, 48, 1], gray. `faces`
finds the faces in encoded pictures: the input `pictures`, BYTES [n], as base64 in JSON. The extension for binary
tensors is supported in both directions. Every answer names the version and the SHA-256 of the model.
"""
EXAMPLE = {
    "id": "1",
    "inputs": [{"name": "faces", "shape": [1, IMAGE_SIZE, IMAGE_SIZE, 1], "datatype": "UINT8", "data": [128] * PIXELS}],
    "outputs": [{"name": "emotion"}, {"name": "probabilities"}],
}
EXAMPLE_ANSWER = {
    "model_name": "emotion-detection",
    "model_version": "1",
    "id": "1",
    "parameters": {"source": "models:/emotion-detection/1", "sha256": 64 * "0"},
    "outputs": [
        {"name": "emotion", "shape": [1], "datatype": "BYTES", "data": ["happy"]},
        {
            "name": "probabilities",
            "shape": [1, len(EMOTIONS)],
            "datatype": "FP32",
            "data": [0.97 if emotion == "happy" else 0.005 for emotion in EMOTIONS],
        },
    ],
}
# Binary tensors are in the description only: generated clients know bodies of one type.
REQUEST_BODY = {
    "required": True,
    "content": {JSON: {"schema": {"$ref": "#/components/schemas/InferRequest"}, "example": EXAMPLE}},
}
FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "The request is malformed or does not fit the model"},
    401: {"model": Error, "description": "The bearer token is missing or wrong"},
    404: {"model": Error, "description": "There is no such model or version"},
    408: {"model": Error, "description": "The body did not arrive in time"},
    413: {"model": Error, "description": "A body, picture or tensor is too large"},
    415: {"model": Error, "description": "The body is compressed or of another kind"},
    422: {"model": Error, "description": "A picture cannot be read"},
    429: {"model": Error, "description": "Too many requests of this client wait"},
    503: {"model": Error, "description": "Too many requests wait, no model is loaded yet, or the service is stopping"},
}


class Protocol:
    """The routes of V2."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.router = APIRouter(prefix="/v2", tags=["Open Inference Protocol (V2)"])
        model, version = "/models/{model}", "/models/{model}/versions/{version}"
        self._get("/health/live", self.live, Live, "Whether the process answers")
        self._get("/health/ready", self.ready, Ready, "Whether requests should come here")
        self._get("", self.server, ServerMetadata, "What the server is")
        self._get(f"{model}/ready", self.model_ready, ModelReady, "Whether the model is loaded")
        self._get(f"{version}/ready", self.version_ready, ModelReady, "Whether the version is loaded")
        self._get(model, self.model, ModelMetadata, "What the model takes and returns")
        self._get(version, self.version, ModelMetadata, "What the version takes and returns")
        self._post(f"{model}/infer", self.infer, "Classify faces, or find and classify them")
        self._post(f"{version}/infer", self.infer_version, "Classify with a version")

    def _get(self, path: str, function: Callable[..., Any], answer: type[BaseModel], summary: str) -> None:
        responses: dict[int | str, dict[str, Any]] = {200: {"model": answer}}
        if "{model}" in path:
            responses |= {status: FAILURES[status] for status in (404, 503)}
        if path.endswith("/ready"):
            responses[503] = {"model": answer, "description": "`ready` is false"}
        self.router.add_api_route(
            path,
            function,
            summary=summary,
            operation_id=function.__name__,
            responses=responses,
            response_model=None,
        )

    def _post(self, path: str, function: Callable[..., Any], summary: str) -> None:
        self.router.add_api_route(
            path,
            function,
            methods=["POST"],
            summary=summary,
            description=DESCRIPTION,
            operation_id=function.__name__,
            responses={200: {"model": InferAnswer, "content": {JSON: {"example": EXAMPLE_ANSWER}}}, **FAILURES},
            response_model=None,
            openapi_extra={"requestBody": REQUEST_BODY},
        )

    async def live(self) -> Response:
        return JSONResponse({"live": True})

    async def ready(self) -> Response:
        ready = self._reader.ready
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def server(self) -> Response:
        version = installed_version("emotion-detection")
        about = {"name": "emotion-detection", "version": version, "extensions": ["binary_tensor_data"]}
        return JSONResponse(about)

    async def model_ready(self, model: ModelName) -> Response:
        return self._ready(model, None)

    async def version_ready(self, model: ModelName, version: Version) -> Response:
        return self._ready(model, version)

    async def model(self, model: ModelName) -> Response:
        return self._metadata(model, None)

    async def version(self, model: ModelName, version: Version) -> Response:
        return self._metadata(model, version)

    async def infer(self, request: Request, model: ModelName) -> Response:
        return await self._infer(request, model, None)

    async def infer_version(self, request: Request, model: ModelName, version: Version) -> Response:
        return await self._infer(request, model, version)

    def _ready(self, model: str, version: str | None) -> Response:
        ready = self._reader.served.ready
        if ready:
            self._find(model, version)
        return JSONResponse({"name": model, "ready": ready}, 200 if ready else 503)

    def _metadata(self, model: str, version: str | None) -> Response:
        loaded, signature = self._find(model, version)
        about = {
            "name": model,
            "versions": [loaded.version],
            "platform": PLATFORM,
            "inputs": [tensor.as_dict() for tensor in signature.inputs],
            "outputs": [tensor.as_dict() for tensor in signature.outputs],
            "parameters": {"source": public_source(loaded), "sha256": loaded.sha256, "emotions": ",".join(EMOTIONS)},
        }
        return JSONResponse(about)

    async def _infer(self, request: Request, model: str, version: str | None) -> Response:
        loaded, signature = self._find(model, version)
        body, header = await request.body(), request.headers.get(tensors.HEADER)
        work = partial(infer, self._reader, loaded, signature, model, body, header)
        client = client_name(request.scope)
        return await self._reader.queue.run(client, work, size=len(body), left=request.is_disconnected)

    def _find(self, model: str, version: str | None) -> tuple[LoadedModel, Signature]:
        """The served model and what the client takes it for. Raises RequestError and NotReadyError."""
        loaded = self._reader.served.current
        if model not in (loaded.name, PICTURES):
            raise RequestError(404, f"There is no model {shorten(model, 60)!r}: use {loaded.name!r} or {PICTURES!r}.")
        if version not in (None, loaded.version):
            raise RequestError(404, f"Version {shorten(version, 60)!r} is not served: {loaded.version!r} is.")
        return loaded, CLASSIFY if model == loaded.name else FIND
