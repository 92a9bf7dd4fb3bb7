"""The cases of an exchange, against small servers: what comes of it, how often it is sent, and its phase in the end."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count

import pytest
from msgspec import Struct, field

from syncd.core.clock import SystemClock
from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.remote import http_client, network
from syncd.remote.http_client import HttpClient, NoResponse, Response
from syncd.remote.network import Exchange, Phase
from tests.loopback import OK, answering, head_of

LARGE_BYTES = 1 << 30  # more than any kernel takes
BLOCK = bytes(1 << 16)


class Scene(Struct):
    """One case under way. `over` is set once the client has what it gets, `now` in the instant of its next request."""

    client: HttpClient
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)
    now: threading.Event = field(default_factory=threading.Event)
    read_s: float = 60.0
    left_bytes: int = -1  # what the server could still read after that


# -- the servers


def answers(connection: socket.socket, _: Scene) -> None:
    while head := head_of(connection).lower():
        left = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        while left:
            left -= len(connection.recv(left))
        connection.sendall(OK)


def answers_and_closes_now(connection: socket.socket, scene: Scene) -> None:
    head_of(connection)
    connection.sendall(OK)
    assert scene.now.wait(60)


def closes(connection: socket.socket, _: Scene) -> None:
    head_of(connection)


def answers_and_closes_the_next(connection: socket.socket, _: Scene) -> None:
    head_of(connection)
    connection.sendall(OK)
    head_of(connection)


def answers_twice(connection: socket.socket, scene: Scene) -> None:
    head_of(connection)
    connection.sendall(OK + OK)
    assert scene.over.wait(60)


def is_silent(connection: socket.socket, scene: Scene) -> None:
    head_of(connection)
    assert scene.over.wait(60)


def trickles(connection: socket.socket, scene: Scene) -> None:
    head_of(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")
    while not scene.over.wait(0.05):
        connection.sendall(b"o")


def reads_later(connection: socket.socket, scene: Scene) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    head_of(connection)
    assert scene.over.wait(60)
    scene.left_bytes = 0
    with suppress(OSError):
        while piece := connection.recv(1 << 20):
            scene.left_bytes += len(piece)


def informs(connection: socket.socket, scene: Scene) -> None:
    """Informational answers come in the middle of the body, two of them at once."""
    left = int(head_of(connection).lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    while left:
        left -= len(connection.recv(left))
    connection.sendall(OK)
    assert scene.over.wait(60)


def answering_early(
    status: int, end: Callable[[socket.socket, Scene], object]
) -> Callable[[socket.socket, Scene], None]:
    """Return a server that answers in the middle of a body, and then reads no more."""

    def talk(connection: socket.socket, scene: Scene) -> None:
        # Or the server's own kernel would hold the answer back, and not send it at all if the connection ends then.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head_of(connection)
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 %d No\r\nContent-Length: 3\r\n\r\nno!" % status)
        end(connection, scene)

    return talk


def resets(connection: socket.socket, _: Scene) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def just_closes(_: socket.socket, __: Scene) -> None:
    """The kernel resets the connection, as there is more to read."""


def says_goodbye(connection: socket.socket, scene: Scene) -> None:
    """Over TLS: no more comes from the server, which still reads."""
    if isinstance(connection, ssl.SSLSocket):
        connection.settimeout(0.1)
        with suppress(OSError):
            connection.unwrap()


def stays(_: socket.socket, scene: Scene) -> None:
    assert scene.over.wait(60)


def takes_some(end: Callable[[socket.socket, Scene], object]) -> Callable[[socket.socket, Scene], None]:
    """Return a server that ends the connection in the middle of a body, without an answer."""

    def talk(connection: socket.socket, scene: Scene) -> None:
        head_of(connection)
        connection.recv(1000)
        end(connection, scene)

    return talk


# -- the clients


def get(scene: Scene) -> Response:
    return scene.client.exchange("GET", scene.url, headers={}, read_s=scene.read_s)


def put(size_bytes: int) -> Callable[[Scene], Response]:
    def ask(scene: Scene) -> Response:
        body, headers = [BLOCK] * (size_bytes // len(BLOCK)), {"Content-Length": str(size_bytes)}
        return scene.client.exchange("PUT", scene.url, headers=headers, read_s=scene.read_s, content=body)

    return ask


def after_one(ask: Callable[[Scene], Response]) -> Callable[[Scene], Response]:
    def ask_twice(scene: Scene) -> Response:
        assert get(scene).body == b"ok"
        return ask(scene)

    return ask_twice


def in_the_instant(ask: Callable[[Scene], Response]) -> Callable[[Scene], Response]:
    """The server closes the kept connection after the client has looked at it, and before it sends."""

    def ask_twice(scene: Scene) -> Response:
        assert get(scene).body == b"ok"
        kept, begins = scene.client.connection, Exchange.begin_write

        def begin(self: Exchange, connection: socket.socket, earlier: Exchange | None) -> None:
            begins(self, connection, earlier)
            if connection is kept:
                scene.now.set()
                poll = select.poll()
                poll.register(connection, select.POLLRDHUP)
                assert poll.poll(60_000)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Exchange, "begin_write", begin)
            return ask(scene)

    return ask_twice


class Case(Struct):
    """A server for each connection, what the client asks, what it gets, how often it is sent, and the last phase."""

    talks: list[Callable[[socket.socket, Scene], None]]
    ask: Callable[[Scene], Response]
    gets: str
    phase: Phase
    requests: int = 1
    read_s: float = 60.0
    left_bytes: int = 0  # what the server reads afterwards is less


CUT_OFF = "the other side closed the connection"
EARLY = {"closes": just_closes, "resets": resets, "stays": stays}
CASES = {
    "nobody listens": Case([], get, "Connection refused", Phase.IDLE),
    "it answers": Case([answers], get, "200 ok", Phase.ANSWERED),
    "it answers again": Case([answers], after_one(put(1 << 16)), "200 ok", Phase.ANSWERED, 2),
    "it is silent": Case([is_silent], get, "no answer in time", Phase.OVER, read_s=0.3),
    "its answer comes byte by byte": Case([trickles], get, "no answer in time", Phase.OVER, read_s=0.3),
    "it closes a new connection": Case([closes], get, CUT_OFF, Phase.OVER),
    "it closes a kept one in the instant of a request": Case(
        [answers_and_closes_now, answers], in_the_instant(get), "200 ok", Phase.ANSWERED, 3
    ),
    "it closes a kept one in the instant of an upload": Case(
        [answers_and_closes_now, answers], in_the_instant(put(1 << 20)), "200 ok", Phase.ANSWERED, 3
    ),
    "it takes a request over a kept one and closes": Case(
        [answers_and_closes_the_next], after_one(get), CUT_OFF, Phase.OVER, 2
    ),
    "it answers twice at once": Case(
        [answers_twice], after_one(get), "the answer came before its request", Phase.OVER, 2
    ),
    **{
        f"it refuses in the middle of a body and {end}": Case(
            [answering_early(413, EARLY[end])], put(LARGE_BYTES), "413 no!", Phase.OVER
        )
        for end in EARLY
    },
    "it informs in the middle of a body": Case([informs], put(1 << 24), "200 ok", Phase.ANSWERED),
    "it closes in the middle of a body": Case([takes_some(just_closes)], put(LARGE_BYTES), CUT_OFF, Phase.OVER),
    "it says goodbye in the middle of a body": Case([takes_some(says_goodbye)], put(LARGE_BYTES), CUT_OFF, Phase.OVER),
    "it resets in the middle of a body": Case([takes_some(resets)], put(LARGE_BYTES), CUT_OFF, Phase.OVER),
    "it accepts what it does not have": Case(
        [answering_early(200, stays)],
        put(LARGE_BYTES),
        "the answer came before the whole request was sent",
        Phase.OVER,
    ),
    "it stops reading": Case(
        [reads_later], put(LARGE_BYTES), "the other side stopped reading", Phase.OVER, left_bytes=LARGE_BYTES
    ),
    "it reads nothing of what the kernel took": Case(
        [reads_later], put(1 << 20), "no answer in time", Phase.OVER, read_s=0.3, left_bytes=1 << 20
    ),
}


@pytest.fixture
def scene() -> Iterator[Scene]:
    client = HttpClient(Waiter(Interrupt(), SystemClock()))
    yield Scene(client)
    client.drop()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_case(
    scene: Scene, case: Case, secure: bool, trusted_tls: tuple[ssl.SSLContext, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the client gets is of its request and in time; nothing is sent twice that may have arrived, or later."""
    monkeypatch.setattr(http_client, "WRITE_S", 0.3 if case.talks == [reads_later] else 60.0)
    monkeypatch.setenv("SSL_CERT_FILE", trusted_tls[1])
    number = count()

    def talk(connection: socket.socket) -> None:
        with trusted_tls[0].wrap_socket(connection, server_side=True) if secure else connection as peer:
            case.talks[next(number)](peer, scene)

    with answering(talk) as port:
        scene.url, scene.read_s = f"http{'s' if secure else ''}://127.0.0.1:{port if case.talks else 9}/", case.read_s
        got, reached = "", True
        try:
            answer = case.ask(scene)
            got = f"{answer.status} {answer.body.decode()}"
        except NoResponse as failure:
            got, reached = str(failure), failure.reached
        phase = scene.client._network.exchange.phase
        scene.over.set()
        scene.client.drop()
    assert case.gets in got
    assert (phase, reached) == (case.phase, case.phase is not Phase.IDLE)
    assert scene.client.requests == case.requests
    assert scene.left_bytes < case.left_bytes


def test_the_answers_time_begins_when_the_request_has_left() -> None:
    """While more of it leaves the kernel, as over a slow uplink, the answer is not late."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        peer, _ = listener.accept()
        with peer:
            ours.setblocking(False)
            exchange = Exchange(0.0)
            exchange.begin_write(ours, None)
            with suppress(BlockingIOError):
                while True:
                    ours.send(BLOCK)
            exchange.begin_read()
            exchange.raise_if_late()
            queued = network.queued_bytes(ours)
            while network.queued_bytes(ours) == queued:
                peer.recv(1 << 16)
            exchange.raise_if_late()
            with pytest.raises(TimeoutError):
                _raise_when_late(exchange)


def _raise_when_late(exchange: Exchange) -> None:
    while True:  # what is acknowledged may come later than what was read
        exchange.raise_if_late()
