"""The findings of `syncd check` about the API's TLS certificate."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from syncd.cli.check.api_check import check_api
from syncd.cli.check.finding import Finding, Grade
from syncd.core.api_key import ApiKey
from syncd.core.clock import SystemClock
from syncd.remote.target import Target

_HERE = "IP:127.0.0.1"


class _Sandbox(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({"local_sandbox_id": "box", "created_at": "2026-11-24T13:20:11", "servers": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Ignore clients that hang up, as some tests do."""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[object]:
    """Make a self-signed certificate and serve with it."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate")

    @contextmanager
    def serving(names: str, *life: str) -> Iterator[tuple[str, str]]:
        key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *life]
        subject = ["-subj", "/O=Example Proxy/CN=127.0.0.1", "-addext", f"subjectAltName={names}"]
        made = subprocess.run([*words, *subject, "-keyout", key, "-out", certificate], capture_output=True, check=False)
        if made.returncode:
            pytest.skip("this openssl makes no such certificate")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        with _Server(("127.0.0.1", 0), _Sandbox) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"https://127.0.0.1:{server.server_address[1]}", certificate
            finally:
                server.shutdown()
                thread.join()

    return serving


def _found(url: str) -> dict[str, Finding]:
    target = Target(url, "box", "us")
    return {it.subject: it for it in check_api(target, None, key=ApiKey("k", "a test"), clock=SystemClock())}


@pytest.mark.parametrize(
    ("names", "life", "reusable", "grade", "words"),
    [
        (_HERE, ("-days", "2"), False, Grade.FAIL, "SSL_CERT_FILE"),
        ("IP:192.0.2.1", ("-days", "2"), True, Grade.FAIL, "sandbox.base_url"),
        (_HERE, ("-not_before", "20200101000000Z", "-not_after", "20200102000000Z"), True, Grade.FAIL_FOR_NOW, "owner"),
        (_HERE, ("-not_before", "20900101000000Z", "-not_after", "20900102000000Z"), True, Grade.FAIL, "timedatectl"),
    ],
    ids=["untrusted", "another host", "expired", "not yet valid"],
)
def test_each_kind_of_distrust(
    make, monkeypatch: pytest.MonkeyPatch, names: str, life: tuple[str, ...], reusable: bool, grade: Grade, words: str
) -> None:
    """Untrusted, another host's, expired and not yet valid certificates each have their own remedy."""
    with make(names, *life) as (url, certificate):
        if reusable:
            monkeypatch.setenv("SSL_CERT_FILE", certificate)
        else:
            monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        found = _found(url)
    assert "api" not in found
    assert found["certificate"].grade is grade
    assert words in found["certificate"].remedy
    assert found["clock"].grade is Grade.NOTE
