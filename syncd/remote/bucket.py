"""Uploads the archive with one `PUT` to a signed URL, and verifies that the bucket has what was sent; downloads others.

The bucket gets no key. The headers are those that were signed and no other `x-goog-*` (facts of V4 signed URLs): the
content type, and a length, since a chunked body is refused. A failed upload starts again at its first byte, and so does
a download that breaks off, with a fresh archive, since the sandbox may have changed meanwhile.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import re
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

from syncd.archive.chunk_store import Archive
from syncd.archive.extraction import BadArchive
from syncd.core.checksum import crc32c
from syncd.core.settings import is_loopback
from syncd.core.text import one_line
from syncd.core.waiter import POLL_EVERY_S, Work
from syncd.remote.api import Api
from syncd.remote.failure import (
    SIGN_IN,
    ApiStep,
    FailureAction,
    RetrySettings,
    StepFailed,
    classify_bucket_status,
)
from syncd.remote.http_client import HttpClient, NoResponse, Response
from syncd.remote.network import AckTracker
from syncd.remote.retry import WaitOut, with_retries
from syncd.remote.upload_url import UploadUrl, is_expired

_log = logging.getLogger("syncd.bucket")
# The bucket stores a large object and computes its checksums before it answers.
_READ_S = 90.0
# Once all is sent, newer events wait so long for the answer: an upload that is given up then may be stored all the
# same, over the next one.
_ANSWER_S = 5.0
# A download that brings nothing for so long has failed.
_DOWNLOAD_S = 60.0
# A block is one send: it has the write time-out, and a stop or a pause is noticed after it.
BLOCK_BYTES = 64 << 10
# With a limit, blocks are this share of a second's bytes. A block and the bytes caught up are together less than a
# twentieth of two seconds' bytes, since a limit is hardly ever measured over less than two seconds.
SHARE = 40
CATCH_UP_S = 0.05
# A smaller block would be mostly headers: 40 bytes of TCP and IP, 22 of TLS.
_LEAST_BYTES = 1 << 10
# socket(7), asm-generic/socket.h: bytes a second, all bits set for no limit. Python has no name for it.
_SO_MAX_PACING_RATE = 47
_NO_LIMIT = 0xFFFF_FFFF
# A little above the limit, since TLS adds to what is sent, and syncd itself paces the blocks.
_ROOM = 32
# The kernel delays each packet by the rate that holds when it is queued, even if the limit is lifted then: a minute for
# 64 KiB at 1 KiB a second. Below this rate the unsent bytes that it may hold are few enough by themselves.
_LEAST_RATE = 64 << 10
# What the kernel may hold unsent (tcp(7)): enough to be busy until more is written.
_UNSENT_S = 0.1
_LEAST_UNSENT_BYTES = 4 << 10
_CODE = re.compile(rb"<Code>([A-Za-z]{1,64})</Code>")

Result = TypeVar("Result")


def block_bytes(limit_bytes_per_s: int) -> int:
    """Return the size of the blocks to send; a limit of 0 is none."""
    if not limit_bytes_per_s:
        return BLOCK_BYTES
    return min(BLOCK_BYTES, max(_LEAST_BYTES, limit_bytes_per_s // SHARE))


class TokenBucket(Struct, frozen=True):
    """The number of bytes by which an upload is ahead of its limit, at a second of a clock that stops in suspend.

    Bytes go evenly, and without catching up after a stall: those that were not sent in their time may follow faster
    only as far as a late timer, or a busy processor, delays a block. The connection is limited in the kernel, too:
    during a stall of the network it holds what was written meanwhile, and once that goes on, all of it would leave at
    once.
    """

    at_s: float
    ahead_bytes: float = 0.0

    def refilled(self, now_s: float, limit_bytes_per_s: int) -> TokenBucket:
        """Return the state after time has passed under this limit; 0 is none. A clock that went back changes nothing.

        In any period an upload sends at most what the limit allows for it, CATCH_UP_S seconds' bytes and a block.
        """
        if not limit_bytes_per_s:
            return TokenBucket(now_s)
        # Bytes sent under a higher limit delay this one by no more than a block of its own.
        ahead_bytes = min(self.ahead_bytes, block_bytes(limit_bytes_per_s))
        ahead_bytes -= limit_bytes_per_s * max(0.0, now_s - self.at_s)
        return TokenBucket(now_s, max(ahead_bytes, -CATCH_UP_S * limit_bytes_per_s))

    def consumed(self, size_bytes: int) -> TokenBucket:
        """Return the state after so many more bytes were sent."""
        return TokenBucket(self.at_s, self.ahead_bytes + size_bytes)

    def wait_s(self, limit_bytes_per_s: int) -> float:
        """Return the seconds from `at_s` until the next block may be sent; 0 for a part of a byte."""
        return self.ahead_bytes / limit_bytes_per_s if limit_bytes_per_s and self.ahead_bytes >= 1 else 0.0


def set_kernel_pacing(connection: socket.socket, limit_bytes_per_s: int) -> None:
    """Have the kernel send at most so many bytes a second, and hold few unsent; 0 is no limit.

    A connection that never had a limit is left as it is.
    """
    rate, unsent_bytes = _NO_LIMIT, 0  # 0 is the system's own
    if limit_bytes_per_s:
        rate = min(_NO_LIMIT - 1, max(_LEAST_RATE, limit_bytes_per_s + limit_bytes_per_s // _ROOM))
        unsent_bytes = max(_LEAST_UNSENT_BYTES, int(limit_bytes_per_s * _UNSENT_S))
    with contextlib.suppress(OSError, AttributeError):  # it has just ended, or this system cannot
        if not limit_bytes_per_s and _rate(connection) == _NO_LIMIT:
            return
        connection.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, struct.pack("I", rate))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent_bytes)


def _rate(connection: socket.socket) -> int:
    return int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, 4), sys.byteorder)


class Throttle(Struct):
    """The limit of all uploads together in bytes a second; 0 is no limit."""

    limit_bytes_per_s: int = 0
    uploads: int = 0  # under way

    @property
    def share_bytes_per_s(self) -> int:
        return -(-self.limit_bytes_per_s // max(1, self.uploads))


class Bucket(Struct):
    """Uploads archives, within a limit of bytes a second."""

    client: HttpClient
    throttle: Throttle
    _warned: bool = False

    def put(
        self,
        upload_url: UploadUrl,
        archive: Archive,
        on_sent: Callable[[int], None],
    ) -> str:
        """Upload the archive, compare checksums, and return its SHA-256.

        `on_sent` is called several times a second, until the answer, with the number of bytes that the bucket has
        acknowledged, and may raise to end the upload.
        Raises `StepFailed`, `DamagedPiece`, `Superseded`, `Stop`.
        """
        check_url(ApiStep.UPLOAD, upload_url.url)
        body = _Body(archive, on_sent, self.client, self.throttle, _Checksums())
        headers = {"Content-Type": "application/gzip", "Content-Length": str(archive.size_bytes)}
        self.throttle.uploads += 1
        try:
            with self.client.waiter.doing(Work.UPLOAD, body.report):
                answer = self.client.exchange("PUT", upload_url.url, headers=headers, read_s=_READ_S, content=body)
        except NoResponse as failure:
            # A bucket that refuses early closes the connection, and its answer is lost while the body is still sent.
            if is_expired(upload_url, self.client.waiter.clock.boottime_s()):
                raise StepFailed(
                    ApiStep.UPLOAD, FailureAction.RENEW_URL, "the upload URL expired during the upload"
                ) from None
            if failure.reached:
                raise StepFailed(ApiStep.UPLOAD, FailureAction.OFFLINE, f"the upload was cut off ({failure})") from None
            message, hint = f"Klavis' storage cannot be reached ({failure})", "check the network"
            raise StepFailed(ApiStep.UPLOAD, FailureAction.OFFLINE, message, hint, possibly_applied=False) from None
        finally:
            self.throttle.uploads -= 1
        if answer.status != 200:
            raise self._failed(answer)
        if not _compare(answer, body.checksums):
            self._check_unconfirmed(answer)
        on_sent(archive.size_bytes)
        return body.checksums.sha256.hexdigest()

    def _check_unconfirmed(self, answer: Response) -> None:
        """Check an answer that carries no checksum. Raises `StepFailed` if it is not a bucket's."""
        if answer.body.strip():
            # A bucket answers with headers alone; a page is a proxy's or a sign-in's. Taken for an upload, the archive
            # that lay there before would be initialized, and recorded as the workspace's current state.
            kind = one_line(answer.header("Content-Type") or "no type", 60)
            message = f"what answered the upload is not Klavis' storage ({kind}, {len(answer.body)} bytes, no checksum)"
            raise StepFailed(ApiStep.UPLOAD, FailureAction.RETRY, message, SIGN_IN)
        if not self._warned:
            self._warned = True
            _log.warning("the answers of Klavis' storage carry no checksum: uploads cannot be verified")

    def _failed(self, answer: Response) -> StepFailed:
        found = _CODE.search(answer.body[:4096])
        code = found[1].decode() if found else ""
        action = classify_bucket_status(answer.status, code)
        answered = f"{answer.status} {code}".strip()
        if 300 <= answer.status < 400:
            message = f"Klavis' storage answers with a redirect ({answer.status}), which is not followed"
            return StepFailed(ApiStep.UPLOAD, FailureAction.RETRY, message, SIGN_IN)
        if action is FailureAction.REFUSED:
            message = f"Klavis' storage takes no archive of this size ({answered})"
            return StepFailed(ApiStep.UPLOAD, FailureAction.REFUSED, message, "exclude large files in .syncdignore")
        message = f"Klavis' storage answered the upload with {answered}"
        return StepFailed(ApiStep.UPLOAD, action, message, retry_after_s=answer.retry_after_s)


