"""Leftovers in a sandbox: the rule, its bound, and its line on the screen."""

from __future__ import annotations

import pytest

from syncd.model.entry import Entry, Kind
from syncd.sandbox import leftovers
from syncd.sandbox.leftovers import NO_LEFTOVERS, RemovalOutcomes, leftovers_after

FILE = Entry(Kind.FILE, 0o644, 1, 5, digest=b"1")
OTHER = Entry(Kind.FILE, 0o644, 1, 5, digest=b"2")
LINK = Entry(Kind.SYMLINK, 0o777, 1, target="a")
FOLDER = Entry(Kind.DIRECTORY, 0o755, 1)


@pytest.mark.parametrize(
    ("outcomes", "unread", "entries", "files"),
    [
        (RemovalOutcomes(), set(), ["a", "d", "d/l"], 2),
        (RemovalOutcomes(removed={"a", "d", "d/l"}), set(), [], 0),
        (RemovalOutcomes(removed={"d/l"}, changed={"a"}, failed={"d"}), set(), ["a", "d"], 1),
        (RemovalOutcomes(), {"a"}, ["a", "d", "d/l"], 1),
        (RemovalOutcomes(), {"d"}, ["a", "d", "d/l"], 1),
        (RemovalOutcomes(failed={"stay"}), set(), ["a", "d", "d/l", "stay"], 2),
        (
            RemovalOutcomes(changed={"stay"}),
            set(),
            ["a", "d", "d/l"],
            2,
        ),  # by the wanted one itself: it had arrived before
    ],
)
def test_what_stays(outcomes: RemovalOutcomes, unread: set[str], entries: list[str], files: int) -> None:
    """Paths that were not removed are left over; those that could not be read are not counted."""
    held = {"stay": FILE, "a": FILE, "d": FOLDER, "d/l": LINK}
    found = leftovers_after(NO_LEFTOVERS, [held], {"stay": FILE}, outcomes, unread=unread)
    assert list(found.entries) == entries
    assert found.files == files
    assert found.changed == set(outcomes.changed) & set(entries)


def test_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound, paths are counted instead of named, and the count does not go down by itself."""
    monkeypatch.setattr(leftovers, "MOST_NAMED", 5)
    held = {f"f{number}": FILE for number in range(8)} | {"d": FOLDER}
    found = leftovers_after(NO_LEFTOVERS, [held], {}, RemovalOutcomes(), unread=())
    assert (len(found.entries), found.unnamed, found.files) == (5, 3, 8)
    found = leftovers_after(found, [{}], {"f0": FILE}, RemovalOutcomes(), unread=())
    assert (len(found.entries), found.unnamed, found.files) == (4, 3, 7)
    found = leftovers_after(found, [{}], held, RemovalOutcomes(), unread=())
    assert (found.entries, found.unnamed, found.files) == ({}, 3, 3)
