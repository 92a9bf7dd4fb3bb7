"""Connections kept between requests: double and late responses, closed connections, and bodies cut short."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any

import pytest

from syncd.remote import http_client, network
from tests.integration.recorded_rig import OPS, RecordedRig
from tests.integration.sync_rig import RecordingObserver
from tests.loopback import answering


@pytest.mark.parametrize("op", OPS)
def test_a_response_sent_twice(recorded: RecordedRig, op: str) -> None:
    """The second copy is never taken for the response to the next request; it costs at most one more request."""
    recorded.rig.emulator.faults.script(f"{op}: twice always")
    for number in range(3):
        recorded.rig.write(content=f"text {number}")
        recorded.sync()
        # An initialize whose response was dropped may still run, and removes the file for a moment.
        recorded.wait_for_files({"a.txt": f"text {number}"})
    assert max(map(int, recorded.request_counts().split())) <= 6


def test_a_second_response_read_late_is_dropped(recorded: RecordedRig) -> None:
    """Bytes read with the response before are dropped, also if the real response has come meanwhile."""
    answered = threading.Semaphore(0)

    def talk(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst" * 2)
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ngenuine")
        answered.release()
        connection.recv(1 << 16)

    def late(self: network.ExchangeMonitor) -> None:
        if asked == [1, 2]:
            assert answered.acquire(timeout=60)
        note_answer(self)

    asked: list[int] = []
    note_answer = network.ExchangeMonitor.note_answer
    with answering(talk) as port, pytest.MonkeyPatch.context() as patch:
        patch.setattr(network.ExchangeMonitor, "note_answer", late)
        url = f"http://127.0.0.1:{port}/"
        asked.append(1)
        assert recorded.rig.client.exchange("GET", url, headers={}, read_s=60).body == b"first"
        asked.append(2)
        with pytest.raises(http_client.NoResponse, match="came before its request"):
            recorded.rig.client.exchange("GET", url, headers={}, read_s=60)
        recorded.rig.client.drop()


@pytest.mark.parametrize("content", [None, b"", b"x" * 100, [b"x" * 65_536] * 8])
def test_a_kept_connection_that_closes_under_a_request(
    recorded: RecordedRig, content: bytes | list[bytes] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server closes an idle connection at the moment of the next request: the request, or download, is sent again."""
    answered: list[int] = []
    size = sum(map(len, content)) if isinstance(content, list) else len(content or b"")
    close, closed = threading.Event(), threading.Event()

    def talk(connection: socket.socket) -> None:
        received = connection.recv(1 << 20)
        while answered and b"x" * size not in received:
            received += connection.recv(1 << 20)
        answered.append(len(received))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        if len(answered) == 1:
            assert close.wait(60)
            connection.close()
            closed.set()

    note_head = network.ExchangeMonitor.note_head

    def received(self: network.ExchangeMonitor, *connection: Any) -> None:
        note_head(self, *connection)
        if len(answered) == 1 and not close.is_set():
            close.set()  # after httpx has checked the connection, before anything is sent
            assert closed.wait(60)

    monkeypatch.setattr(network.ExchangeMonitor, "note_head", received)
    with answering(talk) as port:
        url = f"http://127.0.0.1:{port}/"
        assert recorded.rig.client.exchange("GET", url, headers={}, read_s=60).status == 200
        if content is None:
            assert recorded.rig.client.download(url, read_s=60, consume=b"".join) == b""
        else:
            headers = {"Content-Length": str(size)} if isinstance(content, list) else {}
            assert recorded.rig.client.exchange("PUT", url, headers=headers, read_s=60, content=content).status == 200
        recorded.rig.client.drop()
    assert close.is_set()
    assert len(answered) == 2


@pytest.mark.parametrize("raised", [OSError(28, "No space left on device"), ValueError("a defect"), BrokenPipeError()])
def test_an_error_of_the_body_is_not_a_cut_upload(recorded: RecordedRig, raised: Exception) -> None:
    """An error while the body is read, such as a full disk, is raised as it is and not retried."""

    def fail(_sent: int, _total: int) -> None:
        if _sent:
            raise raised

    observer = RecordingObserver(recorded.rig.clock)
    observer.sent = fail  # type: ignore[method-assign]
    with pytest.raises(type(raised)) as caught:
        recorded.rig.sync(observer=observer)
    assert caught.value is raised
    assert observer.failures == []
    assert recorded.rig.asked().count("initialize") == 0
    assert recorded.rig.emulator.request_log.wait(
        "upload"
    )  # what was sent is put down, or it is not, before anything else comes
    recorded.converge()


@pytest.mark.parametrize("size_bytes", [1_500_000, 12 << 20])
def test_an_abandoned_upload_does_not_arrive_later(
    recorded: RecordedRig, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    """An upload without a response is cut off: its rest is not sent later, over a newer one."""
    monkeypatch.setattr(http_client, "WRITE_S", 0.5)
    given_up, counted = threading.Event(), threading.Event()
    got: list[int] = []

    def talk(connection: socket.socket) -> None:
        assert given_up.wait(60)
        with suppress(OSError):
            while piece := connection.recv(1 << 20):
                got.append(len(piece))
        counted.set()

    blocks = [bytes(65_536)] * (size_bytes // 65_536)
    headers = {"Content-Length": str(65_536 * len(blocks))}
    with answering(talk) as port:
        url = f"http://127.0.0.1:{port}/"
        with pytest.raises(http_client.NoResponse):
            recorded.rig.client.exchange("PUT", url, headers=headers, read_s=0.5, content=blocks)
        given_up.set()
        assert counted.wait(60)
    assert sum(got) < 65_536 * len(blocks)


def test_cookies_are_not_kept(recorded: RecordedRig) -> None:
    """A cookie of a response is not sent with the next request."""
    asked: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        for _ in range(2):
            asked.append(connection.recv(65_536))
            connection.sendall(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n")

    with answering(talk) as port:
        for _ in range(2):
            recorded.rig.client.exchange("GET", f"http://127.0.0.1:{port}/", headers={}, read_s=60)
        recorded.rig.client.drop()
    assert len(asked) == 2
    assert b"cookie" not in asked[1].lower()
