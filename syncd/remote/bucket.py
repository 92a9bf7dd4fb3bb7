"""The upload: one `PUT` of the archive to a signed URL, and the proof that the bucket has what was sent.

The bucket gets no key. Headers are those that were signed and no other `x-goog-*` (facts of V4 signed URLs): the
content type, and a length, since a chunked body is refused. A failed upload starts again at its first byte.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import google_crc32c

from syncd.archive.archive import Archive
from syncd.core.clock import Clock
from syncd.core.settings import is_loopback
from syncd.core.text import one_line
from syncd.core.waiter import POLL_EVERY_S, GivesWay, Waiter
from syncd.remote.exchange_monitor import Arrival, ObservedBody
from syncd.remote.failure import SIGN_IN, ApiStep, FailureAction, StepFailed, classify_bucket_status
from syncd.remote.http_client import HttpClient, NoResponse, Response
from syncd.remote.kernel_pacing import set_kernel_pacing
from syncd.remote.retry import retry_after_s
from syncd.remote.token_bucket import BLOCK_BYTES, TokenBucket, block_bytes
from syncd.remote.upload_url import UploadUrl, ended

_log = logging.getLogger("syncd.bucket")
# The bucket stores and sums up a large object before it answers.
_READ_S = 90.0
_CODE = re.compile(rb"<Code>([A-Za-z]{1,64})</Code>")


@dataclass
class Throttle:
    """The most that uploads take, in bytes a second; 0 is no limit. May be changed while one is under way."""

    limit_bytes_per_s: int = 0


@dataclass(frozen=True)
class Arrived:
    """An archive that is in the bucket. `seconds` passed from its first byte handed over to the bucket's answer."""

    sha256: str
    seconds: float


class Bucket:
    """Uploads archives, at most so many bytes a second."""

    def __init__(
        self,
        client: HttpClient,
        clock: Clock,
        throttle: Throttle | None = None,
    ) -> None:
        self._client = client
        self._waiter = client.waiter
        self._clock = clock
        self._throttle = throttle or Throttle()
        self._told = False

    @property
    def limit_bytes_per_s(self) -> int:
        """The most that an upload takes now; 0 is no limit."""
        return self._throttle.limit_bytes_per_s

    def put(self, upload_url: UploadUrl, archive: Archive, on_sent: Callable[[int], None]) -> Arrived:
        """Upload the archive and compare checksums. Raises `StepFailed`, `DamagedPiece`, `Superseded`, `Stop`.

        `on_sent` is told every moment, until the answer, how many bytes the other side has acknowledged, and may raise
        to end the upload.
        """
        check_url(ApiStep.UPLOAD, upload_url.url)
        body = _Body(archive, on_sent, self._waiter, self._clock, self._throttle)
        headers = {"Content-Type": "application/gzip", "Content-Length": str(archive.size_bytes)}
        try:
            with self._waiter.giving_way(GivesWay.TO_A_FRESH_START), self._waiter.telling(body.tell):
                answer = self._client.exchange("PUT", upload_url.url, headers=headers, read_s=_READ_S, content=body)
        except NoResponse as failure:
            # A bucket that refuses early closes the connection, and its answer is lost under our own sending.
            if ended(upload_url, self._clock.boottime_s()):
                raise StepFailed(
                    ApiStep.UPLOAD, FailureAction.RENEW_URL, "the upload URL expired during the upload"
                ) from None
            what = "the upload was cut off" if failure.reached else "the bucket cannot be reached"
            raise StepFailed(ApiStep.UPLOAD, FailureAction.OFFLINE, f"{what} ({failure})") from None
        seconds = self._clock.monotonic_s() - body.sums.started_s
        if answer.status != 200:
            raise self._failed(answer)
        if not _compare(answer, body.sums):
            self._check_unconfirmed(answer)
        on_sent(archive.size_bytes)
        return Arrived(body.sums.sha256.hexdigest(), seconds)

    def _check_unconfirmed(self, answer: Response) -> None:
        """Nothing proves that the archive arrived. Raises `StepFailed` where something speaks against it."""
        if answer.body.strip():
            # A bucket says it with headers alone; a page is from someone on the way. Taken for an
            # upload, what lay there before would be initialized, and recorded as what the workspace is now.
            kind = one_line(answer.headers.get("Content-Type", "no type"), 60)
            message = f"what answered the upload is no bucket ({kind}, {len(answer.body)} bytes, no checksum)"
            raise StepFailed(ApiStep.UPLOAD, FailureAction.RETRY, message, SIGN_IN)
        if not self._told:
            self._told = True
            _log.warning("the bucket's answers carry no checksum: that it has what was sent cannot be proved")

    def _failed(self, answer: Response) -> StepFailed:
        found = _CODE.search(answer.body[:4096])
        code = found[1].decode() if found else ""
        action = classify_bucket_status(answer.status, code)
        asked_s = retry_after_s(answer.headers.get("Retry-After"), answer.server_wall_s or self._clock.wall_s())
        said = f"{answer.status} {code}".strip()
        if 300 <= answer.status < 400:
            message = f"the bucket answers with a redirect ({answer.status}), which is not followed"
            return StepFailed(ApiStep.UPLOAD, action, message, SIGN_IN)
        if action is FailureAction.REFUSED:
            return StepFailed(
                ApiStep.UPLOAD,
                action,
                f"the bucket takes no archive of this size ({said})",
                "leave large files out of it",
            )
        return StepFailed(ApiStep.UPLOAD, action, f"the bucket answered the upload with {said}", retry_after_s=asked_s)


