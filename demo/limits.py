"""Limits on what a request may bring: headers, the size and the time of its body, and how many arrive at once."""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from starlette.formparsers import MultiPartException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emotion_detection.errors import DEBUG, shorten
from emotion_detection.serving.access import header_values, refuse
from emotion_detection.serving.connections import HEADER_BYTES
from uploads import UploadFolder

logger = logging.getLogger("emotion_detection.demo")
HEADER_COUNT = 100
URL_BYTES = 8_000
PHOTO_BYTES = 30_000_000
VIDEO_BYTES = 200_000_000
OTHER_BYTES = 1_000_000  # Gradio's JSON
UPLOAD_PATH = "/gradio_api/upload"
API_PATHS = ("/v1/", "/v2/")
# Routes of Gradio that the page does not need. Some write files or fail for malformed requests.
UNUSED = (
    *("api/", "call/", "component_server", "custom_component/", "deep_link", "dev/", "monitoring", "process_recording"),
    *("profiling", "proxy=", "run-history", "run/", "runs", "stream/", "undo-vibe", "vibe"),
)
UNUSED_PATHS = ("/login", "/monitoring", *(f"/gradio_api/{route}" for route in UNUSED))
BODY_GRACE_S = 20.0  # then a body must have arrived at BODY_RATE or more
BODY_RATE = 20_000  # bytes per second, on average
REQUESTS_PER_S, REQUESTS_AT_ONCE = 50, 400
REMEMBERED = 1_000  # clients
BODIES = 32  # that arrive at the same time
BODIES_PER_CLIENT = 8
INTERNAL_ERROR = 1011  # WebSocket close code
FAILED = "The demo could not answer this request. Its terminal names the error."


@dataclass
class _Refusal:
    status: int
    reason: str


class Pace:
    """Lets each client begin REQUESTS_PER_S requests, after a first REQUESTS_AT_ONCE, as for loading the page."""

    def __init__(self) -> None:
        self._used_s: dict[str, float] = {}  # until when a client has used its requests

    def delay_s(self, client: str, now_s: float) -> float:
        """Count a request and return how long it must wait."""
        if len(self._used_s) > REMEMBERED:
            self._used_s = {one: used_s for one, used_s in self._used_s.items() if used_s > now_s}
        used_s = max(self._used_s.get(client, now_s), now_s) + 1 / REQUESTS_PER_S
        self._used_s[client] = used_s
        return max(used_s - now_s - REQUESTS_AT_ONCE / REQUESTS_PER_S, 0.0)


