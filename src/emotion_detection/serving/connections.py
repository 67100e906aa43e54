"""Connections that cost others nothing: their number, the time of a head and that of an unread answer are bounded."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_BYTES = 32_000


class BoundedProtocol(H11Protocol):
    """Closes connections that are too many, that do not finish the head of a request, or do not read an answer."""

    most = 256
    """Connections at the same time."""
    most_of_a_client = 100
    """A browser opens 6, and one for each camera."""
    head_s = 10.0
    """From the connection, or from the first byte of a request, to the end of its headers."""
    unread_s = 20.0
    """Without progress, while an answer waits for the client to read it."""

    _head_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most or self._of_this_client() > self._most_of_a_client():
            transport.abort()
        else:
            self._watch_head()

    def _of_this_client(self) -> int:
        clients = [getattr(other, "client", None) or ("",) for other in self.connections]
        return sum(client[0] == (self.client or ("",))[0] for client in clients)

    def _most_of_a_client(self) -> int:
        return self.most if self.config.proxy_headers else self.most_of_a_client  # all come from the proxy

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._stop_watching()
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_unread(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._stop_watching_unread()
        super().resume_writing()

    def _watch_unread(self, size: int) -> None:
        """size: bytes that wait for the client."""
        self._stop_watching_unread()
        self._unread_timer = self.loop.call_later(self.unread_s, self._check_unread, size)

    def _check_unread(self, before: int) -> None:
        size = self.transport.get_write_buffer_size()
        if size >= before:
            self.transport.abort()
        else:
            self._watch_unread(size)

    def _stop_watching_unread(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        self._stop_watching_unread()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        import h11

        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._stop_watching()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_s, self.transport.abort)

    def _stop_watching(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class ServiceProtocol(BoundedProtocol):
    """For programs, which open more connections than browsers, often from one address."""

    most = 1024
    most_of_a_client = 512
