"""A listening port on loopback with one thread for each connection; closing it ends all of them.

Loopback alone is no protection: a page in a browser can reach it under another host name. So a request with a foreign
`Host` is refused first.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from syncd.emulator.wire import BadFraming, Connection, Disconnected, Request, head

ADDRESS = "127.0.0.1"
MAX_CONNECTIONS = 512

Serve = Callable[[Connection, Request], bool]


class Origin:
    """One host and port. `serve` answers a request, and returns True if its connection may carry another one.

    `on_error` gets each unexpected error of `serve`; that connection ends, the others continue.
    """

    def __init__(self, name: str, serve: Serve, on_error: Callable[[BaseException], None]) -> None:
        self.name = name
        self._serve = serve
        self._on_error = on_error
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._closing = False
        self.port = 0

    @property
    def host(self) -> str:
        """The `Host` header of its clients."""
        return f"{ADDRESS}:{self.port}"

    def bind(self, port: int) -> None:
        """Open `port` (0: any free one). Raises OSError."""
        self._listener = socket.create_server((ADDRESS, port), backlog=128)
        self.port = self._listener.getsockname()[1]

    def start(self) -> None:
        self._acceptor = threading.Thread(target=self._accept, name=f"emulator-{self.name}")
        self._acceptor.start()

    def close(self) -> None:
        """End every connection, also one that waits, and every thread."""
        with self._lock:
            self._closing = True
            pending = list(self._connections.items())
        if self._listener is not None:
            if self._acceptor is not None:
                # On Linux this wakes a blocked accept(); closing alone would not.
                self._listener.shutdown(socket.SHUT_RDWR)
                self._acceptor.join()
            self._listener.close()
        for connection, thread in pending:
            connection.abort()
            thread.join()

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101 - bind() comes before start()
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                if self._closing:
                    return
                continue
            with self._lock:
                if self._closing or len(self._connections) >= MAX_CONNECTIONS:
                    sock.close()
                    continue
                try:
                    connection = Connection(sock)
                except OSError:  # already reset by its client
                    sock.close()
                    continue
                thread = threading.Thread(
                    target=self._serve_connection, args=(connection,), name=f"emulator-{self.name}-peer"
                )
                self._connections[connection] = thread
                thread.start()

    def _serve_connection(self, connection: Connection) -> None:
        try:
            while not self._closing and self._serve_one(connection):
                pass
        except Disconnected:
            pass
        except BaseException as error:  # noqa: BLE001 - reported to the owner, which raises it at its end
            self._on_error(error)
        finally:
            connection.close()
            with self._lock:
                self._connections.pop(connection, None)

    def _serve_one(self, connection: Connection) -> bool:
        try:
            request = connection.next_request()
        except BadFraming as error:
            _send_error(connection, error.status, error.message)
            return False
        if request is None:
            return False
        if request.header("Host") not in (self.host, f"localhost:{self.port}"):
            _send_error(connection, 403, "this server answers on loopback, under its own name only")
            return False
        return self._serve(connection, request)


def _send_error(connection: Connection, status: int, message: str) -> None:
    body = f"{message}\n".encode()
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), ("Connection", "close")]
    connection.send(head(status, headers) + body)
    connection.drain()
