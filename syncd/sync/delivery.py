"""Bringing an archive into the sandbox: lease, upload, initialize, each failure answered by what it means.

One retry loop (`remote.retry_loop`) drives all three stages, since a failure of a later one may send the work back to
an earlier one. What a failure means is decided in `remote.failure`, how long to wait in `remote.retry`.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from syncd.archive.archive import Archive
from syncd.core.clock import Clock, stamp
from syncd.core.errors import SandboxRefused, TryLater
from syncd.remote.api import Api
from syncd.remote.bucket import Bucket
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.remote.retry import FRESH_URLS, RetrySettings
from syncd.remote.retry_loop import RetryObserver, with_retries
from syncd.remote.target import Target
from syncd.remote.uplink_store import UplinkStore
from syncd.remote.upload_url import UploadUrl, is_usable
from syncd.remote.upload_url_store import UploadUrlStore
from syncd.sync.status_document import State
from syncd.sync.sync_state import SyncState

_log = logging.getLogger("syncd.delivery")


class SyncObserver(RetryObserver, Protocol):
    """Is told how a delivery goes, and waits for it, so that every wait can be cut short."""

    def stage(self, state: State) -> None:
        """Work of another kind begins."""

    def packed(self, done_files: int, total_files: int, done_bytes: int, total_bytes: int) -> None:
        """So many files, and so much of what is in them, are packed."""

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        """So much of the archive has arrived."""


@dataclass
class _UploadAttempt:
    """How far one archive has come."""

    archive: Archive
    identity: str
    uploaded: bool
    sha256: str
    before_initialize: Callable[[], None]
    find_reason: Callable[[], bool]
    reason_sought: bool = False
    upload_s: float = 0.0
    fresh_urls: int = 0


class Delivery:
    """Delivers archives to one sandbox. Holds the lease, each step's failures in a row, and the uplink's speed."""

    def __init__(
        self,
        *,
        target: Target,
        api: Api,
        bucket: Bucket,
        sync_state: SyncState,
        upload_url_store: UploadUrlStore,
        uplink_file: UplinkStore,
        retry_settings: RetrySettings,
        clock: Clock,
    ) -> None:
        self._target = target
        self._api = api
        self._bucket = bucket
        self._sync_state = sync_state
        self._upload_url_store = upload_url_store
        self._uplink_file = uplink_file
        self._retry_settings = retry_settings
        self._clock = clock
        self._upload_url = upload_url_store.load(target)
        self.uplink = uplink_file.load()
        self._failures: Counter[ApiStep] = Counter()

    @property
    def url_expires_at(self) -> str | None:
        """When the upload URL ends, for people."""
        if self._upload_url is None:
            return None
        return stamp(self._clock.wall_s() + self._upload_url.ends_s - self._clock.boottime_s())

    def deliver(
        self,
        archive: Archive,
        identity: str,
        observer: SyncObserver,
        before_initialize: Callable[[], None] = lambda: None,
        find_reason: Callable[[], bool] = lambda: True,
    ) -> str:
        """See the archive initialized, and return its SHA-256.

        `before_initialize` changes the sandbox for it, between upload and initialize; it may raise `StepFailed`.
        `find_reason` looks for the reason after initializes that the sandbox answered with a failure, until it says
        that it could look; what it, or `before_initialize`, raises besides ends the delivery.
        Raises `StepFailed` when retries end, `DamagedPiece`, `Superseded`, `Stop`, and `TryLater` where the state
        folder takes no note of what is about to happen to the sandbox.
        """
        kept = self._sync_state.uploaded(self._target)
        lies_there = kept is not None and identity != "" and kept.identity == identity
        sha256 = kept.sha256 if kept is not None and lies_there else ""
        upload = _UploadAttempt(archive, identity, lies_there, sha256, before_initialize, find_reason)
        try:
            with_retries(
                lambda: self._advance(upload, observer),
                self._retry_settings,
                self._clock,
                on_retry=observer.retrying,
                pause=observer.pause,
                failures_in_row=lambda failure: self._failures_in_row(failure, upload),
            )
        except StepFailed as failure:
            if failure.action is not FailureAction.OFFLINE:
                # The server had its say over what lies there: another initialize of it is not expected to help.
                with contextlib.suppress(OSError):
                    self._sync_state.forget_upload()
            if failure.action is FailureAction.REFUSED and failure.step is not ApiStep.UPLOAD:
                self._refused(failure)
            raise
        return upload.sha256

    def _advance(self, upload: _UploadAttempt, observer: SyncObserver) -> None:
        """Go on from where the passage is. Raises `StepFailed`, the passage being set for the next attempt."""
        try:
            if not upload.uploaded:
                upload_url = self._usable_upload_url(upload.archive, observer)
                self._upload(upload_url, upload, observer)
            observer.stage(State.INITIALIZING)
            with _noting():
                self._sync_state.mark_uncertain()
            upload.before_initialize()
            self._failures[ApiStep.DELETE] = 0
            self._api.initialize()
            self._failures[ApiStep.INITIALIZE] = 0
            self._learn(upload)
        except StepFailed as failure:
            self._failures[failure.step] += 1
            if failure.action is FailureAction.RENEW_URL:
                upload.fresh_urls += 1
                self._upload_url = None
                self._upload_url_store.forget()
            elif failure.action is FailureAction.UPLOAD_AGAIN:
                upload.uploaded = False
                with contextlib.suppress(OSError):  # it is forgotten before the next upload, or there is none
                    self._sync_state.forget_upload()
            if self._calls_for_a_look(failure) and not upload.reason_sought:
                upload.reason_sought = upload.find_reason()
            raise

    def _calls_for_a_look(self, failure: StepFailed) -> bool:
        """Whether the archive may be at fault. Two failures in a row are mostly the server's own."""
        answered = failure.step is ApiStep.INITIALIZE and failure.action in (
            FailureAction.RETRY,
            FailureAction.UPLOAD_AGAIN,
        )
        return answered and failure.retry_after_s is None and self._failures[ApiStep.INITIALIZE] > 2

    def _refused(self, failure: StepFailed) -> None:
        """A sandbox that is not known any more may be made anew under its name; nothing of ours is in it then."""
        if issubclass(failure.refusal, SandboxRefused):
            with contextlib.suppress(OSError):
                self._sync_state.mark_uncertain()

    def _usable_upload_url(self, archive: Archive, observer: SyncObserver) -> UploadUrl:
        observer.stage(State.UPLOADING)
        rates = [rate for rate in (self.uplink.bytes_per_s, self._bucket.limit_bytes_per_s) if rate]
        expected_s = archive.size_bytes / min(rates) if rates else 0.0
        if self._upload_url is None or not is_usable(self._upload_url, self._clock.boottime_s(), expected_s):
            self._upload_url = self._api.upload_url()
            self._failures[ApiStep.UPLOAD_URL] = 0
            with contextlib.suppress(OSError):  # kept only to save the next process a request
                self._upload_url_store.save(self._target, self._upload_url)
        return self._upload_url

    def _upload(self, upload_url: UploadUrl, upload: _UploadAttempt, observer: SyncObserver) -> None:
        archive = upload.archive
        with _noting():
            self._sync_state.forget_upload()  # from the first byte on, what lay there may be gone
        observer.sent(0, archive.size_bytes)
        arrived = self._bucket.put(upload_url, archive, lambda sent: observer.sent(sent, archive.size_bytes))
        upload.sha256 = arrived.sha256
        upload.upload_s = arrived.seconds
        self._failures[ApiStep.UPLOAD] = 0
        upload.uploaded = True
        if upload.identity:
            with contextlib.suppress(OSError):  # costs one more upload if the process dies before initialize
                self._sync_state.record_uploaded(self._target, upload.identity, archive.size_bytes, upload.sha256)

    def _learn(self, upload: _UploadAttempt) -> None:
        """What the upload, if there was one, tells of the uplink.

        One that was cut tells nothing: nobody knows how much came through. And none counts before its initialize: with
        another codec the archive would be another one, and what lies in the bucket would be uploaded again.
        """
        uplink = self.uplink.observed(upload.archive.size_bytes, upload.upload_s, self._clock.wall_s())
        if uplink is self.uplink:
            return
        if uplink.codec is not self.uplink.codec:
            mbit_per_s = (uplink.bytes_per_s or 0.0) * 8e-6
            _log.info("the uplink makes %.0f Mbit/s: the %s codec from now on", mbit_per_s, uplink.codec.value)
        self.uplink = uplink
        with contextlib.suppress(OSError):  # kept only to spare the next process a guess
            self._uplink_file.save(uplink)

    def _failures_in_row(self, failure: StepFailed, upload: _UploadAttempt) -> int:
        """How often this step failed since it last succeeded; 0 where a new URL is asked for at once."""
        # A new URL that the bucket refuses as well is waited out like any failure.
        fresh_url = failure.action is FailureAction.RENEW_URL and upload.fresh_urls <= FRESH_URLS
        return 0 if fresh_url else self._failures[failure.step]


@contextlib.contextmanager
def _noting() -> Iterator[None]:
    """What cannot be noted must not be done: after a crash something would be believed that is no longer so."""
    try:
        yield
    except OSError as failure:
        raise TryLater(
            f"the state folder cannot be written ({failure.strerror or failure}), so nothing is sent",
            "make it writable; a sync follows by itself",
        ) from None
