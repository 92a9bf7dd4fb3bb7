"""Requests over real sockets: TLS, proxies, names, stops, and the listener that is called during waits."""

from __future__ import annotations

import base64
import select
import socket
import ssl
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from math import inf
from urllib.parse import unquote

import httpcore
import pytest

from syncd.core.clock import SystemClock
from syncd.core.signals import Interrupt
from syncd.core.waiter import Event, NewerEvents, Superseded, Waiter, Work
from syncd.remote import http_client, network
from syncd.remote.http_client import HttpClient, NoResponse
from tests.loopback import OK, answering, head_of, received


class FakeListener:
    """A listener with one descriptor, which records what it receives."""

    def __init__(self) -> None:
        self.alarm, self.other = socket.socketpair()
        self.alarm.setblocking(False)
        self.received: list[bytes] = []

    def wake_fds(self) -> list[tuple[int, int]]:
        return [(self.alarm.fileno(), select.POLLIN)]

    def deadline_s(self) -> float:
        return inf

    def handle(self, ready: Collection[int]) -> bool:
        with suppress(BlockingIOError):
            self.received.append(self.alarm.recv(100))
        return True

    def newer_events(self) -> NewerEvents:
        return {Event.CHANGE: 0.0} if self.received else {}

    def close(self) -> None:
        self.alarm.close()
        self.other.close()


@pytest.fixture
def listener() -> Iterator[FakeListener]:
    listener = FakeListener()
    yield listener
    listener.close()


@pytest.fixture
def client(listener: FakeListener) -> Iterator[HttpClient]:
    """A client with a listener."""
    client = HttpClient(Waiter(Interrupt(), SystemClock()))
    client.waiter.tasks.events = listener
    with client.waiter.superseded_by(listener.newer_events):
        yield client
    client.drop()


def refused(client: HttpClient, url: str, read_s: float = 60.0) -> str:
    """Return the reason that there was no response."""
    with pytest.raises(NoResponse) as caught:
        client.exchange("GET", url, headers={}, read_s=read_s)
    return str(caught.value)


SIZE_BYTES = 3 << 20


@pytest.mark.parametrize("password", ["p%40ss", "p@ss", "p/s?s#x:%2Fé"])
def test_tls_through_a_proxy(
    client: HttpClient,
    trusted_tls: tuple[ssl.SSLContext, str],
    monkeypatch: pytest.MonkeyPatch,
    password: str,
) -> None:
    """An upload of some MiB passes through the tunnel of a proxy that wants a password, in any spelling."""
    context, certificate = trusted_tls
    got: list[int] = []
    asked: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            got.extend(received(wrapped))
            wrapped.sendall(OK)

    with answering(serve) as port:

        def proxy(connection: socket.socket) -> None:
            asked.extend(head_of(connection).split(b"\r\n"))
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with socket.create_connection(("127.0.0.1", port)) as far:
                back = threading.Thread(target=_copy, args=(far, connection))
                back.start()
                _copy(connection, far)
                back.join(60)

        with answering(proxy) as proxy_port:
            monkeypatch.setenv("SSL_CERT_FILE", certificate)
            monkeypatch.setenv("HTTPS_PROXY", f"http://me:{password}@localhost:{proxy_port}")
            body = [bytes(1 << 16)] * (SIZE_BYTES >> 16)
            headers = {"Content-Length": str(SIZE_BYTES)}
            answer = client.exchange("PUT", "https://api.test/x", headers=headers, read_s=60, content=body)
            assert (answer.status, answer.body) == (200, b"ok")
            client.drop()
    assert asked[0] == b"CONNECT api.test:443 HTTP/1.1"
    assert b"Proxy-Authorization: Basic " + base64.b64encode(f"me:{unquote(password)}".encode()) in asked
    assert sum(got) == SIZE_BYTES


