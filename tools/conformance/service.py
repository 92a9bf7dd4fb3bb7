"""A plain client of the API: it counts its requests, keeps to a 429, and shows neither the key nor a URL."""

from __future__ import annotations

import gzip
import io
import itertools
import re
import tarfile
import uuid
from collections.abc import Iterable
from typing import Any

import httpx
from msgspec import Struct

from syncd.core.clock import SystemClock

CLOCK = SystemClock()
MOST_REQUESTS = 299
GZIP = {"Content-Type": "application/gzip"}
_TRIES = 6
_POLLS_S = (0.2, 0.4, 0.8, 1.6, 3.0)


class Unexpected(Exception):
    """An answer with which the probe cannot go on."""


class Answer(Struct, frozen=True):
    """An answer to the request `asked`; `body` is empty unless it is a JSON object."""

    asked: str
    status: int
    body: dict[str, Any]
    headers: httpx.Headers
    content: bytes
    seconds: float

    def ok(self) -> Answer:
        """Return itself. Raises Unexpected unless the request succeeded."""
        if not 200 <= self.status < 300:
            raise Unexpected(f"{self.asked} is answered with {self.status} {str(self.body.get('detail', ''))[:200]}")
        return self


class Service:
    """The API at `base_url`, and one sandbox of it once `sandbox` is set."""

    def __init__(self, base_url: str, key: str) -> None:
        self._key = key
        self._api = httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {key}"}, timeout=190)
        self._bucket = httpx.Client(timeout=190)
        self.sandbox = ""
        self.requests = 0

    def close(self) -> None:
        """Close its connections."""
        self._api.close()
        self._bucket.close()

    def redacted(self, text: str) -> str:
        """Return a text without the key, URLs and the sandbox's id."""
        text = re.sub(r"https?://\S+", "<URL>", text).replace(self._key, "<key>")
        return text.replace(self.sandbox, "<sandbox>") if self.sandbox else text

    def ask(self, method: str, path: str, *, tries: int = _TRIES, **more: Any) -> Answer:
        """Request what is below `/local-sandbox` of the API; after a 429 again."""
        asked = f"{method} {path.removeprefix(f'/{self.sandbox}') or '/'}"
        for left in reversed(range(tries)):
            answer = self._request(self._api, method, f"/local-sandbox{path}", asked, **more)
            if answer.status != 429 or not left:
                break
            told = answer.headers.get("Retry-After", "")
            CLOCK.sleep(min(30.0, float(told)) if re.fullmatch(r"[0-9.]+", told) else 1.0)
        return answer

    def own(self, method: str, path: str = "", **more: Any) -> Answer:
        """Request an operation of the sandbox."""
        return self.ask(method, f"/{self.sandbox}{path}", **more)

    def put(self, url: str, content: bytes, headers: dict[str, str] | None = None) -> Answer:
        """Upload to a signed URL."""
        return self._request(self._bucket, "PUT", url, "PUT", content=content, headers=headers or GZIP)

    def initialize(self, packed: bytes) -> Answer:
        """Upload an archive, and have the sandbox unpack it."""
        self.put(self.own("POST", "/upload-url").ok().body["upload_url"], packed).ok()
        return self.own("POST", "/initialize")

    def tree(self) -> dict[str, tarfile.TarInfo]:
        """Return what is in the workspace, by name, from a dump; `contents` are bytes of files."""
        return _members(self._downloaded(self.own("GET", "/dump")))

    def exported(self, name: str) -> dict[str, tarfile.TarInfo]:
        """Return what is in the folder of an execution."""
        return _members(self._downloaded(self.own("POST", "/export-artifacts", json={"execution_name": name})))

    def start(self, program: str, name: str = "") -> str:
        """Upload and start a program under this name, or a new one, which is returned."""
        named = {"execution_name": name or f"probe-{uuid.uuid4().hex[:12]}"}
        url = self.own("POST", "/execution-upload-url", json=named).ok().body["upload_url"]
        self.put(url, archive(main_py=program)).ok()
        self.own("POST", "/execute", json=named).ok()
        return named["execution_name"]

    def output(self, name: str, within_s: float = 60.0) -> tuple[str, str]:
        """Wait until an execution has ended; return its status and its output, which is read by cursor."""
        logs, cursor, ends_s = "", 0, CLOCK.monotonic_s() + within_s
        for pause_s in itertools.chain(_POLLS_S, itertools.repeat(max(_POLLS_S[-1], within_s / 60))):
            asked = {"execution_name": name, "cursor": cursor}
            body = self.own("GET", "/execution-logs", params=asked).ok().body
            logs, cursor = logs + (body.get("logs") or ""), body["cursor"]
            if body["status"] in ("completed", "failed") or CLOCK.monotonic_s() > ends_s:
                return body["status"], logs
            CLOCK.sleep(pause_s)
        raise AssertionError

    def _downloaded(self, answer: Answer) -> bytes:
        url = answer.ok().body["download_url"]
        return self._request(self._bucket, "GET", url, "the download").ok().content

    def _request(self, client: httpx.Client, method: str, url: str, asked: str, **more: Any) -> Answer:
        if self.requests >= MOST_REQUESTS and method != "DELETE":
            raise Unexpected(f"{MOST_REQUESTS} requests were made")
        self.requests += 1
        begun_s = CLOCK.monotonic_s()
        try:
            answer = client.request(method, url, **more)
        except httpx.HTTPError as error:
            raise Unexpected(f"{asked} fails ({type(error).__name__})") from None
        try:
            body = answer.json()
        except ValueError:
            body = {}
        seconds = CLOCK.monotonic_s() - begun_s
        body = body if isinstance(body, dict) else {}
        return Answer(asked, answer.status_code, body, answer.headers, answer.content, seconds)


class _Content(tarfile.TarInfo):
    """A member with its bytes."""

    content = b""


def member(name: str, content: bytes = b"", **more: Any) -> tarfile.TarInfo:
    """Return a file of an archive, or what `type` says."""
    info = _Content(name)
    info.content, info.size, info.mtime = content, len(content), 1_000_000_000
    for field, value in more.items():
        setattr(info, field, value)
    return info


def archive(*members: tarfile.TarInfo, main_py: str = "") -> bytes:
    """Return a tar.gz of these, or of a program."""
    packed = io.BytesIO()
    every: Iterable[tarfile.TarInfo] = [member("main.py", main_py.encode())] if main_py else members
    with tarfile.open(fileobj=packed, mode="w", errors="surrogateescape") as tar:
        for info in every:
            tar.addfile(info, io.BytesIO(content_of(info)))
    return gzip.compress(packed.getvalue(), mtime=0)


def content_of(info: tarfile.TarInfo | None) -> bytes:
    """Return the bytes of a member of an archive, none for another kind or none."""
    return info.content if isinstance(info, _Content) else b""


def _members(packed: bytes) -> dict[str, tarfile.TarInfo]:
    found: dict[str, tarfile.TarInfo] = {}
    with tarfile.open(fileobj=io.BytesIO(packed), tarinfo=_Content, errors="surrogateescape") as tar:
        for info in tar:
            assert isinstance(info, _Content)
            file = tar.extractfile(info) if info.isfile() else None
            info.content = file.read() if file else b""
            found[info.name.removeprefix("./").rstrip("/")] = info
    return found