class _Body(Struct):
    """The archive's bytes as they are sent, with their checksums; each iteration starts at the first byte."""

    archive: Archive
    on_sent: Callable[[int], None]
    client: HttpClient
    throttle: Throttle
    checksums: _Checksums
    _token_bucket: TokenBucket = TokenBucket(0.0)
    _acknowledged: AckTracker | None = None
    _written_bytes: int = 0
    _paced_limit: int = -1

    def report(self) -> None:
        """Report how much the bucket has acknowledged."""
        if self._acknowledged is not None:
            self.on_sent(self._acknowledged.acked_bytes(self._written_bytes))

    def __iter__(self) -> Iterator[bytes]:
        # The connection is made, and the headers are sent.
        self.client.waiter.be_patient(0)
        self.checksums, connection = _Checksums(), self.client.connection
        self._token_bucket = TokenBucket(self.client.waiter.clock.monotonic_s())
        self._acknowledged = None if connection is None else AckTracker(connection)
        self._written_bytes, self._paced_limit = 0, -1
        for read in self.archive.blocks(BLOCK_BYTES):
            start = 0
            while start < len(read):
                self._wait_for_limit(connection)
                block = read[start : start + block_bytes(self.throttle.share_bytes_per_s)]
                self.checksums.add(block)
                yield block
                self._token_bucket = self._token_bucket.consumed(len(block))
                start += len(block)
                self._written_bytes += len(block)
                self.report()
        self.client.waiter.be_patient(_ANSWER_S)

    def _wait_for_limit(self, connection: socket.socket | None) -> None:
        """Wait until the share of the limit, which may change meanwhile, allows the next block."""
        waiter = self.client.waiter
        while True:
            limit = self.throttle.share_bytes_per_s
            if limit != self._paced_limit and connection is not None:
                set_kernel_pacing(connection, limit)
                self._paced_limit = limit
            self._token_bucket = self._token_bucket.refilled(waiter.clock.monotonic_s(), limit)
            wait_s = self._token_bucket.wait_s(limit)
            if wait_s <= 0:
                return
            waiter.sleep(min(wait_s, POLL_EVERY_S))


