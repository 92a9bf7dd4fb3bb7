"""Servers that cannot be reached or trusted: certificates, ports without TLS, unknown names."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.remote import http_client
from syncd.remote.failure import ApiStep
from tests.integration.recorded_rig import OFFLINE, RecordedRig
from tests.loopback import answering, server_tls

EXPIRED = ("-not_before", "20200101000000Z", "-not_after", "20200201000000Z")
NOT_YET_VALID = ("-not_before", "20900101000000Z", "-not_after", "20910101000000Z")


@pytest.mark.parametrize("op", ["upload-url", "upload"])
@pytest.mark.parametrize(
    ("name", "more", "reusable", "says"),
    [
        ("DNS:localhost", (), False, "not trusted here (set SSL_CERT_FILE"),
        ("DNS:elsewhere.example", (), True, "certificate is for another host"),
        ("DNS:localhost", EXPIRED, True, "has expired (or is this machine's clock ahead?)"),
        ("DNS:localhost", NOT_YET_VALID, True, "not valid yet (is this machine's clock behind?)"),
    ],
)
def test_an_untrusted_certificate(
    recorded: RecordedRig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    op: str,
    name: str,
    more: tuple[str, ...],
    reusable: bool,
    says: str,
) -> None:
    """A server without a trusted certificate gets neither key nor archive, and the message says what to do."""
    context, certificate = server_tls(tmp_path, name, *more)
    if reusable:
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
    got: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            got.append(wrapped.recv(65_536))

    with answering(talk) as port:
        sync_to_unreachable(recorded, op, f"https://localhost:{port}", says)
    assert got in ([], [b""] * len(got))


def no_response(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.recv(65_536)


def http_response(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def reset(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize("op", ["upload-url", "upload"])
@pytest.mark.parametrize(
    ("talk", "says"),
    [
        (no_response, "cannot be reached (no connection within"),
        (http_response, "no TLS is spoken on that port"),
        (reset, "the other side closed the connection"),
    ],
)
def test_a_port_without_tls(
    recorded: RecordedRig, monkeypatch: pytest.MonkeyPatch, op: str, talk: Callable[[socket.socket], None], says: str
) -> None:
    """The port of an https address does not answer in TLS."""
    monkeypatch.setattr(http_client, "CONNECT_S", 0.2)
    recorded.rig.keys["retry"]["give_up_after_seconds"] = 3
    with answering(talk) as port:
        sync_to_unreachable(recorded, op, f"https://localhost:{port}", says)


def sync_to_unreachable(recorded: RecordedRig, op: str, url: str, says: str) -> None:
    """Sync with the API or bucket at this address, which fails, then with its own address again."""
    base_url = recorded.rig.emulator.base_url
    if op == "upload-url":
        recorded.rig.keys["sandbox"]["base_url"] = url
    else:
        answer = json.dumps({"upload_url": f"{url}/o?X-Goog-Signature=5ECRET", "expires_in_minutes": 30})
        recorded.rig.emulator.faults.script(f"upload-url: json {answer} always")
    failure = recorded.fail()
    assert (failure.step, failure.action, failure.as_error().exit_code) == (ApiStep(op), OFFLINE, 75)
    assert says in str(failure)
    assert "5ECRET" not in str(failure)
    assert recorded.rig.asked().count("upload") == 0
    recorded.rig.restart()
    recorded.rig.keys["sandbox"]["base_url"] = base_url
    if op == "upload":
        recorded.rig.clock.go_on(1800)  # the unreachable URL has expired
    recorded.converge()
