"""Which syncs are worth a line of the history, and what makes a row of failures one."""

from __future__ import annotations

import pytest
from clock import NOON_S

from syncd.core.clock import utc
from syncd.report.history import (
    MOST_KINDS,
    START,
    Change,
    Ending,
    Mishap,
    Record,
    Row,
    change_of,
    kind_of,
    row_at_the_end,
    worth_a_line,
)
from syncd.scan.manifest import Difference
from syncd.sync.sync_reason import SyncReason

BUSY = Mishap("upload", "the bucket answered 503")
GONE = Mishap("initialize", "no such sandbox")
CHANGES, ASKED, LOOK, RETRY = (
    reason.value for reason in (SyncReason.CHANGE, SyncReason.ORDER, SyncReason.RESCAN, SyncReason.RETRY)
)


def record(
    outcome: str, why: str = CHANGES, *, error: Mishap | None = None, sent_bytes: int = 0, failures_before: int = 0
) -> Record:
    return Record(
        at=utc(NOON_S),
        began=utc(NOON_S),
        why=why,
        outcome=outcome,
        error=error,
        sent_bytes=sent_bytes,
        failures_before=failures_before,
    )


def row(*errors: Mishap) -> Row:
    return Row(len(errors), frozenset(map(kind_of, errors)))


@pytest.mark.parametrize(
    ("ended", "before", "worth"),
    [
        (record(Ending.UNCHANGED, LOOK), row(), False),
        (record(Ending.UNCHANGED, CHANGES), row(), False),
        (record(Ending.UNCHANGED, START), row(), False),
        (record(Ending.UNCHANGED, ASKED), row(), True),
        (record(Ending.UNCHANGED, RETRY), row(BUSY), True),
        (record(Ending.INITIALIZED, LOOK), row(), True),
        (record(Ending.INITIALIZED, CHANGES, error=BUSY), row(BUSY), True),
        (record(Ending.FAILED, CHANGES, error=BUSY), row(), True),
        (record(Ending.FAILED, RETRY, error=BUSY), row(BUSY), False),
        (record(Ending.FAILED, RETRY, error=BUSY, sent_bytes=5), row(BUSY), False),
        (record(Ending.FAILED, ASKED, error=BUSY), row(BUSY), True),
        (record(Ending.FAILED, RETRY, error=GONE), row(BUSY), True),
        (record(Ending.FAILED, RETRY, error=BUSY), row(GONE, BUSY, GONE), False),
        (record(Ending.SUPERSEDED, CHANGES), row(), False),
        (record(Ending.SUPERSEDED, ASKED), row(), False),
        (record(Ending.SUPERSEDED, CHANGES, sent_bytes=1), row(), True),
        (record(Ending.SUPERSEDED, CHANGES, error=BUSY), row(), True),
        (record(Ending.SUPERSEDED, CHANGES, error=BUSY), row(BUSY), False),
        (record(Ending.STOPPED, CHANGES), row(), False),
        (record(Ending.STOPPED, ASKED), row(), True),
        (record(Ending.STOPPED, CHANGES, sent_bytes=1), row(), True),
        (record("a word of a later version", LOOK), row(), False),
    ],
)
def test_what_is_worth_a_line(ended: Record, before: Row, worth: bool) -> None:
    """Syncs that sent, were asked for, ended a row of failures or failed in a new way; nothing else."""
    assert worth_a_line(ended, before) is worth


def test_a_row_of_failures() -> None:
    """It grows with all that failed on its way, keeps its kinds, and ends with any success."""
    one = Row().after(record(Ending.FAILED, error=BUSY))
    assert one == row(BUSY)
    two = one.after(record(Ending.SUPERSEDED, error=GONE, failures_before=1))
    assert (two.count, two.kinds) == (2, row(BUSY, GONE).kinds)
    assert two.after(record(Ending.STOPPED)) == two
    assert two.after(record(Ending.SUPERSEDED, sent_bytes=9)) == two
    assert two.after(record(Ending.INITIALIZED, error=BUSY)) == Row()
    assert two.after(record(Ending.UNCHANGED)) == Row()


def test_the_row_that_a_file_ends_with() -> None:
    """Failures that got no line are counted by what the next line says of them."""
    records = [
        record(Ending.FAILED, error=GONE),
        record(Ending.INITIALIZED, failures_before=40),
        record(Ending.FAILED, error=BUSY),
        record(Ending.FAILED, error=GONE, failures_before=11),
    ]
    assert row_at_the_end(records) == Row(12, row(BUSY, GONE).kinds)
    assert row_at_the_end(records[:2]) == row_at_the_end([]) == Row()


def test_the_same_failure_with_other_numbers() -> None:
    """Sizes, codes and times in a message do not make a new failure of it; another step or word does."""
    assert kind_of(Mishap("snapshot", "2048 MiB is too large")) == kind_of(Mishap("snapshot", "9 MiB is too large"))
    assert kind_of(Mishap("upload", "no answer")) != kind_of(Mishap("initialize", "no answer"))
    assert kind_of(Mishap("upload", "no answer")) != kind_of(Mishap("upload", "no route"))


def test_a_server_that_says_something_else_each_time() -> None:
    """A row stops naming new kinds of failure after a while, and goes on counting."""
    now, lines = Row(), 0
    for number in range(500):
        failure = record(Ending.FAILED, error=Mishap("upload", "x" * number), failures_before=now.count)
        lines += worth_a_line(failure, now)
        now = now.after(failure)
    assert (lines, now.count, len(now.kinds)) == (MOST_KINDS, 500, MOST_KINDS)


def test_the_change_in_numbers() -> None:
    """How many of each kind, and the first of each, harmless for a terminal and of bounded length."""
    difference = Difference(["b\x1b[31m", "c"], [], ["deep/" * 100 + "end"])
    change = change_of(difference)
    assert change is not None
    assert (change.added, change.changed, change.removed) == (2, 0, 1)
    assert (change.first_added, change.first_changed) == ("b\\x1b[31m", None)
    assert change.first_removed is not None
    assert len(change.first_removed) == 200
    assert change.first_removed.endswith("deep/end")
    assert change_of(Difference()) == Change()
    assert change_of(None) is None
