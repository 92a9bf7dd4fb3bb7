"""A listening port on loopback with one thread a connection, all of which are gone when it is closed.

Loopback alone is no protection: a page in a browser can reach it under a name of its own. So a foreign `Host` is
refused before anything else is looked at.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from syncd.emulator.wire import BadFraming, Connection, Disconnected, Request, head

ADDRESS = "127.0.0.1"
MOST_CONNECTIONS = 64

Serve = Callable[[Connection, Request], bool]


class Origin:
    """One host and port. `serve` answers a request and says whether its connection may carry another.

    `failed` is told what `serve` raised unexpectedly; the connection ends, the others go on.
    """

    def __init__(self, name: str, serve: Serve, failed: Callable[[BaseException], None]) -> None:
        self.name = name
        self._serve = serve
        self._failed = failed
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._lock = threading.Lock()
        self._open: dict[Connection, threading.Thread] = {}
        self._closing = False
        self.port = 0

    @property
    def host(self) -> str:
        """What a client sends as `Host`."""
        return f"{ADDRESS}:{self.port}"

    def bind(self, port: int) -> None:
        """Takes `port` (0: any free one); OSError if it cannot be had."""
        self._listener = socket.create_server((ADDRESS, port), backlog=128)
        self.port = self._listener.getsockname()[1]

    def start(self) -> None:
        self._acceptor = threading.Thread(target=self._accept, name=f"emulator-{self.name}")
        self._acceptor.start()

    def close(self) -> None:
        """Ends every connection, whatever it is waiting for, and every thread."""
        with self._lock:
            self._closing = True
            pending = list(self._open.items())
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
                if self._closing or len(self._open) >= MOST_CONNECTIONS:
                    sock.close()
                    continue
                try:
                    connection = Connection(sock)
                except OSError:  # already reset by its client
                    sock.close()
                    continue
                thread = threading.Thread(target=self._converse, args=(connection,), name=f"emulator-{self.name}-peer")
                self._open[connection] = thread
                thread.start()

    def _converse(self, connection: Connection) -> None:
        try:
            while not self._closing and self._one(connection):
                pass
        except Disconnected:
            pass
        except BaseException as error:  # noqa: BLE001 - told to the owner, who raises it where someone looks
            self._failed(error)
        finally:
            connection.close()
            with self._lock:
                self._open.pop(connection, None)

    def _one(self, connection: Connection) -> bool:
        try:
            request = connection.next_request()
        except BadFraming as error:
            _refuse(connection, error.status, error.message)
            return False
        if request is None:
            return False
        if request.header("Host") not in (self.host, f"localhost:{self.port}"):
            _refuse(connection, 403, "this server answers on loopback, under its own name only")
            return False
        return self._serve(connection, request)


def _refuse(connection: Connection, status: int, message: str) -> None:
    body = f"{message}\n".encode()
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), ("Connection", "close")]
    connection.send(head(status, headers) + body)
    connection.linger()