class _Checksums:
    """Checksums of what was sent. The archive is put together while it is sent, so they are too."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.crc32c = 0

    def add(self, block: bytes) -> None:
        self.sha256.update(block)
        self.md5.update(block)
        self.crc32c = crc32c(block, self.crc32c)


class Dump(Struct):
    """Downloads of one sandbox's workspace, as the archive that the API makes of it; it is read as it comes."""

    api: Api
    client: HttpClient
    retry_settings: RetrySettings

    def read(self, make: Callable[[Iterator[bytes]], Result], wait_out: WaitOut) -> Result:
        """Return the result of `make`, which is called with the archive's bytes at each attempt.

        It changes nothing, so a daemon gives it up for anything newer. Raises `StepFailed` when retries end,
        `Superseded`, `Stop`, and what else `make` raises.
        """
        waiter = self.client.waiter
        with waiter.doing(Work.READ):
            return with_retries(lambda: self.read_once(make), self.retry_settings, waiter.clock, wait_out)

    def read_once(self, make: Callable[[Iterator[bytes]], Result]) -> Result:
        """Return the result of `make` in one attempt. Raises `StepFailed`, `Superseded`, `Stop`."""
        try:
            return download(self.client, ApiStep.DUMP, self.api.dump(), make)
        except BadArchive as failure:
            message = f"the sandbox's archive cannot be read ({failure})"
            raise StepFailed(ApiStep.DUMP, FailureAction.RETRY, message) from None