class LimitMiddleware:
    """Refuses requests that exceed the limits; the body is counted while it arrives."""

    def __init__(self, app: ASGIApp, uploads: UploadFolder | None = None) -> None:
        """uploads: the folder that must have room for an uploaded video."""
        self.app, self._uploads = app, uploads
        self._bodies: Counter[str] = Counter()  # that are arriving, by client
        self._pace = Pace()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        await asyncio.sleep(self._pace.delay_s(client_name(scope), time.monotonic()))
        refusal = _check_head(scope)
        if refusal is None:
            answer = self._answer if scope["type"] == "http" else self._talk
            refusal = await answer(scope, receive, send)
        if refusal is not None:
            await refuse(scope, receive, send, status=refusal.status, reason=refusal.reason)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> _Refusal | None:
        """Call the app for a request. Returns the refusal if it must still be sent."""
        body, client = _Body(scope, receive, send), client_name(scope)
        if _has_body(scope):
            refusal = self._check_room(scope)
            if refusal is not None:
                return refusal
            self._bodies[client] += 1
            body.on_complete = lambda: self._release(client)
        else:
            body.finish()
        try:
            await self.app(scope, body.receive, body.send)
        except Exception as error:
            if body.refusal is None and not body.broken_off:
                body.refusal = _failure(scope, error)
        finally:
            body.finish()
        return None if body.response_started else body.refusal

    async def _talk(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app for a WebSocket."""
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            _failure(scope, error)
            with suppress(RuntimeError):  # it is closed
                await send({"type": "websocket.close", "code": INTERNAL_ERROR})

    def _check_room(self, scope: Scope) -> _Refusal | None:
        """Why no further body can be received now, or None."""
        client = client_name(scope)
        if self._bodies.total() >= BODIES or self._bodies[client] >= BODIES_PER_CLIENT:
            return _Refusal(503, "Too many requests arrive at the same time: wait a moment and try again.")
        if self._uploads is not None and _route(scope) == UPLOAD_PATH:
            reason = self._uploads.reserve(client, _declared_bytes(scope) or VIDEO_BYTES)
            return _Refusal(507, reason) if reason else None
        return None

    def _release(self, client: str) -> None:
        self._bodies[client] -= 1
        self._bodies += Counter()  # forgets clients without bodies


class _Body:
    """The body of one request while it arrives.

    If it is refused or broken off, the app gets the error after which parsers of forms delete what they have written.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._limit, self._what = _limit(scope)
        self._loop = asyncio.get_running_loop()
        self._start_s = self._loop.time()
        self._count = 0
        self._complete = False
        self.refusal: _Refusal | None = None
        self.broken_off = False
        self.response_started = False
        self.on_complete: Callable[[], None] = lambda: None

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._remaining_s())
        except asyncio.TimeoutError:
            self.refusal = _Refusal(408, "The request did not arrive in time: try again with a faster connection.")
            raise MultiPartException(self.refusal.reason) from None
        self._count += len(message.get("body", b""))
        if self._count > self._limit:
            self.refusal = _Refusal(413, too_large(self._what, self._limit))
            raise MultiPartException(self.refusal.reason)
        if message["type"] == "http.disconnect":
            self.broken_off = True
            raise MultiPartException("The client has gone.")
        if not message.get("more_body", False):
            self.finish()
        return message

    async def send(self, message: Message) -> None:
        if self.refusal is not None and not self.response_started:
            return  # the refusal is sent in its place
        if message["type"] == "http.response.start":
            self.response_started = True
            if not self._complete:  # the rest of the body must not hold the connection
                message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        await self._send(message)

    def finish(self) -> None:
        if not self._complete:
            self._complete = True
            self.on_complete()

    def _remaining_s(self) -> float:
        return max(self._start_s + BODY_GRACE_S + self._count / BODY_RATE - self._loop.time(), 0.0)


def log_failure(what: str, error: BaseException | None) -> None:
    """Report an unexpected error in one line; with EMOTION_DETECTION_DEBUG=1, with its traceback."""
    debug = os.environ.get(DEBUG) == "1"
    logger.error(
        "%s failed (%s: %s)", shorten(what), type(error).__name__, shorten(error), exc_info=error if debug else None
    )


def _failure(scope: Scope, error: Exception) -> _Refusal:
    log_failure(f"{scope.get('method', 'WebSocket')} {scope['path']}", error)
    return _Refusal(500, FAILED)


def client_name(scope: Scope) -> str:
    """The address of the client, which may be that of a router or proxy in front of several people."""
    return scope["client"][0] if scope.get("client") else ""


def too_large(what: str, limit: int) -> str:
    return f"The {what} is larger than {limit / 1e6:.0f} MB. Use a smaller one."


def _check_head(scope: Scope) -> _Refusal | None:
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > URL_BYTES:
        return _Refusal(414, "The address of the request is too long.")
    if _route(scope).startswith(UNUSED_PATHS):
        return _Refusal(404, "The demo does not offer this.")
    headers = scope["headers"]
    if len(headers) > HEADER_COUNT or sum(len(name) + len(value) for name, value in headers) > HEADER_BYTES:
        return _Refusal(431, "The request has too many headers, or too long ones.")
    limit, what = _limit(scope)
    if _declared_bytes(scope) > limit:
        return _Refusal(413, too_large(what, limit))
    return None


def _limit(scope: Scope) -> tuple[int, str]:
    """The most bytes of a body, and what it is."""
    route = _route(scope)
    if route == "/photo":
        return PHOTO_BYTES, "picture"
    if route.startswith(API_PATHS):
        return PHOTO_BYTES, "request"
    if route == UPLOAD_PATH:
        return VIDEO_BYTES, "video"
    return OTHER_BYTES, "request"


def _route(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")).rstrip("/")


def _declared_bytes(scope: Scope) -> int:
    """Content-Length; 0 without one. The server has refused a malformed one."""
    (text,) = header_values(scope, b"content-length")[:1] or ("0",)
    return int(text) if text.isdecimal() else 0


def _has_body(scope: Scope) -> bool:
    return _declared_bytes(scope) > 0 or bool(header_values(scope, b"transfer-encoding"))
