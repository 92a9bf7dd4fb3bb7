"""The syncs that get a line in the history, and the counting of failures in a row."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from syncd.core.clock import utc
from syncd.report.history import (
    MOST_KINDS,
    START,
    ChangeCounts,
    ErrorRecord,
    FailureStreak,
    SyncEnding,
    SyncRecord,
    change_of,
    final_streak,
    kind_of,
    should_record,
    without_names,
)
from syncd.scan.manifest import Difference
from syncd.sync.sync_reason import SyncReason
from tests.clock import NOON_S

BUSY = ErrorRecord("upload", "the bucket answered 503")
GONE = ErrorRecord("initialize", "no such sandbox")
CHANGES, ASKED, LOOK, RETRY = (
    reason.value for reason in (SyncReason.CHANGE, SyncReason.ORDER, SyncReason.RESCAN, SyncReason.RETRY)
)


def record(
    outcome: str, why: str = CHANGES, *, error: ErrorRecord | None = None, sent_bytes: int = 0, failures_before: int = 0
) -> SyncRecord:
    return SyncRecord(
        at=utc(NOON_S),
        began=utc(NOON_S),
        why=why,
        outcome=outcome,
        error=error,
        sent_bytes=sent_bytes,
        failures_before=failures_before,
    )


def test_a_sync_that_sent_what_had_not_left() -> None:
    """It gets a line in a streak too, since its paths are kept; one that sent the same again gets none."""
    for ending in (SyncEnding.FAILED, SyncEnding.SUPERSEDED, SyncEnding.STOPPED):
        again = record(ending, error=BUSY, failures_before=1)
        assert should_record(replace(again, id="abcdef", paths_in="abcdef"), row(BUSY))
        assert not should_record(replace(again, id="abcdef", paths_in="ghijkl"), row(BUSY))
        assert not should_record(again, row(BUSY))


def test_a_record_without_names() -> None:
    """The numbers stay."""
    change = ChangeCounts(added=2, changed=1, first_added="a", first_changed="c")
    named = replace(record(SyncEnding.INITIALIZED), change=change)
    assert without_names(named) == replace(named, change=ChangeCounts(added=2, changed=1))
    bare = record(SyncEnding.FAILED)
    assert without_names(bare) is bare


def row(*errors: ErrorRecord) -> FailureStreak:
    return FailureStreak(len(errors), frozenset(map(kind_of, errors)))


@pytest.mark.parametrize(
    ("ended", "before", "worth"),
    [
        (record(SyncEnding.UNCHANGED, LOOK), row(), False),
        (record(SyncEnding.UNCHANGED, CHANGES), row(), False),
        (record(SyncEnding.UNCHANGED, START), row(), False),
        (record(SyncEnding.UNCHANGED, ASKED), row(), True),
        (record(SyncEnding.UNCHANGED, RETRY), row(BUSY), True),
        (record(SyncEnding.INITIALIZED, LOOK), row(), True),
        (record(SyncEnding.INITIALIZED, CHANGES, error=BUSY), row(BUSY), True),
        (record(SyncEnding.FAILED, CHANGES, error=BUSY), row(), True),
        (record(SyncEnding.FAILED, RETRY, error=BUSY), row(BUSY), False),
        (record(SyncEnding.FAILED, RETRY, error=BUSY, sent_bytes=5), row(BUSY), False),
        (record(SyncEnding.FAILED, ASKED, error=BUSY), row(BUSY), True),
        (record(SyncEnding.FAILED, RETRY, error=GONE), row(BUSY), True),
        (record(SyncEnding.FAILED, RETRY, error=BUSY), row(GONE, BUSY, GONE), False),
        (record(SyncEnding.SUPERSEDED, CHANGES), row(), False),
        (record(SyncEnding.SUPERSEDED, ASKED), row(), False),
        (record(SyncEnding.SUPERSEDED, CHANGES, sent_bytes=1), row(), True),
        (record(SyncEnding.SUPERSEDED, CHANGES, error=BUSY), row(), True),
        (record(SyncEnding.SUPERSEDED, CHANGES, error=BUSY), row(BUSY), False),
        (record(SyncEnding.STOPPED, CHANGES), row(), False),
        (record(SyncEnding.STOPPED, ASKED), row(), True),
        (record(SyncEnding.STOPPED, CHANGES, sent_bytes=1), row(), True),
        (record("a word of a later version", LOOK), row(), False),
    ],
)
def test_what_is_worth_a_line(ended: SyncRecord, before: FailureStreak, worth: bool) -> None:
    """Syncs that sent, were requested, ended a row of failures or failed in a new way get one; others do not."""
    assert should_record(ended, before) is worth


def test_a_row_of_failures() -> None:
    """A row counts all failures in it, keeps their kinds, and ends with any success."""
    one = FailureStreak().after(record(SyncEnding.FAILED, error=BUSY))
    assert one == row(BUSY)
    two = one.after(record(SyncEnding.SUPERSEDED, error=GONE, failures_before=1))
    assert (two.count, two.kinds) == (2, row(BUSY, GONE).kinds)
    assert two.after(record(SyncEnding.STOPPED)) == two
    assert two.after(record(SyncEnding.SUPERSEDED, sent_bytes=9)) == two
    assert two.after(record(SyncEnding.INITIALIZED, error=BUSY)) == FailureStreak()
    assert two.after(record(SyncEnding.UNCHANGED)) == FailureStreak()


def test_the_row_that_a_file_ends_with() -> None:
    """The next line includes the failures that got no line."""
    records = [
        record(SyncEnding.FAILED, error=GONE),
        record(SyncEnding.INITIALIZED, failures_before=40),
        record(SyncEnding.FAILED, error=BUSY),
        record(SyncEnding.FAILED, error=GONE, failures_before=11),
    ]
    assert final_streak(records) == FailureStreak(12, row(BUSY, GONE).kinds)
    assert final_streak(records[:2]) == final_streak([]) == FailureStreak()


def test_the_same_failure_with_other_numbers() -> None:
    """Another size, code or time does not make a new failure; another step or word does."""
    assert kind_of(ErrorRecord("snapshot", "2048 MiB is too large")) == kind_of(
        ErrorRecord("snapshot", "9 MiB is too large")
    )
    assert kind_of(ErrorRecord("upload", "no answer")) != kind_of(ErrorRecord("initialize", "no answer"))
    assert kind_of(ErrorRecord("upload", "no answer")) != kind_of(ErrorRecord("upload", "no route"))


def test_a_server_that_says_something_else_each_time() -> None:
    """A row stops naming new kinds of failure after a while, and goes on counting."""
    now, lines = FailureStreak(), 0
    for number in range(500):
        failure = record(SyncEnding.FAILED, error=ErrorRecord("upload", "x" * number), failures_before=now.count)
        lines += should_record(failure, now)
        now = now.after(failure)
    assert (lines, now.count, len(now.kinds)) == (MOST_KINDS, 500, MOST_KINDS)


def test_the_change_in_numbers() -> None:
    """A line has the number of each kind and the first paths of each, escaped and of bounded length."""
    difference = Difference(["b\x1b[31m", "c"], [], ["deep/" * 100 + "end"])
    change = change_of(difference)
    assert change is not None
    assert (change.added, change.changed, change.removed) == (2, 0, 1)
    assert (change.first_added, change.first_changed) == ("b\\x1b[31m", None)
    assert change.first_removed is not None
    assert len(change.first_removed) == 200
    assert change.first_removed.endswith("deep/end")
    assert change_of(Difference()) == ChangeCounts()
    assert change_of(None) is None
