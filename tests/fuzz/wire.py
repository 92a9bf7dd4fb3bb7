"""The network of a simulation: the emulator answers each request in the client's own thread, in scripted time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from email.message import Message
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from typing_extensions import override

from syncd.emulator.server import Disconnected, Reply, Request
from syncd.remote.failure import http_date_s, retry_after_s
from syncd.remote.http_client import HttpClient, NoResponse, Response
from tests.emulator.handler import FaultyHandler

if TYPE_CHECKING:
    from tests.fuzz.simulation import Simulation


class SimulatedClient(HttpClient):
    """A client that tells of its requests, and needs no network."""

    def __init__(self, simulation: Simulation, *args: Any) -> None:
        super().__init__(*args)
        self.simulation = simulation

    def at(self, op: str, when: str, status: int = 0) -> None:
        """Do what is to happen before or after this request; `status` is that of its answer."""

    def pieces(self, body: bytes) -> Iterator[bytes]:
        """Yield a body as it is sent or received."""
        yield body

    @override
    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        read_s: float,
        content: bytes | Iterable[bytes] | None = None,
    ) -> Response:
        op = _op(method, url)
        self.at(op, "before")
        if content is not None and not isinstance(content, bytes):
            content = self.pieces(b"".join(content))
        response = _Exchange(self, method, url, headers, read_s, content).answer()
        self.at(op, "after", response.status)
        return response

    @override
    def download(self, url: str, *, read_s: float, consume: Callable[[Iterator[bytes]], Any]) -> Any:
        self.at("download", "before")
        answer = _Exchange(self, "GET", url, {}, read_s, None).answer()
        taken = consume(self.pieces(answer.body)) if answer.status == 200 else answer
        self.at("download", "after")
        return taken


def _op(method: str, url: str) -> str:
    """Return the last word of a path of the API's, and what is done in the bucket."""
    path = url.partition("?")[0]
    if not path.endswith(".tar.gz"):
        return path.rpartition("/")[2]
    return "download" if method == "GET" else "execution-upload" if "/executions/" in path else "upload"


class _Exchange(FaultyHandler):
    """One request, which the emulator answers as one that came by a connection."""

    def __init__(
        self,
        client: SimulatedClient,
        method: str,
        url: str,
        headers: Mapping[str, str],
        read_s: float,
        content: bytes | Iterable[bytes] | None,
    ) -> None:
        """Take the place of the library's, which reads all this from a socket."""
        place = urlsplit(url)
        self.server = client.simulation.emulator.server_at(place.port)
        self.command, self.path, self.headers = method, f"{place.path}?{place.query}", Message()
        length = {"Content-Length": str(len(content))} if isinstance(content, bytes) else {}
        for name, value in {"Host": place.netloc, **length, **headers}.items():
            self.headers[name] = value
        self.close_connection = False
        self.rfile = self  # type: ignore[assignment]
        self._client, self._simulation, self._waiter = client, client.simulation, client.waiter
        self._read_s = self._left_s = read_s
        self._blocks = iter([content] if isinstance(content, bytes) else content or ())
        self._unread = b""
        self._response: Response | None = None
        self._failure: Exception = NoResponse("the connection was closed")

    def answer(self) -> Response:
        """Return the answer. Raises what its client raises, and what ends the process."""
        simulation = self._simulation
        self._client.requests += 1
        if self._client.requests % 2:  # a new connection is waited for, a kept one is not
            self._waiter.poll_events()
        was_serving, simulation.is_serving = simulation.is_serving, True
        try:
            self.serve()
        finally:
            simulation.is_serving = was_serving
        if self._response is None:
            raise self._failure
        return self._response

    def read1(self, size: int) -> bytes:
        """Have the client make more of the body, and return at most so much of it."""
        self._left_s = self._read_s
        self._unread = self._unread or self._by_client(next, self._blocks, b"")
        block, self._unread = self._unread[:size], self._unread[size:]
        return block

    @override
    def wait(self, seconds: float) -> None:
        self._by_client(self._waiter.sleep, min(seconds, self._left_s))
        self._left_s -= seconds
        if self._left_s <= 0:
            self._failure = NoResponse("no answer in time")
            raise Disconnected

    @override
    def send(self, request: Request, reply: Reply) -> None:
        self.answer_bytes = reply.size_bytes
        with reply.file or nullcontext():
            body = b"".join(self._pieces(reply.chunks()))
        self._by_client(b"".join, self._blocks)  # what it does after the last block
        headers = [("date", self.date_time_string()), *((name.lower(), value) for name, value in reply.headers)]
        asked, server_wall_s = dict(headers).get("retry-after"), http_date_s(headers[0][1])
        asked_s = retry_after_s(asked, server_wall_s or 0.0)
        self._response = Response(reply.status, tuple(headers), body, server_wall_s, asked_s)

    def _by_client(self, work: Callable[..., Any], *args: Any) -> Any:
        """Do a part of the client's, and handle its events. What that raises ends the connection and the exchange."""
        self._simulation.is_serving = False
        try:
            result = work(*args)
            self._waiter.poll_events()
        except Exception as failure:
            self._failure = failure
            raise Disconnected from None
        finally:
            self._simulation.is_serving = True
        return result

    @override
    def _reset(self) -> None:
        """Do nothing: the fault ends the connection."""