def test_a_certificate_that_is_trusted_later(
    client: HttpClient, trusted_tls: tuple[ssl.SSLContext, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that was not trusted is, once its certificate is among those that this machine trusts."""
    context, certificate = trusted_tls

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            head_of(wrapped)
            wrapped.sendall(OK)

    with answering(serve) as port:
        url = f"https://127.0.0.1:{port}/"
        assert "is not trusted here" in refused(client, url, read_s=60)
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        assert client.exchange("GET", url, headers={}, read_s=60).body == b"ok"
        client.drop()


def test_a_proxy_that_is_reached_by_tls(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused, with what to do."""
    monkeypatch.setenv("HTTPS_PROXY", "https://me:p%40ss@localhost:1")
    message = refused(client, "https://api.test/x")
    assert message.endswith("name it by http")
    assert "p%40ss" not in message


def _copy(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            to.sendall(piece)
    with suppress(OSError):
        to.shutdown(socket.SHUT_WR)


# What the server does before it is silent, the scheme of its URL, and what is told then.
HANGS: dict[str, tuple[Callable[[socket.socket], object], str, str]] = {
    "in the handshake": (lambda connection: connection.recv(4096), "https", "no connection within"),
    "before the answer": (head_of, "http", "no answer in time"),
    "in the answer's head": (lambda it: (head_of(it), it.sendall(OK[:10])), "http", "no answer in time"),
    "in the answer's body": (lambda it: (head_of(it), it.sendall(OK[:-1])), "http", "no answer in time"),
}


@pytest.mark.parametrize(("talk", "scheme", "why"), HANGS.values(), ids=HANGS)
def test_the_listener_is_called_while_a_server_is_silent(
    client: HttpClient,
    listener: FakeListener,
    monkeypatch: pytest.MonkeyPatch,
    talk: Callable[[socket.socket], object],
    scheme: str,
    why: str,
) -> None:
    """Wherever it hangs: what supersedes the exchange ends it at once, and else it ends in its own time."""

    def hang(connection: socket.socket) -> None:
        talk(connection)
        listener.other.sendall(b"news")
        connection.recv(4096)

    with answering(hang) as port:
        url = f"{scheme}://127.0.0.1:{port}/"
        # The server may come to it late, so this one has as long as it needs.
        monkeypatch.setattr(http_client, "CONNECT_S", 60.0)
        with client.waiter.doing(Work.READ), pytest.raises(Superseded):
            client.exchange("GET", url, headers={}, read_s=60)
        assert b"".join(listener.received) == b"news"
        monkeypatch.setattr(http_client, "CONNECT_S", 0.4)
        assert refused(client, url, read_s=0.3).startswith(why)
        client.drop()


def test_who_hears_is_told_while_a_name_is_look_up(
    client: HttpClient, listener: FakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No name server answers: what supersedes the lookup ends it at once, and else it times out."""
    over = threading.Event()
    real = network._look_up

    def look_up(host: str, port: int, flags: int = 0) -> list[object]:
        if not flags:
            listener.other.sendall(b"news")
            over.wait(60)
        return real(host, port, flags)

    monkeypatch.setattr(network, "_look_up", look_up)
    monkeypatch.setattr(http_client, "CONNECT_S", 60.0)
    with client.waiter.doing(Work.READ), pytest.raises(Superseded):
        client.exchange("GET", "https://api.test/", headers={}, read_s=60)
    assert b"".join(listener.received) == b"news"
    monkeypatch.setattr(http_client, "CONNECT_S", 0.3)
    assert refused(client, "https://api.test/") == "its name cannot be looked up in time"
    over.set()


def test_no_thread_is_left_to_look_up_a_name(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of processes is a failure like any other, and passes."""

    def start(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(network._thread, "start_new_thread", start)
    assert refused(client, "https://api.test/") == "this machine has no thread to look up its name"


def test_proxies(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxy is used for remote hosts, with its refusal in the message, and never for loopback."""
    asked: list[bytes] = []

    def refuse(connection: socket.socket) -> None:
        asked.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")

    with answering(refuse) as proxy, answering(lambda c: (head_of(c), c.sendall(OK))) as port:
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        assert refused(client, "https://api.example.com/") == (
            "the proxy refused: 407 Who are you (HTTPS_PROXY takes its user and password: http://USER:PASSWORD@HOST:PORT)"
        )
        assert len(asked) == 1
        assert client.exchange("GET", f"http://127.0.0.1:{port}/", headers={}, read_s=5).status == 200
        assert len(asked) == 1
        monkeypatch.setenv("NO_PROXY", "example.com,.invalid")
        assert refused(client, "https://no-such-host.invalid/").startswith("its name")
        assert len(asked) == 1
        monkeypatch.setenv("HTTPS_PROXY", "gopher://me:5ECRET@127.0.0.1")
        other_kind = refused(client, "https://api.example.org/")
        assert "gopher" in other_kind
        assert "5ECRET" not in other_kind
        for address in (
            "http://me:5ECRET",
            "me:5ECRET/x",
            "http://me:5ECRET@host:5ECRET",
            "http://[5ECRET]",
            "http://me:5ECRET@höst:80",
            "5ECRET@",
        ):
            monkeypatch.setenv("HTTPS_PROXY", address)
            invalid = refused(client, "https://api.example.net/")
            assert invalid == "the proxy of the environment has an invalid address: correct HTTPS_PROXY or ALL_PROXY"


@pytest.mark.parametrize(
    ("place", "why"), [("127.0.0.1:1", "Connection refused"), ("no-such-proxy.invalid:3128", "its name")]
)
def test_a_proxy_that_cannot_be_reached(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch, place: str, why: str
) -> None:
    """It is named as what cannot be reached, without its user, and not the server behind it."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:5ECRET@{place}")
    said = refused(client, "https://api.example.com/")
    assert said.startswith(f"the proxy of the environment, {place}: {why}")
    assert "5ECRET" not in said


def test_a_proxy_that_speaks_no_socks(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the package for SOCKS, which httpcore does not translate, is a failure of the network."""
    malformed = type("ProtocolError", (Exception,), {"__module__": "socksio.exceptions"})("Malformed reply")

    def handle(*_: object) -> httpcore.Response:
        raise malformed

    monkeypatch.setattr(httpcore.ConnectionPool, "handle_request", handle)
    assert refused(client, "https://api.example.com/") == "the proxy refused: it does not speak SOCKS5"


@pytest.mark.parametrize("echoed", [b"\x15\x03\x01\0\2\2\r\n\r\n", b"SSH-2.0-OpenSSH_9\r\n\r\n"])
def test_a_server_that_speaks_no_http(client: HttpClient, echoed: bytes) -> None:
    """The reason is in words, and nothing of what it sent is in it."""
    with answering(lambda c: (head_of(c), c.sendall(echoed))) as port:
        assert refused(client, f"http://127.0.0.1:{port}/") == "what it sent is not HTTP"


def test_cookies_are_not_kept(client: HttpClient) -> None:
    """A cookie of a response is not sent with the next request."""
    asked: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        for _ in range(2):
            asked.append(connection.recv(65_536))
            connection.sendall(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n")

    with answering(talk) as port:
        for _ in range(2):
            client.exchange("GET", f"http://127.0.0.1:{port}/", headers={}, read_s=60)
        client.drop()
    assert [b"cookie" in head.lower() for head in asked] == [False, False]


def test_a_dropped_connection_is_closed_after_its_request(client: HttpClient, listener: FakeListener) -> None:
    """The listener drops connections after a suspend; the current request ends first."""
    connections: list[int] = []

    def talk(connection: socket.socket) -> None:
        connections.append(1)
        while head_of(connection):
            if len(connections) == 1:
                listener.other.sendall(b"woke")
                assert dropped.wait(60)
            connection.sendall(OK)

    dropped = threading.Event()

    def hear(_: Collection[int]) -> None:
        with suppress(BlockingIOError):
            listener.alarm.recv(100)
            client.drop()
            dropped.set()

    listener.handle = hear  # type: ignore[method-assign]
    with answering(talk) as port:
        url = f"http://127.0.0.1:{port}/"
        assert client.exchange("GET", url, headers={}, read_s=60).body == b"ok"
        assert client.exchange("GET", url, headers={}, read_s=60).body == b"ok"
        client.drop()
    assert len(connections) == 2


def test_a_dead_address_costs_no_time_out(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first addresses of a name do not answer, the next is tried beside them, long before the time-out."""
    monkeypatch.setattr(http_client, "CONNECT_S", 600.0)
    with dead_address() as dead, answering(lambda connection: (head_of(connection), connection.sendall(OK))) as port:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (dead, dead, ("127.0.0.1", port))]
        real = network._look_up
        monkeypatch.setattr(network, "_look_up", lambda host, *more: real(host, *more) if host != "api.test" else found)
        monkeypatch.setattr(http_client, "is_loopback", lambda host: False)
        assert client.exchange("GET", "http://api.test/", headers={}, read_s=60).body == b"ok"
        client.drop()


def test_no_address_answers(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them together have the time of one."""
    monkeypatch.setattr(http_client, "CONNECT_S", 0.4)
    with dead_address() as dead:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", dead)] * 5
        monkeypatch.setattr(network, "_look_up", lambda *_: found)
        assert refused(client, "http://api.test/").startswith("no connection within")


def test_the_families_take_turns() -> None:
    """The family that the system prefers comes first (RFC 8305, 4)."""
    v4, v6 = socket.AF_INET, socket.AF_INET6
    found = [(v6, 1), (v6, 2), (v6, 3), (v4, 4), (v4, 5)]
    assert [number for _, number in network._interleaved(found)] == [1, 4, 2, 5, 3]
    assert network._interleaved([]) == []


@contextmanager
def dead_address() -> Iterator[tuple[str, int]]:
    """An address that drops what tries to connect, as its queue is full."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()