def download(client: HttpClient, step: ApiStep, url: str, consume: Callable[[Iterator[bytes]], Result]) -> Result:
    """Return the result of `consume`, called with the bytes at a signed URL.

    Raises `StepFailed`, `Superseded`, `Stop`, and what `consume` raises.
    """
    check_url(step, url)
    try:
        result = client.download(url, read_s=_DOWNLOAD_S, consume=consume)
    except NoResponse as failure:
        raise StepFailed(step, FailureAction.OFFLINE, f"the download was cut off ({failure})") from None
    if isinstance(result, Response):
        message = f"Klavis' storage answered the download with {result.status}"
        raise StepFailed(step, FailureAction.RETRY, message, retry_after_s=result.retry_after_s)
    return result


def check_url(step: ApiStep, url: str) -> None:
    """Refuse a signed URL that is neither https nor on this machine, or no URL at all. Raises `StepFailed`."""
    try:
        components = urlsplit(url)
        scheme, host = components.scheme, components.hostname or ""
    except ValueError:
        scheme, host = "", ""
    if not (host and url.isascii() and url.isprintable() and " " not in url):
        scheme = "malformed"
    if scheme == "https" or (scheme == "http" and is_loopback(host)):
        return
    action = FailureAction.RENEW_URL if step is ApiStep.UPLOAD else FailureAction.RETRY
    raise StepFailed(step, action, f"Klavis gave a URL for the {step} that is not https but {one_line(scheme, 20)!r}")


def _compare(answer: Response, checksums: _Checksums) -> int:
    """Compare every checksum that the answer carries (`x-goog-hash`: `crc32c=…`, `md5=…`) with those of what was sent.

    Returns how many were equal. An absent one proves nothing; one that differs means that other bytes were stored.
    """
    equal = 0
    ours = {"crc32c": checksums.crc32c.to_bytes(4, "big"), "md5": checksums.md5.digest()}
    for part in (answer.header("x-goog-hash") or "").split(","):
        name, _, value = part.strip().partition("=")
        if name in ours and value != base64.b64encode(ours[name]).decode():
            raise StepFailed(
                ApiStep.UPLOAD,
                FailureAction.UPLOAD_AGAIN,
                f"the {name} of the archive in Klavis' storage is not that of what was sent",
            )
        equal += name in ours
    return equal
