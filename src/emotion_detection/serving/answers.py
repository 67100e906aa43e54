"""How a refusal is sent: {"error": one sentence}."""

import json
from typing import Any

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.types import Send

from emotion_detection.errors import EmotionDetectionError, shorten
from emotion_detection.serving.refusals import headers_of, status_of
from emotion_detection.serving.served_model import NotReadyError

FAILED = "The service could not answer this request. Its log names the error."
STOPPING = "The service is stopping: send the request again."

LOADING = "No model is loaded yet: try again in a moment."  # why is in the log, as it may contain names of servers


def error_content(reason: str) -> dict[str, str]:
    """The JSON of a refusal."""
    return {"error": reason}


async def send_error(send: Send, status: int, reason: str) -> None:
    """Answer a request outside of the app, and close its connection."""
    content = json.dumps(error_content(reason)).encode()
    headers = {"content-type": "application/json", "content-length": str(len(content)), "connection": "close"}
    headers |= headers_of(status)
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": content})


async def handle_known(_: Request, error: Any) -> JSONResponse:
    """The answer to an EmotionDetectionError: its sentence."""
    assert isinstance(error, EmotionDetectionError)
    status = status_of(error)
    if status == 500:
        raise error  # an error of the model or the store, which is not the client's
    reason = LOADING if isinstance(error, NotReadyError) else shorten(error, 600)
    return JSONResponse(error_content(reason), status, headers_of(status))


async def handle_http(_: Request, error: Any) -> JSONResponse:
    """The answer to an unknown route or a wrong method."""
    assert isinstance(error, HTTPException) or hasattr(error, "status_code")
    reasons = {404: "There is no such address: / lists the addresses.", 405: "This address takes another method."}
    reason = reasons.get(error.status_code, shorten(error.detail))
    return JSONResponse(error_content(reason), error.status_code, error.headers)


async def handle_validation(_: Request, error: Any) -> JSONResponse:
    """The answer to a wrong parameter. FastAPI's own answer repeats the data."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(shorten(part, 60) for part in first["loc"][:4])
    return JSONResponse(error_content(f"{place}: {shorten(first['msg'])}."), 422)
