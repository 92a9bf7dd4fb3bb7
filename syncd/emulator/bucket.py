"""The bucket that signed URLs point to, as strict as the real one, so that tests find a client's mistake.

Objects are stored on disk by region: `us` and `asia` are two buckets. An object is a folder with one file, whose name
holds generation and hashes; so a new version appears whole or not at all, and no second file can disagree with it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote
from xml.sax.saxutils import escape

from msgspec import Struct

from syncd.core.checksum import crc32c
from syncd.core.clock import Clock
from syncd.emulator.faults import Changes
from syncd.emulator.signing import Refusal, Signer
from syncd.emulator.wire import Readable, Reply, Request

BUCKET = "local-sandbox-data"
REGIONS = ("us", "asia")
ARCHIVE_TYPE = "application/gzip"
MAX_BYTES = 64 * 1024**3
_PATH = re.compile(rf"/{BUCKET}-(us|asia)/local-sandbox/([A-Za-z0-9][A-Za-z0-9._-]*)/([A-Za-z0-9][A-Za-z0-9._/-]*)")
_VERSION = re.compile(r"([0-9]+)\.([0-9a-f]{32})\.([0-9a-f]{8})")
_CODES = {
    400: "InvalidArgument",
    401: "AuthenticationRequired",
    403: "AccessDenied",
    404: "NoSuchKey",
    408: "RequestTimeout",
    411: "MissingContentLength",
    429: "SlowDown",
    500: "InternalError",
    502: "BadGateway",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
}


class Key(Struct, frozen=True):
    """An object's address: `name` is relative to the sandbox, such as `workspace.tar.gz`."""

    region: str
    sandbox: str
    name: str

    @property
    def path(self) -> str:
        """The percent-encoded path of its URLs."""
        return quote(f"/{BUCKET}-{self.region}/local-sandbox/{self.sandbox}/{self.name}")


class Version(Struct, frozen=True):
    """A stored version of an object."""

    path: str
    generation: int
    md5: bytes
    crc32c: bytes

    def headers(self) -> list[tuple[str, str]]:
        """Its response headers, with one line for each hash, as Google sends them."""
        return [
            ("ETag", f'"{self.md5.hex()}"'),
            ("x-goog-generation", str(self.generation)),
            ("x-goog-metageneration", "1"),
            ("x-goog-hash", f"crc32c={base64.b64encode(self.crc32c).decode()}"),
            ("x-goog-hash", f"md5={base64.b64encode(self.md5).decode()}"),
        ]