class _Body(ObservedBody):
    """The archive as it is sent, and the sums of what was; iterated again, it begins anew."""

    def __init__(
        self, archive: Archive, on_sent: Callable[[int], None], waiter: Waiter, clock: Clock, throttle: Throttle
    ) -> None:
        self._archive = archive
        self._on_sent = on_sent
        self._waiter = waiter
        self._clock = clock
        self._throttle = throttle
        self.sums = _Sums(self._clock.monotonic_s())
        self._token_bucket = TokenBucket(self.sums.started_s)
        self._connection: socket.socket | None = None
        self._arrival: Arrival | None = None
        self._handed_bytes = 0
        self._held_to = -1

    def goes_over(self, connection: socket.socket) -> None:
        """Hold this connection to the limit, and count what arrives by it."""
        self._connection, self._held_to = connection, -1
        self._arrival, self._handed_bytes = Arrival(connection), 0

    def tell(self) -> None:
        """Say how much has arrived."""
        if self._arrival is not None:
            self._on_sent(self._arrival.arrived_bytes(self._handed_bytes))

    def __iter__(self) -> Iterator[bytes]:
        sums = self.sums = _Sums(self._clock.monotonic_s())  # the connection stands, the headers are out
        self._token_bucket = TokenBucket(sums.started_s)
        for read in self._archive.blocks(BLOCK_BYTES):
            start = 0
            while start < len(read):
                self._keep_pace()
                block = read[start : start + block_bytes(self._throttle.limit_bytes_per_s)]
                sums.add(block)
                yield block
                self._token_bucket = self._token_bucket.sent(len(block))
                start += len(block)
                self._handed_bytes += len(block)
                self.tell()

    def _keep_pace(self) -> None:
        """Wait for the limit, which may be another one after each look at it."""
        while True:
            limit = self._throttle.limit_bytes_per_s
            if limit != self._held_to and self._connection is not None:
                set_kernel_pacing(self._connection, limit)
                self._held_to = limit
            self._token_bucket = self._token_bucket.later(self._clock.monotonic_s(), limit)
            wait_s = self._token_bucket.wait_s(limit)
            if wait_s <= 0:
                return
            self._waiter.sleep(min(wait_s, POLL_EVERY_S))


class _Sums:
    """Checksums of what is sent since `started_s`, taken as it is sent: the archive is only put together then."""

    def __init__(self, started_s: float) -> None:
        self.started_s = started_s
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.crc32c = 0

    def add(self, block: bytes) -> None:
        self.sha256.update(block)
        self.md5.update(block)
        self.crc32c = google_crc32c.extend(self.crc32c, block)


def check_url(step: ApiStep, url: str) -> None:
    """Refuse a signed URL that is neither https nor on this machine. Raises `StepFailed`."""
    try:
        components = urlsplit(url)
        scheme, host = components.scheme, components.hostname or ""
    except ValueError:
        scheme, host = "", ""
    if scheme == "https" or (scheme == "http" and is_loopback(host)):
        return
    action = FailureAction.RENEW_URL if step is ApiStep.UPLOAD else FailureAction.RETRY
    raise StepFailed(step, action, f"the API gave a URL for the {step} that is not https but {one_line(scheme, 20)!r}")


def _compare(answer: Response, sums: _Sums) -> int:
    """Hold every checksum that the answer carries against those of what was sent (`x-goog-hash`: `crc32c=…`, `md5=…`).

    One that is absent proves nothing; one that differs means that other bytes lie there. Returns how many were equal.
    """
    equal = 0
    ours = {"crc32c": sums.crc32c.to_bytes(4, "big"), "md5": sums.md5.digest()}
    for line in answer.header_lines("x-goog-hash"):
        for part in line.split(","):
            name, _, value = part.strip().partition("=")
            if name in ours and value != base64.b64encode(ours[name]).decode():
                raise StepFailed(
                    ApiStep.UPLOAD,
                    FailureAction.UPLOAD_AGAIN,
                    f"the bucket's {name} of the archive is not that of what was sent",
                )
            equal += name in ours
    return equal
