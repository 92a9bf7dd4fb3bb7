"""HTTP on loopback by the standard library's server: one thread for each connection; closing ends all of them.

A service (the API, or the bucket) answers requests that are whole and clear. What is not so is refused here.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from email.message import Message
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler
from io import BufferedIOBase
from typing import BinaryIO, Protocol
from urllib.parse import parse_qsl, unquote
from weakref import WeakSet

from msgspec import Struct

from syncd.core.clock import Clock

ADDRESS = "127.0.0.1"
CHUNK_BYTES = 256 * 1024
_IDLE_S = 75.0
_DRAIN_S = 2.0
_DRAIN_BYTES = 64 * 1024
# Of a query nothing else is shown: it may hold a signature.
_SHOWN_PARAMETERS = frozenset({"region", "execution_name", "cursor", "is_ttl"})
_LOG = logging.getLogger(__name__)


class Disconnected(Exception):
    """The client has closed the connection, or the server ends it."""


class Reply(Struct, frozen=True):
    """An answer; a large body is in `file`, which the sender closes, instead of in `body`."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    file: BinaryIO | None = None

    @property
    def size_bytes(self) -> int:
        return os.fstat(self.file.fileno()).st_size if self.file is not None else len(self.body)

    def chunks(self) -> Iterable[bytes]:
        """The body in pieces of bounded size."""
        return (self.body,) if self.file is None else iter(partial(self.file.read, CHUNK_BYTES), b"")


class RequestBody(Struct):
    """The bytes after a request's head, up to the announced `length`."""

    reader: BufferedIOBase
    length: int
    received: int = 0

    def read(self, limit: int = CHUNK_BYTES) -> bytes:
        """Read at most `limit` bytes, b"" at the end. Raises Disconnected if the client ends before that."""
        wanted = min(limit, self.length - self.received)
        if not wanted:
            return b""
        try:
            data = self.reader.read1(wanted)
        except (OSError, ValueError) as error:
            raise Disconnected from error
        if not data:
            raise Disconnected
        self.received += len(data)
        return data


class Request(Struct, frozen=True):
    """A request. `path` is percent-encoded, as it was signed; `query` is decoded, in order."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Message
    body: RequestBody

    def header(self, name: str) -> str | None:
        """The header's value, several joined by a comma; None without one."""
        values = self.headers.get_all(name)
        return None if values is None else ", ".join(str(value).strip() for value in values)

    @property
    def announces_length(self) -> bool:
        return "Content-Length" in self.headers

    @property
    def chunked(self) -> bool:
        return "Transfer-Encoding" in self.headers

    @property
    def decoded_path(self) -> str:
        return unquote(self.path, errors="surrogateescape")

    @property
    def redacted(self) -> str:
        """The path and the harmless parameters of the query; `…` for the others."""
        shown = [f"{name}={value}" if name in _SHOWN_PARAMETERS else "…" for name, value in self.query]
        return f"{self.path}?{'&'.join(dict.fromkeys(shown))}" if shown else self.path


class RequestRecord(Struct):
    """One request, without key and signature. `status` is None until an answer is sent; `started_at` since 1970."""

    started_at: float
    op: str
    method: str
    path: str
    sandbox: str | None = None
    status: int | None = None
    bytes_in: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        outcome = "no answer" if self.status is None else str(self.status)
        return f"{self.op} {self.method} {self.path} {self.bytes_in} B in {self.seconds:.3f} s: {outcome}"


class Service(Protocol):
    """The API, or the bucket."""

    def identify(self, request: Request) -> tuple[str, str | None]: ...

    def answer(self, op: str, request: Request) -> Reply:
        """Do the work. Raises Disconnected, with nothing done, if the client ends before its body does."""
        ...