class EmulatedBucket:
    """The objects and answers of both regions. `write_interval_s` above 0: 429 for an object that is written sooner."""

    def __init__(self, folder: str, clock: Clock, write_interval_s: float) -> None:
        self._folder = folder
        self._clock = clock
        self._write_interval_s = write_interval_s
        self._written_s: dict[Key, float] = {}
        self._lock = threading.Lock()
        self._last_generation = 0
        self.signer = Signer(b"", "")

    # Objects

    def find(self, key: Key) -> Version | None:
        """The newest version, None if nothing was stored."""
        folder = self._folder_of(key)
        found = []
        with suppress(FileNotFoundError, NotADirectoryError):
            found = [match for name in os.listdir(folder) if (match := _VERSION.fullmatch(name))]
        if not found:
            return None
        newest = max(found, key=lambda match: int(match[1]))
        return Version(
            os.path.join(folder, newest[0]), int(newest[1]), bytes.fromhex(newest[2]), bytes.fromhex(newest[3])
        )

    def open(self, key: Key) -> tuple[Version, BinaryIO] | None:
        """The newest version and its content, which stays readable when it is replaced."""
        while (version := self.find(key)) is not None:
            # If it was replaced before it was opened, find the new version.
            with suppress(FileNotFoundError):
                return version, open(version.path, "rb")
        return None

    def store(self, key: Key, content: Readable) -> Version:
        """Replace the object atomically, after all of `content` has arrived; without that it stays unchanged."""
        folder = self._folder_of(key)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        generation = self._next_generation()
        partial = os.path.join(folder, f"{generation}.part")
        md5, checksum = hashlib.md5(usedforsecurity=False), 0
        try:
            with open(partial, "wb") as file:
                while chunk := content.read():
                    md5.update(chunk)
                    checksum = crc32c(chunk, checksum)
                    file.write(chunk)
            name = f"{generation}.{md5.hexdigest()}.{checksum:08x}"
            path = os.path.join(folder, name)
            with self._lock:
                os.rename(partial, path)
                for other in os.listdir(folder):
                    older = _VERSION.fullmatch(other)
                    if older and int(older[1]) < generation:
                        os.unlink(os.path.join(folder, other))
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(partial)
            raise
        return Version(path, generation, md5.digest(), checksum.to_bytes(4, "big"))

    def sweep(self) -> None:
        """Delete partial files of uploads that were cut off when an earlier run was killed."""
        for partial in Path(self._folder).rglob("*.part"):
            partial.unlink()

    def delete_sandbox(self, sandbox: str) -> None:
        """Delete all objects of a sandbox."""
        for region in REGIONS:
            shutil.rmtree(os.path.join(self._folder, region, sandbox), ignore_errors=True)

    def keep_newest(self, region: str, sandbox: str, prefix: str, count: int) -> None:
        """Delete the objects whose name begins with `prefix`, such as `artifacts/`, but for the newest `count`."""
        folder = os.path.join(self._folder, region, sandbox)
        try:
            names = [name.replace("@", "/") for name in os.listdir(folder)]
        except FileNotFoundError:
            return
        keys = [Key(region, sandbox, name) for name in names if name.startswith(prefix)]
        versions = {key: version for key in keys if (version := self.find(key)) is not None}
        by_age = sorted(versions, key=lambda key: versions[key].generation)
        for key in by_age[: max(0, len(by_age) - count)]:
            shutil.rmtree(self._folder_of(key), ignore_errors=True)

    def url(self, method: str, key: Key, lifetime_s: int) -> str:
        """A signed URL; one for an upload accepts archives only."""
        content_type = ARCHIVE_TYPE if method == "PUT" else None
        return self.signer.url(
            method, key.path, now_s=self._clock.wall_s(), lifetime_s=lifetime_s, content_type=content_type
        )

    def _folder_of(self, key: Key) -> str:
        return os.path.join(self._folder, key.region, key.sandbox, key.name.replace("/", "@"))

    def _next_generation(self) -> int:
        with self._lock:
            self._last_generation = max(self._last_generation + 1, int(self._clock.wall_s() * 1_000_000))
            return self._last_generation

    # The origin's side

    def identify(self, request: Request) -> tuple[str, str | None]:
        """The operation (`upload`, `execution-upload` or `download`) and the sandbox."""
        key = _key(request)
        if request.method != "PUT":
            op = "download"
        else:
            op = "execution-upload" if key is not None and key.name.startswith("executions/") else "upload"
        return op, key.sandbox if key is not None else None

    def answer(self, op: str, request: Request, body: Readable, _changes: Changes) -> Reply:
        """Verify the signature, then store or return the object; errors are XML with Google's codes."""
        key = _key(request)
        if request.method not in ("PUT", "GET"):
            return _error_reply(Refusal(405, "MethodNotAllowed", "The specified method is not allowed."))
        if request.method == "PUT" and not request.announces_length:
            return _error_reply(
                Refusal(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
            )
        refusal = self.signer.verify(
            request.method, request.path, request.query, list(request.headers.items()), self._clock.wall_s()
        )
        if refusal is not None:
            return _error_reply(refusal)
        if key is None:
            return self.error_reply(404, "NoSuchKey")
        return self._put(key, body) if op != "download" else self._get(key)

    def error_reply(self, status: int, code: str) -> Reply:
        """An error with that status; if `code` is empty, with the usual code of the status."""
        code = code or _CODES.get(status, "UnknownError")
        return _error_reply(Refusal(status, code, f"The request was answered with {code}."))

    def _put(self, key: Key, body: Readable) -> Reply:
        if body.length > MAX_BYTES:
            return self.error_reply(400, "EntityTooLarge")
        now_s = self._clock.monotonic_s()
        if now_s - self._written_s.get(key, float("-inf")) < self._write_interval_s:
            return self.error_reply(429, "SlowDown")
        try:
            version = self.store(key, body)
        except OSError:
            return self.error_reply(500, "InternalError")
        self._written_s[key] = now_s
        more = [("x-goog-stored-content-length", str(body.length)), ("x-goog-stored-content-encoding", "identity")]
        kind = [("Content-Type", "text/html; charset=UTF-8"), ("Server", "UploadServer")]
        return Reply(200, (*version.headers(), *more, *kind))

    def _get(self, key: Key) -> Reply:
        opened = self.open(key)
        if opened is None:
            return self.error_reply(404, "NoSuchKey")
        version, content = opened
        size_bytes = os.fstat(content.fileno()).st_size
        headers = (*version.headers(), ("Content-Type", ARCHIVE_TYPE), ("Server", "UploadServer"))
        return Reply(200, headers, content=content, content_bytes=size_bytes)


def _key(request: Request) -> Key | None:
    match = _PATH.fullmatch(request.decoded_path)
    return Key(match[1], match[2], match[3]) if match and ".." not in match[3] else None


def _error_reply(error: Refusal) -> Reply:
    details = f"<Details>{escape(error.details)}</Details>" if error.details else ""
    text = (
        "<?xml version='1.0' encoding='UTF-8'?>"
        f"<Error><Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>{details}</Error>"
    )
    headers = (("Content-Type", "application/xml; charset=UTF-8"), ("Server", "UploadServer"))
    return Reply(error.status, headers, text.encode())
