"""Which of the sandbox's entries can be saved, the ids of versions, and which versions expire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from syncd.core.choices import SAVED_BYTES
from syncd.model.entry import Entry, Kind
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
