"""Delivers an archive to the sandbox: upload URL, upload, initialize, with an answer to each kind of failure.

One retry loop (`remote.retry`) drives all three stages, since a failure of a later one may send the work back to
an earlier one. What a failure means is decided in `remote.failure`, how long to wait, too.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from msgspec import Struct

from syncd.archive.chunk_store import Archive
from syncd.core.clock import stamp
from syncd.core.errors import SandboxRefused, TryLater
from syncd.core.text import shown_path, size
from syncd.core.waiter import POLL_EVERY_S, Waiter, Work
from syncd.model.manifest import Manifest
from syncd.remote.api import Api
from syncd.remote.bucket import Bucket
from syncd.remote.failure import (
    ApiStep,
    FailureAction,
    RetrySettings,
    StepFailed,
    asks_first,
    failures_in_row,
)
from syncd.remote.retry import WaitOut, with_retries
from syncd.remote.upload_url import UploadUrl, UploadUrlStore, is_usable
from syncd.sandbox.look_request import LookResult
from syncd.sandbox.sandbox_state import SandboxState
from syncd.scan.exclusions import largest
from syncd.sync.status_document import Progress, State
from syncd.sync.sync_plan import Verdict

_log = logging.getLogger("syncd.delivery")
# After so many uploads in a row that were cut off, the failure names the largest file.
_MANY_CUT_OFF = 3
# The first archives of other sandboxes go past one whose upload stood still for so long.
_PASSED_S = 5.0


class SyncObserver(Protocol):
    """Follows a sync, says what it has to scan, and waits for it, so that every wait can be interrupted."""

    def to_scan(self) -> Collection[str] | None:
        """Return, as a scan begins, the only directories in which something may have changed; None for all."""

    def scanned(self) -> None:
        """A scan has ended. Raises `Superseded` where what it found is to be waited for."""

    def stage(self, state: State) -> None:
        """Another stage begins."""

    def progressed(self, progress: Progress) -> None:
        """So much is packed, or of the archive uploaded."""

    def wait_out(self, failure: StepFailed, wait_s: float) -> None:
        """An attempt failed: wait so long for the next one. Raises `Stop` or `Superseded`."""


class Preparation(Protocol):
    """What is done in the sandbox before an archive is initialized there."""

    def begin(self) -> None:
        """Begin what may run beside the upload. Raises no `StepFailed`."""

    def prepare(self) -> Verdict:
        """Prepare the sandbox, between upload and initialize, and return the verdict. May raise `StepFailed`."""

    def find_reason(self) -> Verdict | None:
        """Search for the reason of an initialize that failed; None if nobody could."""


class _UploadAttempt(Struct):
    """An archive that is to arrive, and what was tried for it."""

    archive: Archive
    entries: Manifest
    preparation: Preparation
    reason_searched: bool = False
    fresh_urls: int = 0


class FirstArchives(Struct):
    """The order of the first archives of several sandboxes: the `holder` has sent so much of its own, the last then."""

    holder: Delivery | None = None
    sent_bytes: int = 0
    sent_s: float = 0.0


class Delivery:
    """Delivers archives to one sandbox. Keeps the upload URL, and consecutive failures by step."""

    def __init__(
        self,
        *,
        state: SandboxState,
        api: Api,
        bucket: Bucket,
        upload_url_store: UploadUrlStore,
        retry_settings: RetrySettings,
        waiter: Waiter,
        first_archives: FirstArchives,
    ) -> None:
        """`first_archives` is the same one for all sandboxes."""
        self._target = state.target
        self._state = state
        self._api = api
        self._bucket = bucket
        self._upload_url_store = upload_url_store
        self._retry_settings = retry_settings
        self._waiter = waiter
        self._clock = waiter.clock
        self._first_archives = first_archives
        self._upload_url = upload_url_store.load()
        self._failures: Counter[ApiStep] = Counter()
        self._cut_off = 0  # uploads since one arrived
        self._uploaded: Archive | None = None  # it only lacks its initialize
        self._sha256 = ""  # of the last archive that was uploaded
        self._asks_first = False

    @property
    def url_expires_at(self) -> str | None:
        if self._upload_url is None:
            return None
        return stamp(self._clock.wall_s() + self._upload_url.ends_s - self._clock.boottime_s())

    def forget_failures(self) -> None:
        """Begin with the shortest wait again, after a sleep of the machine: its network may be another one."""
        self._failures.clear()

    def deliver(
        self, archive: Archive, entries: Manifest, preparation: Preparation, observer: SyncObserver
    ) -> str | Verdict:
        """Upload the archive of these entries, have it initialized, and return its SHA-256, or the verdict against it.

        The reason is searched after initializes that the sandbox answered with a failure, until there is a verdict.
        Raises `StepFailed` when retries end, `DamagedPiece`, `Superseded`, `Stop`, and `TryLater` if the state folder
        cannot record what is about to happen to the sandbox.
        """
        upload = _UploadAttempt(archive, entries, preparation)
        try:
            verdict = with_retries(
                lambda: self._advance(upload, observer),
                self._retry_settings,
                self._clock,
                observer.wait_out,
                lambda failure: failures_in_row(failure.action, upload.fresh_urls, self._failures[failure.step]),
            )
        except StepFailed as failure:
            if failure.action is not FailureAction.OFFLINE:
                # The server answered: another initialize of the uploaded archive is not expected to help.
                self._uploaded = None
            is_refused = failure.action is FailureAction.REFUSED and failure.step is not ApiStep.UPLOAD
            is_known = self._state.content.is_known  # else nothing is believed of it, nor was anything put there
            if is_known and is_refused and issubclass(failure.refusal, SandboxRefused):
                with contextlib.suppress(TryLater):  # a sandbox that the API no longer knows may be made again, empty
                    self._state.mark_uncertain()
            raise
        if verdict is not Verdict.INITIALIZE:
            return verdict
        self._uploaded = None
        return self._sha256

    def asked(self, look: Callable[[], LookResult | None], wait_out: WaitOut) -> LookResult | None:
        """Return what a look found by which nothing is delivered, tried again as the steps of a delivery are.

        Raises `StepFailed` when retries end, `Superseded`, `Stop`.
        """
        return with_retries(look, self._retry_settings, self._clock, wait_out)

    def _advance(self, upload: _UploadAttempt, observer: SyncObserver) -> Verdict:
        """Go on with the steps that are left. Raises `StepFailed`, with the attempt set for the next try."""
        initializes = 0
        try:
            if self._asks_first:
                self._request_upload_url()
                self._asks_first = False
            if self._uploaded != upload.archive:
                with self._turn():
                    upload_url = self._usable_upload_url(observer)
                    upload.preparation.begin()
                    self._upload(upload_url, upload, observer)
            observer.stage(State.INITIALIZING)
            verdict = upload.preparation.prepare()
            if verdict is not Verdict.INITIALIZE:
                return verdict
            self._failures[ApiStep.DELETE] = self._failures[ApiStep.DUMP] = 0
            self._state.mark_uncertain()
            initializes = self._failures[ApiStep.INITIALIZE] + 1
            self._api.initialize()
            self._failures[ApiStep.INITIALIZE] = 0
        except StepFailed as failure:
            self._failures[failure.step] += 1
            self._asks_first = self._asks_first or asks_first(failure.step, failure.action, initializes)
            if failure.action is FailureAction.RENEW_URL:
                upload.fresh_urls += 1
                self._upload_url = None
                self._upload_url_store.forget()
            elif failure.action is FailureAction.UPLOAD_AGAIN:
                self._uploaded = None
            if initializes and self._archive_may_be_at_fault(failure) and not upload.reason_searched:
                reason = upload.preparation.find_reason()
                upload.reason_searched = reason is not None
                if reason not in (None, Verdict.INITIALIZE):
                    return reason
            raise
        return Verdict.INITIALIZE

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Upload within the context: the first archives of several sandboxes go one after the other.

        So the first one arrives as soon as if it were alone. One that fails, or that nobody answers, lets the next one
        go. Raises `Superseded`, `Stop`.
        """
        if self._state.content.is_known:
            yield
            return
        first = self._first_archives
        while first.holder is not None and self._clock.monotonic_s() < first.sent_s + _PASSED_S:
            with self._waiter.doing(Work.READ):
                self._waiter.sleep(POLL_EVERY_S)
        first.holder, first.sent_bytes, first.sent_s = self, 0, self._clock.monotonic_s()
        try:
            yield
        finally:
            if first.holder is self:
                first.holder = None

    def _archive_may_be_at_fault(self, failure: StepFailed) -> bool:
        """True if the archive may be the cause. Two consecutive failures are mostly the server's own."""
        answered = failure.step is ApiStep.INITIALIZE and failure.action in (
            FailureAction.RETRY,
            FailureAction.UPLOAD_AGAIN,
        )
        return answered and failure.retry_after_s is None and self._failures[ApiStep.INITIALIZE] > 2

    def _usable_upload_url(self, observer: SyncObserver) -> UploadUrl:
        observer.stage(State.UPLOADING)
        if self._upload_url is None or not is_usable(self._upload_url, self._clock.boottime_s()):
            return self._request_upload_url()
        return self._upload_url

    def _request_upload_url(self) -> UploadUrl:
        upload_url = self._upload_url = self._api.upload_url()
        self._failures[ApiStep.UPLOAD_URL] = 0
        with contextlib.suppress(OSError):  # stored only to save the next process a request
            self._upload_url_store.save(upload_url)
        return upload_url

    def _upload(self, upload_url: UploadUrl, upload: _UploadAttempt, observer: SyncObserver) -> None:
        archive = upload.archive
        self._uploaded = None  # from the first byte on, the earlier archive may be lost

        def sent(sent_bytes: int) -> None:
            first = self._first_archives
            if first.holder is self and sent_bytes > first.sent_bytes:
                first.sent_bytes, first.sent_s = sent_bytes, self._clock.monotonic_s()
            observer.progressed(Progress(sent_bytes, archive.size_bytes))

        sent(0)
        try:
            self._sha256 = self._bucket.put(upload_url, archive, sent)
        except StepFailed as failure:
            if failure.action is FailureAction.OFFLINE and failure.possibly_applied:
                self._cut_off += 1
                self._raise_with_largest(failure, upload.entries)
            raise
        self._failures[ApiStep.UPLOAD] = self._cut_off = 0
        self._uploaded = archive

    def _raise_with_largest(self, failure: StepFailed, entries: Manifest) -> None:
        """Raise the failure with the largest of the archive's files, if uploads were cut off again and again."""
        for path, size_bytes in largest(entries, 1) if self._cut_off >= _MANY_CUT_OFF else ():
            raise StepFailed(
                ApiStep.UPLOAD,
                FailureAction.OFFLINE,
                f"{failure.message}, as the {self._cut_off - 1} before; its largest file is '{shown_path(path)}' "
                f"({size(size_bytes)})",
                "see if a proxy or the network limits uploads, or exclude that file in .syncdignore",
            ) from None
