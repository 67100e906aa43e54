"""The plain API: pictures in, the readings as JSON out, in the same form as `emotion-detection predict` writes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, create_model
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import MediaError, shorten
from emotion_detection.inference.table import BOX, COLUMNS, PROBABILITIES, rows
from emotion_detection.serving.limits import client_name
from emotion_detection.serving.protocol import FAILURES
from emotion_detection.serving.reader import FacesMode, Reader, ReadPicture
from emotion_detection.serving.refusals import RequestError
from emotion_detection.serving.served_model import LoadedModel

PICTURE = "picture"  # the name of one without a file name
NAME_CHARACTERS = 200

_TYPES: dict[str, Any] = {
    "source": str,
    "frame": int | None,
    "time_s": float | None,
    "track": int | None,
    "emotion": str,
    "confidence": float,
    "unsure": bool,
    **dict.fromkeys(BOX, int),
    **dict.fromkeys(PROBABILITIES, float),
}
ReadingRow: type[BaseModel] = create_model(
    "Reading",
    __doc__="A face: the box in pixels and the probabilities. frame, time_s and track are null for pictures.",
    **cast(dict[str, Any], {name: (_TYPES[name], ...) for name in COLUMNS}),
)


class Picture(BaseModel):
    """A picture that was read."""

    source: str
    width: int
    height: int
    faces: int


class Failure(BaseModel):
    """A picture that could not be read."""

    source: str
    error: str


class Recognized(BaseModel):
    """All faces of all pictures, and the model that has read them."""

    model: str
    version: str
    sha256: str
    readings: list[ReadingRow]  # type: ignore[valid-type]
    pictures: list[Picture]
    errors: list[Failure]


@dataclass(frozen=True)
class Upload:
    """A picture of a request: its bytes and what to call it."""

    source: str
    content: bytes


def recognize(
    reader: Reader, model: LoadedModel, uploads: Sequence[Upload], *, faces: FacesMode, crops: bool
) -> dict[str, Any]:
    """Read pictures. If some cannot be read, the others are; raises MediaError if none can."""
    read: list[ReadPicture] = []
    failures: list[tuple[str, MediaError]] = []
    for upload in uploads:
        try:
            read.append(reader.read(model, upload.content, upload.source, faces=faces, crops=crops))
        except MediaError as error:
            failures.append((upload.source, error))
    if not read:
        raise failures[0][1]
    return {
        "model": model.name,
        "version": model.version,
        "sha256": model.sha256,
        "readings": [row for picture in read for row in rows(picture.readings, picture.source)],
        "pictures": [
            {"source": one.source, "width": one.width, "height": one.height, "faces": len(one.readings)} for one in read
        ],
        "errors": [{"source": source, "error": shorten(error, 600)} for source, error in failures],
    }


class PlainApi:
    """The routes of v1."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.router = APIRouter(prefix="/v1", tags=["Pictures"])
        self.router.add_api_route(
            "/recognize",
            self.recognize,
            methods=["POST"],
            operation_id="recognize",
            summary="Read the faces in one picture or in several",
            description=DESCRIPTION,
            responses={
                200: {"model": Recognized, "content": {"application/json": {"example": EXAMPLE}}},
                **{status: FAILURES[status] for status in FAILURES if status != 404},
            },
            response_model=None,
            openapi_extra={"requestBody": REQUEST_BODY},
        )

    async def recognize(
        self,
        request: Request,
        faces: Annotated[FacesMode, Query(description="Which faces of a picture to read.")] = "all",
        crops: Annotated[bool, Query(description="Each picture is one face: detect nothing.")] = False,
    ) -> Response:
        model = self._reader.served.current
        uploads = await self._uploads(request)
        work = partial(recognize, self._reader, model, uploads, faces=faces, crops=crops)
        size = sum(len(upload.content) for upload in uploads)
        client = client_name(request.scope)
        return JSONResponse(await self._reader.queue.run(client, work, size=size, left=request.is_disconnected))

    async def _uploads(self, request: Request) -> list[Upload]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return await read_form(request, most=self._reader.limits.pictures)
        if kind == "application/json":
            raise RequestError(415, "This address takes pictures: send the bytes of one, or multipart/form-data.")
        return [Upload(PICTURE, await request.body())]


class _MemoryParser(MultiPartParser):
    """Keeps all parts in memory: pictures are not written to a disk. The size of the body is limited already."""

    spool_max_size = 1 << 40


async def read_form(request: Request, *, most: int) -> list[Upload]:
    """The files of a form, at most `most`. Raises RequestError."""
    parser = _MemoryParser(request.headers, request.stream(), max_files=most, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise RequestError(413, f"The form has too many pictures: send at most {most} in a request.") from None
        if error.message.startswith("Too many fields"):
            raise RequestError(400, "The form has a field that is not a file: send each picture as a file.") from None
        raise RequestError(400, f"The form is malformed: {shorten(error.message).rstrip('.')}.") from None
    except (KeyError, UnicodeError, LookupError):
        raise RequestError(400, "The form is malformed: send multipart/form-data with a boundary.") from None
    uploads = [Upload(_name(file), await file.read()) for _, file in form.multi_items() if isinstance(file, UploadFile)]
    await form.close()
    if not uploads:
        raise RequestError(400, "The form contains no picture: send each picture as a file.")
    return uploads


def _name(file: UploadFile) -> str:
    name = PurePosixPath((file.filename or "").replace("\\", "/")).name
    return shorten(name, NAME_CHARACTERS) or PICTURE


DESCRIPTION = """\
Send the bytes of a picture, such as `curl --data-binary @photo.jpg`, or a form with one or more files, such as
`curl -F a=@a.jpg -F b=@b.png`. The readings have the columns of `emotion-detection predict --out readings.json`. If
some of several pictures cannot be read, `errors` names them. Pictures are kept in memory only while they are read.
"""
BINARY = {"schema": {"type": "string", "format": "binary"}}
REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"pictures": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
        "image/jpeg": BINARY,
        "image/png": BINARY,
        "application/octet-stream": BINARY,
    },
}
_ROW = dict.fromkeys(COLUMNS) | dict(zip(BOX, (120, 80, 96, 96), strict=True))
EXAMPLE = {
    "model": "emotion-detection",
    "version": "1",
    "sha256": 64 * "0",
    "readings": [
        _ROW
        | {"source": "photo.jpg", "emotion": "happy", "confidence": 0.97, "unsure": False}
        | {f"p_{emotion}": 0.97 if emotion == "happy" else 0.005 for emotion in EMOTIONS}
    ],
    "pictures": [{"source": "photo.jpg", "width": 640, "height": 480, "faces": 1}],
    "errors": [],
}
