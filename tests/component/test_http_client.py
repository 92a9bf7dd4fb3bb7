"""Requests over real sockets: timeouts, proxies, certificates and stops, each with a clear message."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from syncd.core.errors import Stop
from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.remote.http_client import HttpClient, NoResponse
from tests.clock import ScriptedClock
from tests.loopback import answering


@pytest.fixture
def client() -> Iterator[HttpClient]:
    """A client without connections after the test."""
    client = HttpClient(Waiter(Interrupt(), ScriptedClock()))
    yield client
    client.drop()


def refused(client: HttpClient, url: str, read_s: float = 5.0) -> str:
    """Return the reason that there was no response."""
    with pytest.raises(NoResponse) as caught:
        client.exchange("GET", url, headers={}, read_s=read_s)
    return str(caught.value)


def _proxy_that_refuses(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")


def test_proxies(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxy is used for remote hosts, with its refusal in the message, and never for loopback."""
    asked: list[bytes] = []

    def note(connection: socket.socket) -> None:
        asked.append(b"")
        _proxy_that_refuses(connection)

    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with answering(note) as proxy, answering(lambda c: c.recv(4096) and c.sendall(ok)) as port:
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        assert refused(client, "https://api.example.com/").startswith("the proxy refused: 407")
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
            "5ECRET@",
        ):
            monkeypatch.setenv("HTTPS_PROXY", address)
            invalid = refused(client, "https://api.example.net/")
            assert invalid == "the proxy of the environment has an invalid address: correct HTTPS_PROXY or ALL_PROXY"


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


def test_a_signal_ends_a_request_at_once() -> None:
    """A server that never responds does not delay a stop."""
    interrupt = Interrupt()
    client = HttpClient(Waiter(interrupt, ScriptedClock()))
    main = threading.get_ident()

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        signal.pthread_kill(main, signal.SIGUSR2)
        connection.recv(1)

    with interrupt.handling({signal.SIGUSR2: interrupt.request}), answering(talk) as port:
        with pytest.raises(Stop):
            client.exchange("GET", f"http://127.0.0.1:{port}/", headers={}, read_s=60)
        client.drop()
