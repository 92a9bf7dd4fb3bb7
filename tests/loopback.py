"""A server on loopback whose answers a test gives byte by byte, and certificates for it."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Talk = Callable[[socket.socket], None]


@contextmanager
def answering(talk: Talk) -> Iterator[int]:
    """Listen on loopback, and answer each connection by `talk`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def head_of(connection: socket.socket) -> bytes:
    """Read all up to the empty line."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and (piece := connection.recv(1)):
        head += piece
    return head


def received(connection: socket.socket) -> Iterator[int]:
    """Read a request, and yield the length of each piece of its body as it comes."""
    left = int(head_of(connection).lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while left:
        size_bytes = len(connection.recv(1 << 16))
        assert size_bytes, "the upload ended early"
        left -= size_bytes
        yield size_bytes


def server_tls(folder: Path, names: str, *more: str) -> tuple[ssl.SSLContext, str]:
    """Return the TLS context of a server with these names, and its certificate's file; skip what openssl cannot make.

    `more` are options of `openssl req`.
    """
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate")
    key, certificate = str(folder / "key"), str(folder / "certificate")
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    make += ["-subj", "/CN=x", "-addext", f"subjectAltName={names}", "-keyout", key, "-out", certificate, *more]
    if subprocess.run(make, check=False, capture_output=True).returncode:
        pytest.skip(f"this openssl makes no certificate with {more}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate
