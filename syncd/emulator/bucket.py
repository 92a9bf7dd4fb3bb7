"""The bucket that signed URLs point to, as strict as the real one, so that tests find a client's mistake.

Objects are files on disk, by region: `us` and `asia` are two buckets. A new version replaces the old one whole.

Signed URLs look like V4 ones, as Google Cloud Storage documents them, and cover the same: method, host, path, query and
content type. Only the signature differs: a shared secret's HMAC of these, as long in hex as an RSA signature. A URL is
valid if the same one is made again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from xml.sax.saxutils import escape

from msgspec import Struct

from syncd.core.checksum import crc32c
from syncd.core.clock import Clock
from syncd.emulator.server import CHUNK_BYTES, Disconnected, Reply, Request, RequestBody

ALGORITHM = "GOOG4-RSA-SHA256"
MAX_LIFETIME_S = 604_800
MAX_SKEW_S = 900
_ACCOUNT = "emulator@local-sandbox.iam.gserviceaccount.com"
_STAMP = "%Y%m%dT%H%M%SZ"
BUCKET = "local-sandbox-data"
REGIONS = ("us", "asia")
ARCHIVE_TYPE = "application/gzip"
_PART = ".part"
_PATH = re.compile(rf"/{BUCKET}-(us|asia)/local-sandbox/([A-Za-z0-9][A-Za-z0-9._-]*)/([A-Za-z0-9][A-Za-z0-9._/-]*)")


class Key(Struct, frozen=True):
    """An object's address: `name` is relative to the sandbox, such as `workspace.tar.gz`."""

    region: str
    sandbox: str
    name: str

    @property
    def path(self) -> str:
        """The percent-encoded path of its URLs."""
        return quote(f"/{BUCKET}-{self.region}/local-sandbox/{self.sandbox}/{self.name}")


class Signer(Struct, frozen=True):
    """Makes and verifies URLs for `host` (name:port); they are not valid for another host."""

    secret: bytes
    host: str

    def url(self, method: str, path: str, *, now_s: float, lifetime_s: int, content_type: str | None) -> str:
        """A URL for `method` on the percent-encoded `path`, valid until `now_s + lifetime_s`, in whole seconds."""
        moment = datetime.fromtimestamp(int(now_s), UTC)
        query = {
            "X-Goog-Algorithm": ALGORITHM,
            "X-Goog-Credential": f"{_ACCOUNT}/{moment:%Y%m%d}/auto/storage/goog4_request",
            "X-Goog-Date": moment.strftime(_STAMP),
            "X-Goog-Expires": str(lifetime_s),
            "X-Goog-SignedHeaders": "host" if content_type is None else "content-type;host",
        }
        url = f"http://{self.host}{path}?{urlencode(query, quote_via=quote, safe='')}"
        text = f"{method}\n{url}\n{content_type}".encode("utf-8", "surrogateescape")
        blocks = (hmac.digest(self.secret, bytes([number]) + text, "sha512") for number in range(4))
        return f"{url}&X-Goog-Signature={b''.join(blocks).hex()}"

    def verify(self, request: Request, now_s: float) -> tuple[int, str] | None:
        """None if the request is as signed and not expired, else a status and code. Names may have any case."""
        low = {name.lower(): value for name, value in request.query}
        if "x-goog-signature" not in low:
            return 403, "AccessDenied"
        try:
            signed_at_s = datetime.strptime(low["x-goog-date"], _STAMP).replace(tzinfo=UTC).timestamp()
            lifetime_s, names = int(low["x-goog-expires"]), low["x-goog-signedheaders"].split(";")
        except (KeyError, ValueError):
            return 400, "InvalidArgument"
        is_clear = low.get("x-goog-algorithm") == ALGORITHM and names in (["host"], ["content-type", "host"])
        if not is_clear or not 1 <= lifetime_s <= MAX_LIFETIME_S or request.header("Authorization") is not None:
            return 400, "InvalidArgument"
        if now_s >= signed_at_s + lifetime_s:
            return 400, "ExpiredToken"
        if signed_at_s > now_s + MAX_SKEW_S:
            return 403, "RequestTimeTooSkewed"
        sent = {name.lower() for name in request.headers}
        if not sent.issuperset(names) or any(name.startswith("x-goog-") for name in sent):
            return 400, "MalformedSecurityHeader"
        content_type = request.header("Content-Type") if "content-type" in names else None
        again = self.url(
            request.method, request.path, now_s=signed_at_s, lifetime_s=lifetime_s, content_type=content_type
        )
        if request.header("Host") != self.host or sorted(request.query) != sorted(parse_qsl(urlsplit(again).query)):
            return 403, "SignatureDoesNotMatch"
        return None


