"""Requests over real sockets: timeouts, proxies, certificates and stops, each with a clear message."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.core.errors import Stop
from syncd.core.waiter import Interrupt, Waiter
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


def test_silence(client: HttpClient) -> None:
    """A server that does not respond is given up after the timeout."""
    with answering(lambda connection: connection.recv(4096) and connection.recv(1)) as port:
        assert refused(client, f"http://127.0.0.1:{port}/", 0.05) == "no answer in time"


def test_a_closed_port(client: HttpClient) -> None:
    """The message does not show the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "refused" in refused(client, f"http://127.0.0.1:{port}/?X-Goog-Signature=5ECRET")


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"\x15\x03\x01"]
)
def test_another_protocol(client: HttpClient, said: bytes) -> None:
    """It is no response."""
    with answering(lambda connection: connection.recv(4096) and connection.sendall(said)) as port:
        assert refused(client, f"http://127.0.0.1:{port}/")


def test_the_date_of_an_answer(client: HttpClient) -> None:
    """A valid Date of the response is read, an invalid one ignored."""
    for date, expected in (("Tue, 24 Nov 2026 12:00:00 GMT", 1_795_521_600.0), ("yesterday", None), ("", None)):
        head = f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".encode()
        with answering(lambda connection, head=head: connection.recv(4096) and connection.sendall(head)) as port:
            answer = client.exchange("GET", f"http://127.0.0.1:{port}/", headers={}, read_s=5)
        assert (answer.body, answer.server_wall_s) == (b"ok", expected)


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


def test_an_untrusted_certificate(client: HttpClient, tmp_path: Path) -> None:
    """It is refused with what a user behind a company proxy can do."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate")
    key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(4096)

    with answering(talk) as port:
        assert "SSL_CERT_FILE" in refused(client, f"https://127.0.0.1:{port}/?X-Goog-Signature=5ECRET")


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


def test_connections_are_kept_and_dropped(client: HttpClient) -> None:
    """One connection serves several requests; after `drop` a new one is made."""
    connections: list[int] = []

    def talk(connection: socket.socket) -> None:
        connections.append(1)
        while connection.recv(4096):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with answering(talk) as port:
        for _ in range(3):
            client.exchange("GET", f"http://127.0.0.1:{port}/", headers={}, read_s=5)
        assert len(connections) == 1
        client.drop()
        client.exchange("GET", f"http://127.0.0.1:{port}/", headers={}, read_s=5)
        assert len(connections) == 2
        client.drop()


def test_what_the_server_closed_is_not_used_again(client: HttpClient) -> None:
    """A closed idle connection costs a new one, and no failure."""
    closed = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection.close()
        closed.set()

    with answering(talk) as port:
        for _ in range(3):
            assert client.exchange("PUT", f"http://127.0.0.1:{port}/", headers={}, read_s=5, content=b"x").status == 200
            assert closed.wait(5)
            closed.clear()