class Handler(BaseHTTPRequestHandler):
    """One connection: refuses what is not clear, has the service answer the rest, and sends the answer."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S
    rbufsize = 64 * 1024
    # Head and body are one send if they fit, but an answer may follow a 100 Continue at once.
    disable_nagle_algorithm = True
    server: LoopbackServer

    def serve(self) -> None:
        """Answer the request whose head was read."""
        lengths = self.headers.get_all("Content-Length") or []
        length = re.fullmatch("[0-9]{1,18}", "".join(lengths))
        path, _, query = self.path.partition("?")
        request = Request(
            method=self.command,
            path=path,
            query=tuple(parse_qsl(query, keep_blank_values=True, errors="surrogateescape")),
            headers=self.headers,
            body=RequestBody(self.rfile, int(length[0]) if length else 0),
        )
        # Loopback alone is no protection: a page in a browser can reach it under another host name.
        if request.header("Host") not in (self.server.host, f"localhost:{self.server.port}"):
            self._refuse(request, 403, "this server answers on loopback, under its own name only")
        # An ambiguous length allows request smuggling.
        elif len(lengths) > 1 or (lengths and (request.chunked or not length)):
            self._refuse(request, 400, "the body's length is not clear")
        else:
            self._record(request)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = serve  # noqa: N815 - the library's names

    def exchange(self, request: Request, record: RequestRecord) -> None:
        """Have the service do the work, and send its answer. Raises Disconnected."""
        reply = self.work(request, record)
        record.status = reply.status
        self.send(request, reply)

    def work(self, request: Request, record: RequestRecord) -> Reply:
        """The service's answer; 500 if it failed unexpectedly. Raises Disconnected."""
        try:
            return self.server.service.answer(record.op, request)
        except Disconnected:
            raise
        except Exception as error:  # noqa: BLE001 - a bug here must look like a server's
            self.server.failed(error)
            return Reply(500, (("Content-Type", "text/plain"),), b"Internal LoopbackServer Error\n")

    def send(self, request: Request, reply: Reply) -> None:
        """Send the answer, and end the connection if it can carry no other request."""
        with reply.file or nullcontext():
            body = request.body
            if not self.close_connection and body.length - body.received <= _DRAIN_BYTES:
                while body.read():
                    pass
            self.close_connection |= request.chunked or body.received < body.length
            headers = [("Date", self.date_time_string()), *reply.headers, ("Content-Length", str(reply.size_bytes))]
            if self.close_connection:
                headers.append(("Connection", "close"))
            self.transmit(self.head(reply.status, headers), () if request.method == "HEAD" else reply.chunks())
            if self.close_connection:
                self.drain()

    def head(self, status: int, headers: Iterable[tuple[str, str]]) -> bytes:
        """A status line and headers, ready to send."""
        phrase, *_ = self.responses.get(status, ("Unknown",))
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def transmit(self, opening: bytes, pieces: Iterable[bytes]) -> None:
        """Send the head and the body. Raises Disconnected."""
        for piece in pieces:
            self.write(opening + piece)
            opening = b""
        if opening:
            self.write(opening)

    def write(self, data: bytes) -> None:
        """Send all of this. Raises Disconnected."""
        try:
            self.connection.sendall(data)
        except OSError as error:
            raise Disconnected from error

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(self.server.clock.wall_s() if timestamp is None else timestamp, usegmt=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that is overridden
        """Log nothing: requests have their records."""

    def _record(self, request: Request) -> None:
        record = self.server.begin(request)
        began_s = self.server.clock.monotonic_s()
        try:
            self.exchange(request, record)
        except Disconnected:
            self.close_connection = True
        finally:
            record.bytes_in = request.body.received
            record.seconds = self.server.clock.monotonic_s() - began_s
            self.server.finish(record)

    def _refuse(self, request: Request, status: int, message: str) -> None:
        """Answer without a record, and end the connection."""
        self.close_connection = True
        with suppress(Disconnected):
            self.send(request, Reply(status, (("Content-Type", "text/plain"),), f"{message}\n".encode()))

    def drain(self) -> None:
        """End the sending side and read on for a moment: closing with unread bytes would reset the answer away."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_DRAIN_S)
            while self.connection.recv(CHUNK_BYTES):
                pass


class LoopbackServer(socketserver.ThreadingTCPServer):
    """One port of loopback, from `start` to `close`, with one service. Raises OSError if the port cannot be used.

    `observer` gets each finished request.
    """

    allow_reuse_address = True
    daemon_threads = False
    request_queue_size = 128
    handler = Handler

    def __init__(self, service: Service, port: int, clock: Clock, observer: Callable[[RequestRecord], None]) -> None:
        self.service = service
        self.clock = clock
        self._observer = observer
        self._connections: WeakSet[socket.socket] = WeakSet()
        self._closing = False
        super().__init__((ADDRESS, port), self.handler)
        self.port: int = self.server_address[1]
        self._acceptor = threading.Thread(target=self._accept, name="emulator")

    @property
    def host(self) -> str:
        """The `Host` header of its clients."""
        return f"{ADDRESS}:{self.port}"

    def start(self) -> None:
        self._acceptor.start()

    def close(self) -> None:
        """End every connection, also one that waits, and every thread."""
        self._closing = True
        if self._acceptor.ident is not None:
            # On Linux this wakes the wait for a connection; `shutdown` would be seen at its next turn only.
            self.socket.shutdown(socket.SHUT_RDWR)
            self._acceptor.join()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def begin(self, request: Request) -> RequestRecord:
        """The record of a request that begins now."""
        op, sandbox = self.service.identify(request)
        return RequestRecord(self.clock.wall_s(), op, request.method, request.redacted, sandbox)

    def finish(self, record: RequestRecord) -> None:
        self._observer(record)

    def failed(self, error: BaseException) -> None:
        """Tell of an unexpected error; the connection's end, or a 500, was its client's answer."""
        _LOG.error("a request failed unexpectedly", exc_info=error)

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - the library's signature
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):  # as of a client that was gone before its request
            self.failed(error)

    def _accept(self) -> None:
        while not self._closing:
            self.handle_request()
