"""Follows each sync, records those that `history.should_record` selects, and which paths left in them."""

from __future__ import annotations

import base64
import contextlib
import os
from collections import defaultdict
from collections.abc import Callable

from msgspec import Struct, field

from syncd.core.clock import Clock, utc
from syncd.core.text import one_line, redacted
from syncd.report.history import (
    START,
    ErrorRecord,
    FailureStreak,
    Stages,
    SyncEnding,
    SyncRecord,
    change_of,
    final_streak,
    should_record,
    without_names,
)
from syncd.report.history_store import HistoryStore
from syncd.report.sent_paths import archive_record
from syncd.report.sent_paths_store import SentPathsStore
from syncd.sync.outcome import Outcome
from syncd.sync.sent_archive import SentArchive
from syncd.sync.status_document import State
from syncd.sync.sync_reason import SyncReason

_STAGES = {
    State.SNAPSHOTTING: "packing",
    State.UPLOADING: "uploading",
    State.INITIALIZING: "initializing",
    State.RETRYING: "waiting",
}


class _SyncRun(Struct):
    """A sync that is under way."""

    id: str
    why: str
    began_wall_s: float
    began_s: float
    state: State = State.STARTING
    since_s: float = 0.0
    tried: bool = False
    retries: int = 0
    sent_before: int = 0
    sent_now: int = 0
    error: ErrorRecord | None = None
    sending: SentArchive | None = None
    repeated: SentArchive | None = None  # it is recorded with the sync that sent it first
    paths_in: str | None = None
    stage_s: defaultdict[State, float] = field(default_factory=lambda: defaultdict(float))


