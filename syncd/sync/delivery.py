"""Bringing an archive into the sandbox: lease, upload, initialize, each failure answered by what it means.

One tenacity loop drives all three stages, since a failure of a later one may send the work back to an earlier one. What
a failure means is decided in `remote.failure_action`, how long to wait in `remote.retry`; here it is only done.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from tenacity import Retrying, retry_if_exception

from syncd.archive.archive import Archive
from syncd.core.clock import Clock, stamp
from syncd.core.errors import SandboxRefused, TryLater
from syncd.remote.api import Api
from syncd.remote.bucket import Bucket
from syncd.remote.failure import StepFailed
from syncd.remote.failure_action import Step, Verdict
from syncd.remote.retry import FRESH_LEASES, Patience, delay_s
from syncd.remote.retry_loop import RetryObserver
from syncd.remote.target import Target
from syncd.remote.uplink_store import UplinkFile
from syncd.remote.upload_url import Lease, usable
from syncd.remote.upload_url_store import LeaseFile
from syncd.sync.status_document import State
from syncd.sync.sync_state import Journal

_log = logging.getLogger("syncd.delivery")
# A new URL that the bucket refuses as well is waited out like any failure: see FRESH_LEASES.
_PASSING = frozenset({Verdict.RETRY, Verdict.OFFLINE, Verdict.FRESH_LEASE, Verdict.UPLOAD_AGAIN})


class Attendant(RetryObserver, Protocol):
    """Is told how a delivery goes, and waits for it, so that every wait can be cut short."""

    def stage(self, state: State) -> None:
        """Work of another kind begins."""

    def packed(self, done_files: int, total_files: int, done_bytes: int, total_bytes: int) -> None:
        """So many files, and so much of what is in them, are packed."""

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        """So much of the archive has arrived."""


@dataclass
class _Passage:
    """How far one archive has come."""

    archive: Archive
    identity: str
    uploaded: bool
    sha256: str
    started_s: float
    make_way: Callable[[], None]
    look_into: Callable[[], bool]
    looked_into: bool = False
    upload_s: float = 0.0
    fresh_leases: int = 0
    failure: StepFailed = field(default_factory=lambda: StepFailed(Step.UPLOAD_URL, Verdict.RETRY, "not tried yet"))


class Delivery:
    """Delivers archives to one sandbox. Holds the lease, each step's failures in a row, and the uplink's speed."""

    def __init__(
        self,
        *,
        target: Target,
        api: Api,
        bucket: Bucket,
        journal: Journal,
        lease_file: LeaseFile,
        uplink_file: UplinkFile,
        patience: Patience,
        clock: Clock,
    ) -> None:
        self._target = target
        self._api = api
        self._bucket = bucket
        self._journal = journal
        self._lease_file = lease_file
        self._uplink_file = uplink_file
        self._patience = patience
        self._clock = clock
        self._lease = lease_file.load(target)
        self.uplink = uplink_file.load()
        self._failures: Counter[Step] = Counter()

    @property
    def url_expires_at(self) -> str | None:
        """When the upload URL ends, for people."""
        if self._lease is None:
            return None
        return stamp(self._clock.wall_s() + self._lease.ends_s - self._clock.boottime_s())

    def deliver(
        self,
        archive: Archive,
        identity: str,
        attendant: Attendant,
        make_way: Callable[[], None] = lambda: None,
        look_into: Callable[[], bool] = lambda: True,
    ) -> str:
        """See the archive initialized, and return its SHA-256.

        `make_way` changes the sandbox for it, after the upload and before the initialize; it may raise `StepFailed`.
        `look_into` looks for the reason after initializes that the sandbox answered with a failure, until it says that
        it could look; what it, or `make_way`, raises besides ends the delivery.
        Raises `StepFailed` when retries end, `DamagedPiece`, `Superseded`, `Stop`, and `TryLater` where the state
        folder takes no note of what is about to happen to the sandbox.
        """
        kept = self._journal.uploaded(self._target)
        lies_there = kept is not None and identity != "" and kept.identity == identity
        sha256 = kept.sha256 if kept is not None and lies_there else ""
        passage = _Passage(archive, identity, lies_there, sha256, self._clock.monotonic_s(), make_way, look_into)
        retrying = Retrying(
            retry=retry_if_exception(_passes),
            wait=lambda _: self._wait_s(passage),
            stop=lambda state: self._spent(passage, state.upcoming_sleep),
            before_sleep=lambda state: attendant.retrying(passage.failure, state.upcoming_sleep),
            sleep=lambda seconds: attendant.pause(seconds, passage.failure.verdict),
            reraise=True,
        )
        try:
            retrying(self._advance, passage, attendant)
        except StepFailed as failure:
            if failure.verdict is not Verdict.OFFLINE:
                # The server had its say over what lies there: another initialize of it is not expected to help.
                with contextlib.suppress(OSError):
                    self._journal.forget_upload()
            if failure.verdict is Verdict.REFUSED and failure.step is not Step.UPLOAD:
                self._refused(failure)
            raise
        return passage.sha256

    def _advance(self, passage: _Passage, attendant: Attendant) -> None:
        """Go on from where the passage is. Raises `StepFailed`, the passage being set for the next attempt."""
        try:
            if not passage.uploaded:
                lease = self._leased(passage.archive, attendant)
                self._upload(lease, passage, attendant)
            attendant.stage(State.INITIALIZING)
            with _noting():
                self._journal.doubt()
            passage.make_way()
            self._failures[Step.DELETE] = 0
            self._api.initialize()
            self._failures[Step.INITIALIZE] = 0
            self._learn(passage)
        except StepFailed as failure:
            passage.failure = failure
            self._failures[failure.step] += 1
            if failure.verdict is Verdict.FRESH_LEASE:
                passage.fresh_leases += 1
                self._lease = None
                self._lease_file.forget()
            elif failure.verdict is Verdict.UPLOAD_AGAIN:
                passage.uploaded = False
                with contextlib.suppress(OSError):  # it is forgotten before the next upload, or there is none
                    self._journal.forget_upload()
            if self._calls_for_a_look(failure) and not passage.looked_into:
                passage.looked_into = passage.look_into()
            raise

    def _calls_for_a_look(self, failure: StepFailed) -> bool:
        """Whether the archive may be at fault. Two failures in a row are mostly the server's own."""
        answered = failure.step is Step.INITIALIZE and failure.verdict in (Verdict.RETRY, Verdict.UPLOAD_AGAIN)
        return answered and failure.retry_after_s is None and self._failures[Step.INITIALIZE] > 2

    def _refused(self, failure: StepFailed) -> None:
        """A sandbox that is not known any more may be made anew under its name; nothing of ours is in it then."""
        if issubclass(failure.refusal, SandboxRefused):
            with contextlib.suppress(OSError):
                self._journal.doubt()

    def _leased(self, archive: Archive, attendant: Attendant) -> Lease:
        attendant.stage(State.UPLOADING)
        rates = [rate for rate in (self.uplink.bytes_per_s, self._bucket.limit_bytes_per_s) if rate]
        expected_s = archive.size_bytes / min(rates) if rates else 0.0
        if self._lease is None or not usable(self._lease, self._clock.boottime_s(), expected_s):
            self._lease = self._api.upload_url()
            self._failures[Step.UPLOAD_URL] = 0
            with contextlib.suppress(OSError):  # kept only to save the next process a request
                self._lease_file.save(self._target, self._lease)
        return self._lease

    def _upload(self, lease: Lease, passage: _Passage, attendant: Attendant) -> None:
        archive = passage.archive
        with _noting():
            self._journal.forget_upload()  # from the first byte on, what lay there may be gone
        attendant.sent(0, archive.size_bytes)
        arrived = self._bucket.put(lease, archive, lambda sent: attendant.sent(sent, archive.size_bytes))
        passage.sha256 = arrived.sha256
        passage.upload_s = arrived.seconds
        self._failures[Step.UPLOAD] = 0
        passage.uploaded = True
        if passage.identity:
            with contextlib.suppress(OSError):  # costs one more upload if the process dies before initialize
                self._journal.record_uploaded(self._target, passage.identity, archive.size_bytes, passage.sha256)

    def _learn(self, passage: _Passage) -> None:
        """What the upload, if there was one, tells of the uplink.

        One that was cut tells nothing: nobody knows how much came through. And none counts before its initialize: with
        another codec the archive would be another one, and what lies in the bucket would be uploaded again.
        """
        uplink = self.uplink.observed(passage.archive.size_bytes, passage.upload_s, self._clock.wall_s())
        if uplink is self.uplink:
            return
        if uplink.codec is not self.uplink.codec:
            mbit_per_s = (uplink.bytes_per_s or 0.0) * 8e-6
            _log.info("the uplink makes %.0f Mbit/s: the %s codec from now on", mbit_per_s, uplink.codec.value)
        self.uplink = uplink
        with contextlib.suppress(OSError):  # kept only to spare the next process a guess
            self._uplink_file.save(uplink)

    def _wait_s(self, passage: _Passage) -> float:
        failure = passage.failure
        if failure.verdict is Verdict.FRESH_LEASE and passage.fresh_leases <= FRESH_LEASES:
            return 0.0
        chance = random.random()  # noqa: S311 - jitter, not a secret
        failures = self._failures[failure.step]
        return delay_s(failures, self._patience.first_s, self._patience.max_s, chance, failure.retry_after_s)

    def _spent(self, passage: _Passage, wait_s: float) -> bool:
        if wait_s == 0:
            return False  # a fresh URL costs no time, and their number is bounded
        return self._clock.monotonic_s() - passage.started_s + wait_s > self._patience.give_up_s


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


def _passes(failure: BaseException) -> bool:
    return isinstance(failure, StepFailed) and failure.verdict in _PASSING
