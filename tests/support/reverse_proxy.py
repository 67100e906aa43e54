"""A reverse proxy in front of a local server, as nginx or Caddy would be, and servers in threads."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

NOT_FORWARDED = {"host", "connection", "content-length", "transfer-encoding", "x-forwarded-host", "upgrade"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(app: ASGIApp, port: int, **options: Any) -> Iterator[None]:
    """Run an app on a port of this computer, in a thread; options: of uvicorn."""
    config = uvicorn.Config(app, port=port, log_level="critical", timeout_graceful_shutdown=1, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


class ReverseProxy:
    """Forwards what is below a prefix to a port of this computer."""

    def __init__(self, port: int, prefix: str, *, strip: bool, keep_host: bool) -> None:
        """strip: forward the path without the prefix; keep_host: forward the Host that the browser sent."""
        self._server, self._keep_host = f"127.0.0.1:{port}", keep_host
        self._path = "" if strip else prefix
        path, methods = f"{prefix}/{{path:path}}", ["GET", "HEAD", "POST", "PUT", "DELETE"]
        routes = [Route(path, self._forward, methods=methods), WebSocketRoute(path, self._forward_socket)]
        self.app = Starlette(routes=routes)

    def _headers(self, headers: Headers) -> list[tuple[str, str]]:
        kept = [(name, value) for name, value in headers.items() if name not in NOT_FORWARDED]
        return [*kept, ("x-forwarded-proto", "https"), ("x-forwarded-for", "192.0.2.7"), self._host_header(headers)]

    def _host_header(self, headers: Headers) -> tuple[str, str]:
        return ("host" if self._keep_host else "x-forwarded-host", headers["host"])

    async def _forward(self, request: Request) -> StreamingResponse:
        client = httpx.AsyncClient(timeout=60)
        url = f"http://{self._server}{self._path}/{request.path_params['path']}?{request.url.query}"
        content = await request.body()
        message = client.build_request(request.method, url, headers=self._headers(request.headers), content=content)
        reply = await client.send(message, stream=True)

        async def body() -> AsyncIterator[bytes]:
            try:
                async for chunk in reply.aiter_raw():
                    yield chunk
            finally:
                await reply.aclose()
                await client.aclose()

        kept = {name: value for name, value in reply.headers.items() if name not in NOT_FORWARDED}
        return StreamingResponse(body(), reply.status_code, kept)

    async def _forward_socket(self, browser: WebSocket) -> None:
        await browser.accept()
        headers = [item for item in self._headers(browser.headers) if not item[0].startswith(("sec-websocket", "host"))]
        host = browser.headers["host"] if self._keep_host else self._server
        url = f"ws://{host}{self._path}/{browser.path_params['path']}"
        name, port = self._server.split(":")
        async with connect(url, host=name, port=int(port), additional_headers=headers) as server:

            async def answer() -> None:
                async for message in server:
                    await browser.send_text(str(message))

            answers = asyncio.create_task(answer())
            with contextlib.suppress(WebSocketDisconnect, ConnectionClosed, RuntimeError):
                while (message := await browser.receive())["type"] == "websocket.receive":
                    await server.send(message["text"] if message.get("text") is not None else message["bytes"])
            answers.cancel()
