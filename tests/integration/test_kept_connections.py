"""Connections kept between requests: responses sent twice, bodies that fail, and cookies."""

from __future__ import annotations

import socket

import pytest

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
