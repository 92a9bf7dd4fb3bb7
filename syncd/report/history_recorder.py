"""Follows each sync, and records those that `history.should_record` selects."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

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
)
from syncd.report.history_store import HistoryStore
from syncd.sync.outcome import Outcome
from syncd.sync.status_document import State
from syncd.sync.sync_reason import SyncReason

_STAGES = {
    State.SNAPSHOTTING: "packing",
    State.UPLOADING: "uploading",
    State.INITIALIZING: "initializing",
    State.RETRYING: "waiting",
}


@dataclass
class _SyncRun:
    """A sync that is under way."""

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
    stage_s: defaultdict[State, float] = field(default_factory=lambda: defaultdict(float))


class HistoryRecorder:
    """Records syncs; called in their order: `begin`, then `stage`, `sent` and `retrying`, then one of the endings.

    Calls outside of a sync are ignored, and a history that cannot be written costs the record, never the sync.
    `sandbox_id` is called at the end of each sync, since a sandbox may be acquired in it.
    """

    def __init__(self, clock: Clock, file: HistoryStore, sandbox_id: Callable[[], str]) -> None:
        self._clock = clock
        self._file = file
        self._sandbox_id = sandbox_id
        self._sync_run: _SyncRun | None = None
        self._is_first = True
        self._streak: FailureStreak | None = None  # None: the history is not read yet

    def begin(self, why: str) -> None:
        """A sync begins; `why` is the value of a `SyncReason`."""
        now_s = self._clock.monotonic_s()
        if self._is_first and why == SyncReason.RESCAN.value:
            why = START  # what changed while nothing ran, or by another configuration
        self._is_first = False
        self._sync_run = _SyncRun(why, self._clock.wall_s(), now_s, since_s=now_s)

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
        )
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


def _error_record(step: str, message: str) -> ErrorRecord:
    return ErrorRecord(step, one_line(redacted(message), 600))
