"""Counts the bytes that a tool sends and receives."""

from __future__ import annotations

import io
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from unittest import mock

from tests.emulator.handler import FaultyHandler, FaultyServer


class Meter:
    """A sum of bytes, safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def add(self, size_bytes: int) -> None:
        with self._lock:
            self.count += size_bytes


@contextmanager
def forwarded(to_port: int, meter: Meter) -> Iterator[int]:
    """Give a port of loopback that leads to another one; what passes is counted, in both directions."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 18):
                meter.add(len(data))
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    class Forwarding(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", to_port)) as server:
                for each in (self.request, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                back = threading.Thread(target=pump, args=(server, self.request), daemon=True)
                back.start()
                pump(self.request, server)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Forwarding) as listener:
        listener.daemon_threads, listener.block_on_close = True, False
        threading.Thread(target=listener.serve_forever, args=(0.1,), daemon=True).start()
        try:
            yield listener.server_address[1]
        finally:
            listener.shutdown()


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
