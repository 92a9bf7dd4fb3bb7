"""What the next scan has to examine, and what the next sync has to read."""

from __future__ import annotations

from math import inf

from syncd.watch.changes import (
    MAX_DIRTY,
    Burst,
    Changes,
    DirtyDirectories,
    due_s,
    extend,
    joined,
    unfinished,
)


def test_what_are_changes() -> None:
    """A directory, or that there may be others; a written file has no scan begin."""
    found = [Changes(), Changes(written=frozenset("f")), Changes(dirty=frozenset("d")), Changes(rescan=True)]
    assert [bool(each) for each in found] == [False, False, True, True]


def test_the_directories_of_a_scan() -> None:
    """At first all, then those that were reported, once; all again where nobody knows which, or a full scan is due."""
    dirty = DirtyDirectories()
    assert dirty.take(now_s=5.0) is None
    dirty.add(Changes(dirty=frozenset(("a", "b"))))
    dirty.add(Changes(dirty=frozenset(("c",))))
    assert [dirty.take(), dirty.take()] == [{"a", "b", "c"}, frozenset()]
    assert [dirty.take(4.9), dirty.take(5.0, now_s=7.0), dirty.take(5.0), dirty.take(7.0)] == [set(), None, set(), None]
    assert dirty.take(-inf) == set()  # all were scanned at 0 by now
    assert dirty.take(0.0, 9.0) is None
    for changes in (Changes(rescan=True), Changes(dirty=frozenset(map(str, range(MAX_DIRTY + 1))))):
        dirty.add(changes)
        assert [dirty.take(), dirty.take()] == [None, set()]
    dirty.add(Changes(dirty=frozenset(map(str, range(MAX_DIRTY)))))
    assert len(dirty.take() or ()) == MAX_DIRTY


def test_when_a_burst_is_due() -> None:
    """After the quiet time since its last change, and the longest wait since its first."""
    burst = extend(extend(None, 1.0), 3.0)
    assert burst == Burst(1.0, 3.0)
    assert (due_s(burst, 2.0, 10.0), due_s(burst, 2.0, 3.5)) == (5.0, 4.5)


def test_two_bursts_are_one() -> None:
    """It begins with the earlier one, and ends with the last change of both."""
    burst = Burst(1.0, 3.0)
    assert joined(burst, Burst(2.0, 4.0)) == Burst(1.0, 4.0)
    assert joined(burst, Burst(-inf, -inf)) == burst
    assert joined(burst, None) == burst


def test_when_a_burst_goes_on_in_what_a_scan_found() -> None:
    """Until the quiet time since that is over, and never longer than the longest wait since its first change."""
    burst = Burst(1.0, 3.0)
    assert unfinished(burst, 4.0, 5.9, 2.0, 10.0) == Burst(1.0, 4.0)
    assert unfinished(burst, 4.0, 6.0, 2.0, 10.0) is None
    assert unfinished(burst, 4.0, 4.4, 2.0, 3.5) == Burst(1.0, 4.0)
    assert unfinished(burst, 4.0, 4.5, 2.0, 3.5) is None
    assert unfinished(burst, -inf, 5.0, 2.0, 10.0) is None
