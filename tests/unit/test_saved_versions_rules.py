"""How the days of a saved version are counted, and which versions expire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from syncd.core.choices import SAVED_BYTES
from syncd.model.entry import Entry, Kind
from syncd.sandbox.saved_versions import SavedVersion, Why, counted, expired

NOW = datetime(2026, 11, 26, 4, 1, 12, tzinfo=UTC)


def version(age: timedelta, **contents: int) -> SavedVersion:
    """Return a version with files of these sizes; the name is the content."""
    at = NOW - age
    paths = {
        name: Entry(Kind.FILE, size_bytes=size_bytes, digest=name.encode()) for name, size_bytes in contents.items()
    }
    return SavedVersion(f"{at:%Y%m%d}", at, Why.OVERWRITTEN, "box", int(at.timestamp()), paths, days=age.days)


def days(number: float) -> timedelta:
    return timedelta(days=number)


@pytest.mark.parametrize(
    ("passed", "days_counted", "is_counted_now"),
    [(days(0.9), 3, False), (days(1), 4, True), (days(90), 4, True), (-days(9), 3, True)],
)
def test_a_day_is_counted_at_a_time(passed: timedelta, days_counted: int, is_counted_now: bool) -> None:
    """However far the clock jumps; one that was set back counts from there."""
    before, now_s = version(days(3)), (NOW - days(3) + passed).timestamp()
    now = counted(before, now_s)
    assert (now.days, now.counted_at_s) == (days_counted, int(now_s) if is_counted_now else before.counted_at_s)


def test_the_oldest_go_first_for_size() -> None:
    """Until the rest fits; an older small one does not outlive a newer large one."""
    small, large, newest = version(days(3), a=1), version(days(2), b=SAVED_BYTES), version(days(1), c=1)
    assert expired([newest, small, large]) == [small, large]
    assert expired([version(days(2), b=SAVED_BYTES - 1), newest]) == []
    assert expired([]) == []
