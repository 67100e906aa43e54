"""A proxy in front of a server that can be out of order in the ways in which servers are."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

HEALTHY, REFUSED, SILENT, ERROR, UNAUTHORIZED = "healthy", "refused", "silent", "500", "401"
FAULTS = (REFUSED, SILENT, ERROR, UNAUTHORIZED)
FROZEN = "frozen"  # like SILENT, but connections stay open and are no longer answered
ANSWER = b"HTTP/1.1 %s broken\r\nContent-Length: 6\r\nConnection: close\r\n\r\nbroken"


class Proxy:
    """Listens on a port of its own. `fault` can be changed at any time, also for connections that are open."""

    def __init__(self, target: int = 0) -> None:
        self.target = target  # the port of a server; 0: there is none
        self._fault = HEALTHY
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._connections: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def fault(self) -> str:
        return self._fault

    @fault.setter
    def fault(self, fault: str) -> None:
        """Set how the server is out of order. Connections that are open are closed, unless it freezes."""
        self._fault = fault
        if fault != FROZEN:
            self._close_connections()

    def close(self) -> None:
        self.fault = REFUSED
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _close_connections(self) -> None:
        for connection in tuple(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        self._connections.add(client)
        with suppress(OSError), client:
            if self._fault == REFUSED:
                return
            if self._fault == HEALTHY:
                self._forward(client)
            elif self._fault in (SILENT, FROZEN):
                while client.recv(65536):
                    pass
            elif client.recv(65536):
                client.sendall(ANSWER % self._fault.encode())
        self._connections.discard(client)

    def _forward(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self.target)) as server:
            self._connections.add(server)
            back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
            back.start()
            self._copy(client, server)
            back.join()
            self._connections.discard(server)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(65536):
                if self._fault != FROZEN:
                    target.sendall(part)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy(target: int = 0) -> Iterator[Proxy]:
    """A proxy in front of the server on this port."""
    server = Proxy(target)
    try:
        yield server
    finally:
        server.close()
