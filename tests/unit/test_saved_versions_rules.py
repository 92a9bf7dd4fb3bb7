"""Which of the sandbox's entries can be saved, the ids of versions, and which versions expire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from syncd.core.choices import SAVED_BYTES, SAVED_DAYS
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry, is_savable
from syncd.sandbox.saved_versions import SavedVersion, Why, expired, next_count, saved_at, version_id

NOW = datetime(2026, 11, 26, 4, 1, 12, tzinfo=UTC)


def version(age: timedelta, **contents: int) -> SavedVersion:
    """Return a version with files of these sizes; the name is the content."""
    at = NOW - age
    paths = {
        name: Entry(Kind.FILE, size_bytes=size_bytes, digest=name.encode()) for name, size_bytes in contents.items()
    }
    return SavedVersion(version_id(at, 0), at, Why.OVERWRITTEN, "box", at, paths, days=age.days)


def days(number: float) -> timedelta:
    return timedelta(days=number)


@pytest.mark.parametrize(
    ("entry", "savable"),
    [
        (SeenEntry(Kind.FILE, copy="/copies/0"), True),
        (SeenEntry(Kind.FILE), False),
        (SeenEntry(Kind.FILE, unstable=True), False),
        (SeenEntry(Kind.DIRECTORY), True),
        (SeenEntry(Kind.SYMLINK, target="a"), True),
        (SeenEntry(Kind.OTHER), False),
        (SeenEntry(Kind.UNREAD), False),
        (ABSENT, False),
    ],
)
def test_savable(entry: SeenEntry, *, savable: bool) -> None:
    """A file needs its content; a socket, and what is not there, cannot be saved."""
    assert is_savable(entry) is savable


def test_an_id_is_its_time() -> None:
    """Ids are short, sort by time, then by number, and give their time back."""
    assert version_id(NOW, 0x3F) == "20261126-040112-3f"
    assert saved_at("20261126-040112-3f") == NOW
    ids = [version_id(NOW + timedelta(seconds=second), number) for second in range(3) for number in range(256)]
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "x",
        "../20261126-040112-3f",
        "20261126-040112-3f/..",
        "20261126-040112-3f\n",
        "20261126-040112-",
        "20261326-040112-3f",
        "20261126-046112-3f",
        "20261126-040112-3g",
        "20261126-040112-3f.damaged",
    ],
)
def test_no_id(text: str) -> None:
    """Whatever has not the form of an id, or no time in it, is none: an id is used as a file's name."""
    assert saved_at(text) is None


def test_old_versions_expire() -> None:
    """After thirty days, also the newest; nothing younger."""
    young, old = version(days(SAVED_DAYS - 1), a=1), version(days(SAVED_DAYS), b=1)
    assert expired([young, old]) == [old]
    assert expired([old]) == [old]


@pytest.mark.parametrize(
    ("passed", "counted"),
    [
        (days(0.9), (3, NOW)),
        (days(1), (4, NOW + days(1))),
        (days(90), (4, NOW + days(90))),
        (-days(9), (3, NOW - days(9))),
    ],
)
def test_a_day_is_counted_at_a_time(passed: timedelta, counted: tuple[int, datetime]) -> None:
    """However far the clock jumps; one that was set back counts from there."""
    assert next_count(3, NOW, NOW + passed) == counted


def test_the_oldest_go_first_for_size() -> None:
    """Until the rest fits; an older small one does not outlive a newer large one."""
    small, large, newest = version(days(3), a=1), version(days(2), b=SAVED_BYTES), version(days(1), c=1)
    assert expired([newest, small, large]) == [small, large]
    assert expired([version(days(2), b=SAVED_BYTES - 1), newest]) == []
    assert expired([]) == []


def test_the_newest_never_goes_for_size() -> None:
    """Even if it alone is too large."""
    older, newest = version(days(2), a=1), version(days(1), b=SAVED_BYTES + 1)
    assert expired([older, newest]) == [older]


def test_a_content_counts_once() -> None:
    """Versions that share a content share its place on the disk."""
    versions = [version(days(age), same=SAVED_BYTES) for age in (1, 2, 3)]
    assert expired(versions) == []
    more = version(days(4), same=SAVED_BYTES, other=1)
    assert expired([*versions, more]) == [more]
