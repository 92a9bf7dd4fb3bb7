"""Counts the bytes that a tool sends and receives."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from unittest import mock

from tests.emulator.handler import FaultyHandler, FaultyServer

_BUFFER_BYTES = 1 << 18


class Meter:
    """A sum of bytes, safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def add(self, size_bytes: int) -> None:
        with self._lock:
            self._count += size_bytes

    @property
    def count(self) -> int:
        return self._count


class _Forwarder:
    """Forwards connections to a port of loopback, until it is closed."""

    def __init__(self, to_port: int, meter: Meter) -> None:
        self._to_port = to_port
        self._meter = meter
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """End every connection and thread."""
        # On Linux this wakes a blocked accept(); closing alone would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._to_port))
            except OSError:
                client.close()
                continue
            for one, other in ((client, server), (server, client)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.append(one)
                thread = threading.Thread(target=self._pump, args=(one, other))
                self._threads.append(thread)
                thread.start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_BUFFER_BYTES):
                self._meter.add(len(data))
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def forwarded(to_port: int, meter: Meter) -> Iterator[int]:
    """Give a port of loopback that leads to another one; what passes is counted, in both directions."""
    forwarder = _Forwarder(to_port, meter)
    try:
        yield forwarder.port
    finally:
        forwarder.close()


@contextmanager
def emulator_counted(meter: Meter) -> Iterator[None]:
    """Count what emulators receive and send: their URLs are signed for their own ports, so nothing can be between."""

    class CountedReads(socket.SocketIO):
        def readinto(self, buffer: bytearray) -> int | None:  # type: ignore[override]
            size_bytes = super().readinto(buffer)
            meter.add(size_bytes or 0)
            return size_bytes

    class CountedHandler(FaultyHandler):
        def setup(self) -> None:
            super().setup()
            self.rfile = io.BufferedReader(CountedReads(self.connection, "r"), self.rbufsize)

        def write(self, data: bytes) -> None:
            super().write(data)
            meter.add(len(data))

    with mock.patch.object(FaultyServer, "handler", CountedHandler):
        yield
