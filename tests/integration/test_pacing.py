"""The upload limit as the receiver sees it, over real sockets; and a limit of two API requests a second."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from syncd.archive.chunk_store import Archive
from syncd.core.clock import SystemClock
from syncd.core.errors import Stop
from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.remote.api import Api
from syncd.remote.bucket import Bucket, Throttle
from syncd.remote.failure import StepFailed
from syncd.remote.http_client import HttpClient
from syncd.remote.target import Target
from syncd.remote.upload_url import UploadUrl
from tests.integration.sync_rig import SANDBOX, Rig
from tests.loopback import received

CLOCK = SystemClock()
KIB = 1 << 10
# Whoever reads may come late by as much, or by what the machine stood still meanwhile.
LATE_S = 0.3
_BEAT_S = 0.01


class Piece(NamedTuple):
    """The bytes of one read."""

    at_s: float
    size_bytes: int


class Receiver:
    """Receives one upload as it comes; from `stalls_at` bytes on it reads nothing until `goes_on`."""

    def __init__(self, context: ssl.SSLContext | None, stalls_at: int | None = None) -> None:
        self.pieces: list[Piece] = []
        self.late_s = LATE_S
        self.stalled = threading.Event()
        self.goes_on = threading.Event()
        self._context = context
        self._stalls_at = stalls_at
        self._listener = socket.socket()
        if stalls_at is not None:  # what is sent in a stall is to lie at the sender's
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self._thread = threading.Thread(target=self._receive)
        self._clockwork = threading.Thread(target=self._note_lateness)

    @property
    def url(self) -> str:
        return f"http{'s' if self._context else ''}://127.0.0.1:{self._listener.getsockname()[1]}/object"

    @contextmanager
    def listening(self) -> Iterator[Receiver]:
        self._thread.start()
        self._clockwork.start()
        try:
            yield self
        finally:
            self.goes_on.set()
            self._thread.join(60)
            self._clockwork.join()
            self._listener.close()

    def _note_lateness(self) -> None:
        last_s = CLOCK.monotonic_s()
        while self._thread.is_alive():
            self._thread.join(_BEAT_S)
            now_s = CLOCK.monotonic_s()
            last_s, self.late_s = now_s, max(self.late_s, now_s - last_s)

    def _receive(self) -> None:
        self._listener.settimeout(60)
        connection, _ = self._listener.accept()
        connection.settimeout(60)
        with self._context.wrap_socket(connection, server_side=True) if self._context else connection as peer:
            for got in received(peer):
                self.pieces.append(Piece(CLOCK.monotonic_s(), got))
                if self._stalls_at is not None and self.received() >= self._stalls_at and not self.stalled.is_set():
                    self.stalled.set()
                    self.goes_on.wait(60)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def received(self, since_s: float = 0.0, until_s: float = float("inf")) -> int:
        return sum(piece.size_bytes for piece in self.pieces if since_s <= piece.at_s < until_s)


@pytest.fixture(params=["plain", "TLS"])
def context(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext | None:
    """TLS that this process trusts, or none."""
    if request.param == "plain":
        return None
    context, certificate = request.getfixturevalue("trusted_tls")
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    assert isinstance(context, ssl.SSLContext)
    return context


def upload(url: str, size_bytes: int, throttle: Throttle, on_sent: Callable[[int], None] = lambda _: None) -> None:
    client = HttpClient(Waiter(Interrupt(), CLOCK))
    try:
        upload_url = UploadUrl(url, CLOCK.boottime_s() + 3600, 3600)
        archive = Archive((), os.urandom(size_bytes))
        archive = Archive((), archive.end, sum(map(len, archive.blocks(KIB))))
        Bucket(client, throttle).put(upload_url, archive, on_sent)
    finally:
        client.drop()


@pytest.mark.parametrize("kib_per_s", [64, 2048])
def test_the_receiver_gets_an_even_stream(context: ssl.SSLContext | None, kib_per_s: int) -> None:
    """No half second brings more than its share, and all arrives in its time."""
    limit = kib_per_s * KIB
    began_s = CLOCK.monotonic_s()
    with Receiver(context).listening() as there:
        upload(there.url, limit, Throttle(limit))
    took_s = CLOCK.monotonic_s() - began_s
    for piece in there.pieces:
        assert there.received(piece.at_s, piece.at_s + 0.5) <= limit * (0.5 + there.late_s)
    assert 0.9 < took_s < 60


def test_a_stall_is_followed_by_no_burst() -> None:
    """Delayed bytes are not sent all at once, neither by syncd nor by the kernel."""
    limit = 256 * KIB
    throttle = Throttle(limit)
    with Receiver(None, limit // 4).listening() as there:
        thread = threading.Thread(target=upload, args=(there.url, limit, throttle))
        thread.start()
        assert there.stalled.wait(60)
        CLOCK.sleep(1.0)
        goes_on_s = CLOCK.monotonic_s()
        there.goes_on.set()
        thread.join(60)
    least = 16 * KIB  # what its own kernel kept for it, and a block
    assert there.received(goes_on_s, goes_on_s + 0.3) <= limit * (0.3 + there.late_s) + least


# -- requests of an account with a limit


def test_one_refusal_is_enough(rig: Rig) -> None:
    """Syncs that follow each other at once are refused a single request, and all arrive."""
    rig.use_defaults()  # whose looks take as many requests as a person's
    rig.emulator.rate_limit = 2
    for number in range(8):
        rig.send({"a.txt": f"edit {number}"})
        assert rig.arrived()["a.txt"] == f"edit {number}"
    assert [request.status for request in rig.emulator.request_log].count(429) == 1


def test_a_stop_ends_the_wait(rig: Rig) -> None:
    """A request that waits for its turn is not sent after a stop."""
    rig.emulator.rate_limit = 1
    api = Api(Target(rig.emulator.base_url, SANDBOX, "us"), rig.key, rig.client)
    api.sandbox()
    with pytest.raises(StepFailed):
        api.sandbox()
    asked, sleep = len(rig.asked()), rig.clock.sleep

    def stop(seconds: float) -> None:
        rig.client.waiter.interrupt.request()
        sleep(seconds)

    rig.clock.sleep = stop  # type: ignore[method-assign]
    with pytest.raises(Stop):
        api.sandbox()
    assert len(rig.asked()) == asked