class EmulatedBucket:
    """The objects and answers of both regions."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        # So many uploads end with their connection: `syncd demo` shows a network that fails.
        self.uploads_to_lose = 0
        self.signer = Signer(b"", "")

    # Objects

    def path(self, key: Key) -> Path:
        return self._folder / key.region / key.sandbox / key.name

    def open(self, key: Key) -> BinaryIO | None:
        """The object's content, which stays readable when it is replaced; None if nothing was stored."""
        with suppress(FileNotFoundError):
            return open(self.path(key), "rb")
        return None

    def store(self, key: Key, write: Callable[[BinaryIO], None]) -> BinaryIO:
        """Replace the object with what `write` writes, if that raises nothing. Returns it open. Raises OSError."""
        path = self.path(key)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(_PART, dir=path.parent)
        file = open(descriptor, "w+b")  # noqa: SIM115 - it is returned
        try:
            write(file)
            file.flush()
            os.rename(part, path)
        except BaseException:
            file.close()
            with suppress(FileNotFoundError):
                os.unlink(part)
            raise
        return file

    def sweep(self) -> None:
        """Delete what is left of uploads that were cut off when an earlier process was killed."""
        for part in self._folder.rglob(f"*{_PART}"):
            part.unlink()

    def delete_sandbox(self, sandbox: str) -> None:
        for region in REGIONS:
            shutil.rmtree(self._folder / region / sandbox, ignore_errors=True)

    def keep_newest(self, key: Key, count: int) -> None:
        """Delete the objects beside this one, but for the newest `count`."""
        stored = [path for path in self.path(key).parent.iterdir() if path.suffix != _PART]
        for path in sorted(stored, key=os.path.getmtime)[:-count]:
            path.unlink()

    def url(self, method: str, key: Key, lifetime_s: int) -> str:
        """A signed URL; one for an upload accepts archives only."""
        content_type = ARCHIVE_TYPE if method == "PUT" else None
        return self.signer.url(
            method, key.path, now_s=self._clock.wall_s(), lifetime_s=lifetime_s, content_type=content_type
        )

    # The service

    def identify(self, request: Request) -> tuple[str, str | None]:
        """The operation (`upload`, `execution-upload` or `download`) and the sandbox."""
        key = _key(request)
        if request.method != "PUT":
            op = "download"
        else:
            op = "execution-upload" if key is not None and key.name.startswith("executions/") else "upload"
        return op, key.sandbox if key is not None else None

    def answer(self, op: str, request: Request) -> Reply:
        """Verify the signature, then store or return the object; errors are XML with Google's codes."""
        key = _key(request)
        if request.method not in ("PUT", "GET"):
            return error_reply(405, "MethodNotAllowed")
        if request.method == "PUT" and not request.announces_length:
            return error_reply(411, "MissingContentLength")
        refusal = self.signer.verify(request, self._clock.wall_s())
        if refusal is not None:
            return error_reply(*refusal)
        if op == "upload" and self.uploads_to_lose:
            self.uploads_to_lose -= 1
            raise Disconnected
        if key is None:
            return error_reply(404, "NoSuchKey")
        return self._get(key) if op == "download" else self._put(key, request.body)

    def _put(self, key: Key, body: RequestBody) -> Reply:
        def write(file: BinaryIO) -> None:
            while chunk := body.read():
                file.write(chunk)

        try:
            with self.store(key, write) as stored:
                headers = _described(stored)
        except OSError:
            return error_reply(500, "InternalError")
        more = [("x-goog-stored-content-length", str(body.length)), ("x-goog-stored-content-encoding", "identity")]
        kind = [("Content-Type", "text/html; charset=UTF-8"), ("Server", "UploadServer")]
        return Reply(200, (*headers, *more, *kind))

    def _get(self, key: Key) -> Reply:
        content = self.open(key)
        if content is None:
            return error_reply(404, "NoSuchKey")
        headers = (*_described(content), ("Content-Type", ARCHIVE_TYPE), ("Server", "UploadServer"))
        return Reply(200, headers, file=content)


def _described(content: BinaryIO) -> list[tuple[str, str]]:
    """The headers of a stored object, with one line for each hash, as Google sends them."""
    md5, checksum = hashlib.md5(usedforsecurity=False), 0
    content.seek(0)
    while chunk := content.read(CHUNK_BYTES):
        md5.update(chunk)
        checksum = crc32c(chunk, checksum)
    content.seek(0)
    return [
        ("ETag", f'"{md5.hexdigest()}"'),
        ("x-goog-hash", f"crc32c={base64.b64encode(checksum.to_bytes(4, 'big')).decode()}"),
        ("x-goog-hash", f"md5={base64.b64encode(md5.digest()).decode()}"),
    ]


def _key(request: Request) -> Key | None:
    match = _PATH.fullmatch(request.decoded_path)
    return Key(match[1], match[2], match[3]) if match and ".." not in match[3] else None


def error_reply(status: int, code: str) -> Reply:
    """An error in Google's XML."""
    message = f"<Code>{escape(code)}</Code><Message>The request is refused.</Message>"
    headers = (("Content-Type", "application/xml; charset=UTF-8"), ("Server", "UploadServer"))
    return Reply(status, headers, f"<?xml version='1.0' encoding='UTF-8'?><Error>{message}</Error>".encode())
