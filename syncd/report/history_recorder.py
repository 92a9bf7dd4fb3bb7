"""Follows one sync after the other, and writes down those that are worth a line."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from syncd.core.clock import Clock, utc
from syncd.core.text import one_line, redacted
from syncd.report.history import START, Ending, Mishap, Record, Row, Stages, change_of, row_at_the_end, worth_a_line
from syncd.report.history_store import HistoryFile
from syncd.sync.status_document import State
from syncd.sync.sync_cycle import Outcome
from syncd.sync.sync_reason import SyncReason

_STAGES = {
    State.SNAPSHOTTING: "packing",
    State.UPLOADING: "uploading",
    State.INITIALIZING: "initializing",
    State.RETRYING: "waiting",
}


@dataclass
class _Course:
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
    error: Mishap | None = None
    spent_s: defaultdict[State, float] = field(default_factory=lambda: defaultdict(float))


class Chronicle:
    """Told of each sync in the order of its happening: `begin`, then `stage`, `sent` and `retrying`, then one ending.

    Words outside of a sync are ignored, and a history that cannot be written costs the line, never the sync.
    `sandbox_id` is asked at the end of each sync, since a sandbox may be acquired in it.
    """

    def __init__(self, clock: Clock, file: HistoryFile, sandbox_id: Callable[[], str]) -> None:
        self._clock = clock
        self._file = file
        self._sandbox_id = sandbox_id
        self._course: _Course | None = None
        self._new = True
        self._row: Row | None = None  # None: what an earlier process left is not read yet

    def begin(self, why: str) -> None:
        """A sync begins; `why` is the value of a `SyncReason`."""
        now_s = self._clock.monotonic_s()
        if self._new and why == SyncReason.RESCAN.value:
            why = START  # what changed while nothing ran, or by another configuration
        self._new = False
        self._course = _Course(why, self._clock.wall_s(), now_s, since_s=now_s)

    def stage(self, state: State) -> None:
        """Work of another kind begins."""
        if self._course is not None:
            self._enter(self._course, state)

    def sent(self, sent_bytes: int, total_bytes: int) -> None:  # noqa: ARG002 - as an attendant is told
        """So much of the archive is on its way; fewer than before: it is another upload."""
        course = self._course
        if course is None:
            return
        if sent_bytes < course.sent_now:
            course.sent_before += course.sent_now
        course.sent_now = sent_bytes

    def retrying(self, step: str, message: str) -> None:
        """An attempt failed, and another one follows after a wait."""
        course = self._course
        if course is None:
            return
        course.error = _mishap(step, message)
        course.retries += 1
        self._enter(course, State.RETRYING)

    def end(self, outcome: Outcome) -> None:
        """It succeeded."""
        sync = outcome.sync
        self._close(
            Ending.INITIALIZED if sync else Ending.UNCHANGED,
            outcome,
            archive_bytes=sync.archive_bytes if sync else None,
        )

    def failed(self, step: str, message: str) -> None:
        """It failed, after all its attempts."""
        if self._course is not None:
            self._course.error = _mishap(step, message)
        self._close(Ending.FAILED)

    def gave_way(self) -> None:
        """Something newer came up, and a fresh sync follows."""
        self._close(Ending.SUPERSEDED)

    def stopped(self) -> None:
        """The process was asked to end in the middle of it; without a sync under way, nothing."""
        self._close(Ending.STOPPED)

    def _enter(self, course: _Course, state: State) -> None:
        now_s = self._clock.monotonic_s()
        course.spent_s[course.state] += now_s - course.since_s
        course.state, course.since_s = state, now_s
        course.tried = course.tried or state in (State.UPLOADING, State.INITIALIZING, State.RETRYING)

    def _close(self, ending: Ending, outcome: Outcome | None = None, archive_bytes: int | None = None) -> None:
        course, self._course = self._course, None
        if course is None:
            return
        self._enter(course, State.WATCHING)
        row = self._left_row() if self._row is None else self._row
        record = Record(
            at=utc(self._clock.wall_s()),
            began=utc(course.began_wall_s),
            why=course.why,
            outcome=ending,
            files=outcome.files if outcome else None,
            change=change_of(outcome.change) if outcome else None,
            archive_bytes=archive_bytes,
            sent_bytes=course.sent_before + course.sent_now,
            attempts=course.retries + 1 if course.tried else 0,
            seconds=round(self._clock.monotonic_s() - course.began_s, 3),
            stages=Stages(**{name: round(course.spent_s[state], 3) for state, name in _STAGES.items()}),
            sandbox=one_line(self._sandbox_id()),
            error=course.error,
            failures_before=row.count,
        )
        if worth_a_line(record, row):
            with contextlib.suppress(OSError):
                self._file.append(record)
        self._row = row.after(record)

    def _left_row(self) -> Row:
        """The failures in a row that an earlier process ended with: a restart does not make them new."""
        try:
            records, _ = self._file.read()
        except OSError:
            return Row()
        return row_at_the_end(records)


def _mishap(step: str, message: str) -> Mishap:
    return Mishap(step, one_line(redacted(message), 600))
