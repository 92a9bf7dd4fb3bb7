"""HTTP/1.1 on one socket, in a small form that allows faults such as a connection reset.

It has only what the sandbox API and its bucket need: one request at a time, bodies and answers with a `Content-Length`,
keep-alive. Chunked requests are not parsed, as both services refuse them.
"""

from __future__ import annotations

import http.client
import io
import re
import select
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import BinaryIO, Protocol
from urllib.parse import parse_qsl, unquote

from msgspec import Struct

CHUNK_BYTES = 256 * 1024
LINE_BYTES = 32 * 1024
IDLE_S = 75.0
DRAIN_S = 2.0
# If the client sends faster than this reads, more than a segment is unread, which the kernel acknowledges anyway.
_RESET_READS = 100
DRAIN_BYTES = 64 * 1024
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Disconnected(Exception):
    """The client closed the connection, or a fault did."""


class BadFraming(Exception):
    """The bytes are not a request that a service could answer; `status` is the HTTP status of the error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Readable(Protocol):
    """A request's body: `length` is the announced length, `read` returns b"" at its end."""

    @property
    def length(self) -> int: ...
    def read(self, limit: int = CHUNK_BYTES, /) -> bytes: ...


class Reply(Struct, frozen=True):
    """An answer; a large body is in the file `content`, which the sender closes, instead of in `body`."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    content: BinaryIO | None = None
    content_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        return self.content_bytes if self.content is not None else len(self.body)

    def chunks(self) -> Iterable[bytes]:
        """The body in pieces of bounded size."""
        if self.content is None:
            for start in range(0, len(self.body), CHUNK_BYTES):
                yield self.body[start : start + CHUNK_BYTES]
            return
        left = self.content_bytes
        while left and (chunk := self.content.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk


class RequestBody(Struct):
    """The bytes after a request's head, up to `length`."""

    connection: Connection
    length: int
    awaits_continue: bool = False
    received: int = 0

    def read(self, limit: int = CHUNK_BYTES) -> bytes:
        """Read at most `limit` bytes. Raises Disconnected if the client ends before the announced length."""
        wanted = min(limit, self.length - self.received)
        if not wanted:
            return b""
        if self.awaits_continue:
            self.awaits_continue = False
            self.connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        data = self.connection.receive(wanted)
        self.received += len(data)
        return data

    @property
    def unread(self) -> int:
        return self.length - self.received


class Request(Struct, frozen=True):
    """A request's head. `path` is percent-encoded, as it was signed; `query` is decoded, in order."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: http.client.HTTPMessage
    body: RequestBody
    keeps_alive: bool
    chunked: bool
    announces_length: bool

    def header(self, name: str) -> str | None:
        """The header's value, several joined by a comma; None without one."""
        values = self.headers.get_all(name)
        return None if values is None else ", ".join(str(value).strip() for value in values)

    @property
    def decoded_path(self) -> str:
        return unquote(self.path, errors="surrogateescape")


class Connection:
    """One accepted socket. `abort`, called from another thread, ends every blocking call at once."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(IDLE_S)
        # Head and body are one send if they fit, but an answer may follow a 100 Continue at once.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._reader = io.BufferedReader(socket.SocketIO(sock, "r"), 64 * 1024)

    def receive(self, limit: int) -> bytes:
        """Read 1 to `limit` bytes. Raises Disconnected at the end of the stream."""
        try:
            data = self._reader.read1(limit)
        except (OSError, ValueError) as error:
            raise Disconnected from error
        if not data:
            raise Disconnected
        return data

    def send(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise Disconnected from error

    def wait(self, seconds: float) -> None:
        """Wait for `seconds`. Raises Disconnected as soon as the client or the server closes the connection."""
        poll = select.poll()
        try:
            # RDHUP, not IN, which would return at once while a body is unread.
            poll.register(self._sock, select.POLLRDHUP)
            closed = poll.poll(max(0.0, seconds) * 1000)
        except (OSError, ValueError) as error:
            raise Disconnected from error
        if closed:
            raise Disconnected

    def abort(self) -> None:
        """End every blocking call on this connection, from any thread."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """End the connection with a TCP reset, after all received bytes have been acknowledged.

        Without that, it would depend on timing if the client knows that its request has arrived.
        """
        self._sock.settimeout(0)
        with suppress(OSError):  # also if nothing is left to read, which ends the loop
            # While bytes are unread, Linux does not acknowledge at once (tcp_cleanup_rbuf in net/ipv4/tcp.c).
            for _ in range(_RESET_READS):
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                if not self._sock.recv(CHUNK_BYTES):
                    break
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def drain(self) -> None:
        """End the sending side and read on for a moment: closing with unread bytes would reset the answer away."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
            self._sock.settimeout(DRAIN_S)
            while self._sock.recv(CHUNK_BYTES):
                pass
        except OSError:
            pass

    def close(self) -> None:
        self._reader.close()
        self._sock.close()

    def next_request(self) -> Request | None:
        """The next request's head, None if the client has closed. Raises BadFraming, Disconnected."""
        try:
            line = self._reader.readline(LINE_BYTES + 1)
        except (OSError, ValueError) as error:
            raise Disconnected from error
        if not line:
            return None
        if len(line) > LINE_BYTES:
            raise BadFraming(414, "request line too long")
        words = line.decode("latin-1").rstrip("\r\n").split(" ")
        if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
            raise BadFraming(400, "not an HTTP/1.1 request")
        method, target, version = words
        if not target.startswith("/"):
            raise BadFraming(400, "the request's target is not a path")
        try:
            headers = http.client.parse_headers(self._reader)
        except http.client.HTTPException as error:
            raise BadFraming(431, "too many or too long headers") from error
        except (OSError, ValueError) as error:
            raise Disconnected from error
        return self._request(method, target, version, headers)

    def _request(self, method: str, target: str, version: str, headers: http.client.HTTPMessage) -> Request:
        lengths = headers.get_all("Content-Length") or []
        chunked = headers.get("Transfer-Encoding") is not None
        # An ambiguous length allows request smuggling.
        if len(lengths) > 1 or (lengths and chunked) or not all(re.fullmatch(r"[0-9]{1,18}", text) for text in lengths):
            raise BadFraming(400, "the body's length is not clear")
        path, _, query = target.partition("?")
        tokens = (headers.get("Connection") or "").lower()
        return Request(
            method=method,
            path=path,
            query=tuple(parse_qsl(query, keep_blank_values=True, errors="surrogateescape")),
            headers=headers,
            body=RequestBody(
                self,
                int(lengths[0]) if lengths else 0,
                awaits_continue=(headers.get("Expect") or "").lower() == "100-continue",
            ),
            keeps_alive=version == "HTTP/1.1" and "close" not in tokens,
            chunked=chunked,
            announces_length=bool(lengths),
        )


def head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """A status line and headers, ready to send."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