class HistoryRecorder:
    """Records syncs; called in their order: `begin`, then `stage`, `sent` and `retrying`, then one of the endings.

    Calls outside of a sync are ignored, and a history that cannot be written costs the record, never the sync.
    `sandbox_id` is called late in each sync, since a sandbox may be acquired in it. Without `sent_paths_store` no names
    of paths are written.
    """

    def __init__(
        self,
        clock: Clock,
        file: HistoryStore,
        sandbox_id: Callable[[], str],
        sent_paths_store: SentPathsStore | None,
    ) -> None:
        self._clock = clock
        self._file = file
        self._sandbox_id = sandbox_id
        self._sent_paths_store = sent_paths_store
        self._unanswered: tuple[str, SentArchive] | None = None  # the last that left in a sync which did not succeed
        self._sync_run: _SyncRun | None = None
        self._is_first = True
        self._streak: FailureStreak | None = None  # None: the history is not read yet

    def begin(self, why: str) -> None:
        """A sync begins; `why` is the value of a `SyncReason`."""
        now_s = self._clock.monotonic_s()
        if self._is_first and why == SyncReason.RESCAN.value:
            why = START  # what changed while nothing ran, or by another configuration
        self._is_first = False
        self._sync_run = _SyncRun(_new_id(), why, self._clock.wall_s(), now_s, since_s=now_s)

    def stage(self, state: State) -> None:
        """Work of another kind begins."""
        if self._sync_run is not None:
            self._enter(self._sync_run, state)

    def sent(self, sent_bytes: int, total_bytes: int) -> None:  # noqa: ARG002 - as a `SyncObserver`
        """The number of bytes sent; less than before: it is another upload."""
        sync_run = self._sync_run
        if sync_run is None:
            return
        if sent_bytes < sync_run.sent_now:
            sync_run.sent_before += sync_run.sent_now
        sync_run.sent_now = sent_bytes

    def sending(self, archive: SentArchive) -> None:
        """Record the paths of an archive of which bytes are about to leave; called again at each attempt.

        One that a sync before sent without success is recorded there: a server that is down all night gets the same
        archive again and again.
        """
        sync_run = self._sync_run
        if sync_run is None or self._sent_paths_store is None or sync_run.sending is archive:
            return
        sync_run.sending = archive
        if sync_run.paths_in is None and self._unanswered is not None and archive.repeats(self._unanswered[1]):
            sync_run.paths_in, sync_run.repeated = self._unanswered[0], archive
            return
        at, sandbox_id = utc(self._clock.wall_s()), self._sandbox_id()
        repeated, sync_run.repeated = sync_run.repeated, None
        with contextlib.suppress(OSError):
            for each in (archive,) if repeated is None else (repeated, archive):
                self._sent_paths_store.append(archive_record(sync_run.id, at, sandbox_id, each))
            sync_run.paths_in = sync_run.id
            self._unanswered = sync_run.id, archive

    def retrying(self, step: str, message: str) -> None:
        """An attempt failed, and another one follows after a wait."""
        sync_run = self._sync_run
        if sync_run is None:
            return
        sync_run.error = _error_record(step, message)
        sync_run.retries += 1
        self._enter(sync_run, State.RETRYING)

    def end(self, outcome: Outcome) -> None:
        """It succeeded."""
        sync = outcome.sync
        self._close(
            SyncEnding.INITIALIZED if sync else SyncEnding.UNCHANGED,
            outcome,
            archive_bytes=sync.archive_bytes if sync else None,
        )

    def failed(self, step: str, message: str) -> None:
        """It failed, after all its attempts."""
        if self._sync_run is not None:
            self._sync_run.error = _error_record(step, message)
        self._close(SyncEnding.FAILED)

    def gave_way(self) -> None:
        """Something newer came up, and a fresh sync follows."""
        self._close(SyncEnding.SUPERSEDED)

    def stopped(self) -> None:
        """The process was asked to end in the middle of it; without a sync under way, do nothing."""
        self._close(SyncEnding.STOPPED)

    def _enter(self, sync_run: _SyncRun, state: State) -> None:
        now_s = self._clock.monotonic_s()
        sync_run.stage_s[sync_run.state] += now_s - sync_run.since_s
        sync_run.state, sync_run.since_s = state, now_s
        sync_run.tried = sync_run.tried or state in (State.UPLOADING, State.INITIALIZING, State.RETRYING)

    def _close(self, ending: SyncEnding, outcome: Outcome | None = None, archive_bytes: int | None = None) -> None:
        sync_run, self._sync_run = self._sync_run, None
        if sync_run is None:
            return
        self._enter(sync_run, State.WATCHING)
        streak = self._earlier_streak() if self._streak is None else self._streak
        record = SyncRecord(
            id=sync_run.id,
            at=utc(self._clock.wall_s()),
            began=utc(sync_run.began_wall_s),
            why=sync_run.why,
            outcome=ending,
            files=outcome.files if outcome else None,
            change=change_of(outcome.change) if outcome else None,
            archive_bytes=archive_bytes,
            sent_bytes=sync_run.sent_before + sync_run.sent_now,
            attempts=sync_run.retries + 1 if sync_run.tried else 0,
            seconds=round(self._clock.monotonic_s() - sync_run.began_s, 3),
            stages=Stages(**{name: round(sync_run.stage_s[state], 3) for state, name in _STAGES.items()}),
            saved=outcome.saved if outcome else 0,
            held=len(outcome.held) if outcome else 0,
            sandbox=one_line(self._sandbox_id()),
            error=sync_run.error,
            failures_before=streak.count,
            paths_in=sync_run.paths_in,
        )
        if self._sent_paths_store is None:
            record = without_names(record)
        if ending is SyncEnding.INITIALIZED:
            self._unanswered = None
        if should_record(record, streak):
            with contextlib.suppress(OSError):
                self._file.append(record)
        self._streak = streak.after(record)

    def _earlier_streak(self) -> FailureStreak:
        """The streak that the history ends with: a restart does not make its failures new."""
        try:
            records, _ = self._file.read()
        except OSError:
            return FailureStreak()
        return final_streak(records)


def _new_id() -> str:
    """Return six letters and digits."""
    return base64.b32encode(os.urandom(5)).decode()[:6].lower()


def _error_record(step: str, message: str) -> ErrorRecord:
    return ErrorRecord(step, one_line(redacted(message), 600))
