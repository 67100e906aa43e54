"""One line of JSON for each request, with an ID and without any picture; and the answer to an unexpected error."""

import asyncio
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emotion_detection.errors import DEBUG, shorten
from emotion_detection.serving.access import header_values
from emotion_detection.serving.answers import FAILED, STOPPING, send_error
from emotion_detection.serving.limits import client_name
from emotion_detection.serving.metrics import Metrics

logger = logging.getLogger(__name__)
Write = Callable[[dict[str, Any]], None]

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
GONE = 499  # the client has closed the connection, as nginx logs it
UNKNOWN = "none"  # the route of an address that does not exist


def write_line(entry: dict[str, Any]) -> None:
    """Write a line to stdout. It contains only what this module has put into it, so no secret is searched in it."""
    with suppress(OSError, ValueError):  # nobody reads it
        print(json.dumps(entry), file=sys.__stdout__, flush=True)


class JsonFormatter(logging.Formatter):
    """Makes a line of JSON of each message of a library."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {"time": _now(), "level": record.levelname.lower(), "message": shorten(record.getMessage(), 1000)}
        if record.exc_info or record.exc_text:
            entry["traceback"] = record.exc_text or self.formatException(record.exc_info)  # type: ignore[arg-type]
        return json.dumps(entry)


class RequestLogMiddleware:
    """Gives each request an ID, counts it and logs it when it is answered."""

    def __init__(self, app: ASGIApp, metrics: Metrics, write: Write = write_line) -> None:
        self.app, self._metrics, self._write = app, metrics, write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(_request_id(scope), send)
        start_s = time.perf_counter()
        with self._metrics.in_progress():
            try:
                await self.app(scope, receive, answer.send)
            except ClientDisconnect:  # nobody waits for an answer
                pass
            except asyncio.CancelledError:  # by the server, at its end
                if not answer.status:
                    await send_error(answer.send, 503, STOPPING)
            except Exception as error:
                log_failure(scope, answer.id, error)
                if not answer.status:
                    await send_error(answer.send, 500, FAILED)
            seconds = time.perf_counter() - start_s
        route = route_of(scope)
        status = answer.status or GONE
        self._metrics.request(route, status, seconds)
        self._write(
            {
                "time": _now(),
                "level": "info",
                "request_id": answer.id,
                "method": shorten(scope["method"], 20),
                "route": route,
                "status": status,
                "ms": round(1000 * seconds, 2),
                "bytes": answer.size,
                "client": client_name(scope),
            }
        )


class _Answer:
    """Adds the ID to an answer and notes its status and size."""

    def __init__(self, request_id: str, send: Send) -> None:
        self.id, self._send, self.status, self.size = request_id, send, 0, 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", []), (b"x-request-id", self.id.encode())]
            message = {**message, "headers": headers}
        else:
            self.size += len(message.get("body", b""))
        await self._send(message)


def route_of(scope: Scope) -> str:
    """The pattern of the route, such as /v2/models/{model}/infer. Paths of clients are not logged or counted."""
    route = getattr(scope.get("route"), "path", None)
    return str(route) if route else UNKNOWN


def log_failure(scope: Scope, request_id: str, error: Exception) -> None:
    """Report an unexpected error in one line; with EMOTION_DETECTION_DEBUG=1, with its traceback."""
    debug = os.environ.get(DEBUG) == "1"
    text = "%s %s failed (request %s, %s: %s)"
    values = (scope["method"], route_of(scope), request_id, type(error).__name__, shorten(error))
    logger.error(text, *values, exc_info=error if debug else None)


def _request_id(scope: Scope) -> str:
    """The client's ID if it is harmless in a log, or a new one."""
    values = header_values(scope, b"x-request-id")
    return values[0] if len(values) == 1 and REQUEST_ID.fullmatch(values[0]) else uuid4().hex


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
