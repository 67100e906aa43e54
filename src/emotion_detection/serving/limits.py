"""Limits on what a request may bring: its head, and the size and the time of its body."""

import asyncio

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emotion_detection.serving.access import header_values, refuse
from emotion_detection.serving.connections import HEADER_BYTES
from emotion_detection.serving.refusals import RequestError
from emotion_detection.serving.settings import Limits

HEADER_COUNT = 100
URL_BYTES = 8_000


class LimitMiddleware:
    """Refuses requests that exceed the limits. A body is counted while it arrives, whatever its head declares."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self._limits = app, limits
        self._held = 0  # bytes of all bodies in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = _check_head(scope, self._limits)
        if refusal is not None:
            await refuse(scope, receive, send, status=refusal.status, reason=str(refusal))
            return
        body = _Body(self, self._limits, receive, send, complete=not _has_body(scope))
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            body.release()

    def release(self, size: int) -> None:
        """Forget bytes that are in memory no longer."""
        self._held -= size

    def hold(self, size: int) -> None:
        """Count bytes that have arrived. Raises RequestError if all bodies together need too much memory."""
        self._held += size
        if self._held > self._limits.held_bytes:
            raise RequestError(503, "The requests of all clients are too large together: try again in a moment.")


class _Body:
    """The body of one request while it arrives."""

    def __init__(
        self, middleware: LimitMiddleware, limits: Limits, receive: Receive, send: Send, *, complete: bool
    ) -> None:
        self._middleware, self._limits = middleware, limits
        self._receive, self._send = receive, send
        self._loop = asyncio.get_running_loop()
        self._start_s = self._loop.time()
        self._complete = complete
        self.count = 0
        self._held = 0  # of `count`

    def release(self) -> None:
        """Count the body as memory no longer."""
        self._middleware.release(self._held)
        self._held = 0

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            with anyio.fail_after(self._remaining_s()):
                message = await self._receive()
        except TimeoutError:
            raise RequestError(408, "The request did not arrive in time: use a faster connection.") from None
        size = len(message.get("body", b""))
        self.count += size
        self._held += size
        self._middleware.hold(size)
        if self.count > self._limits.body_bytes:
            raise RequestError(413, too_large(self._limits))
        self._complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.release()  # a client that does not read its answer must not lock out the others
            if not self._complete:
                # The rest of the body must not hold the connection.
                message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        await self._send(message)

    def _remaining_s(self) -> float:
        end_s = self._start_s + self._limits.body_grace_s + self.count / self._limits.body_rate
        return max(end_s - self._loop.time(), 0.0)


def client_name(scope: Scope) -> str:
    """The address of the client, which may be that of a router or proxy in front of several people."""
    return scope["client"][0] if scope.get("client") else ""


def too_large(limits: Limits) -> str:
    """The reason for a refused body."""
    return f"The request is larger than {limits.body_bytes / 1e6:.3g} MB: send less at once."


def _check_head(scope: Scope, limits: Limits) -> RequestError | None:
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > URL_BYTES:
        return RequestError(414, "The address of the request is too long: send data in the body.")
    headers = scope["headers"]
    if len(headers) > HEADER_COUNT or sum(len(name) + len(value) for name, value in headers) > HEADER_BYTES:
        return RequestError(431, "The request has too many headers, or too long ones: send fewer.")
    if _declared_bytes(scope) > limits.body_bytes:
        return RequestError(413, too_large(limits))
    encodings = [value.strip().lower() for value in header_values(scope, b"content-encoding")]
    if any(value not in ("", "identity") for value in encodings):
        return RequestError(415, "Compressed bodies are not supported: send the body without Content-Encoding.")
    return None


def _has_body(scope: Scope) -> bool:
    return _declared_bytes(scope) > 0 or bool(header_values(scope, b"transfer-encoding"))


def _declared_bytes(scope: Scope) -> int:
    """Content-Length; 0 without one. The server has refused a malformed one."""
    (text,) = header_values(scope, b"content-length")[:1] or ("0",)
    return int(text) if text.isdecimal() else 0
