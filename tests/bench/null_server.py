"""A server that accepts every upload and drops it: the least that an upload can take."""

from __future__ import annotations

import multiprocessing
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection

from tests.bench.stopwatch import CLOCK

_BUFFER_BYTES = 1 << 20


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_PUT(self) -> None:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                self._discard(size + 2)
            self.rfile.readline()
        else:
            self._discard(int(self.headers["Content-Length"]))
        self.server.arrived.put(CLOCK.monotonic_s())
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _discard(self, size_bytes: int) -> None:
        room = memoryview(self.server.room)
        while size_bytes:
            got = self.rfile.readinto(room[: min(size_bytes, len(room))])
            if not got:
                raise ConnectionError("the body ended early")
            size_bytes -= got

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.room = bytearray(_BUFFER_BYTES)
        self.arrived: queue.SimpleQueue[float] = queue.SimpleQueue()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/archive.tar.gz"


@contextmanager
def listening() -> Iterator[tuple[str, queue.SimpleQueue[float]]]:
    """Give one in this process: its URL, and the monotonic times of complete bodies."""
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
        thread.start()
        try:
            yield server.url, server.arrived
        finally:
            server.shutdown()
            thread.join()


def _serve(reported: Connection) -> None:
    with _Server() as server:
        reported.send(server.url)
        server.serve_forever()


@contextmanager
def apart() -> Iterator[str]:
    """Give the URL of one in a process of its own, which does not share the interpreter's lock."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,))
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()
