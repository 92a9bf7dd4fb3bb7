"""Leftovers in a sandbox: the rule, its bound, and its line on the screen."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from syncd.cli.status.screen import DaemonEnding, StatusContext, screen
from syncd.cli.status.text import plain
from syncd.sandbox.leftovers import NO_LEFTOVERS, Leftovers, RemovalOutcomes, leftovers_after, union
from syncd.scan.entry import Entry, Kind
from syncd.sync.status_document import SandboxName, State, Status

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


def test_what_came_back() -> None:
    """It is forgotten, with its outcome."""
    before = Leftovers({"a": [FILE], "b": [FILE]}, frozenset("ab"), 0, 2)
    assert leftovers_after(before, [{}], {"a": OTHER}, RemovalOutcomes(), unread=()) == Leftovers(
        {"b": [FILE]}, frozenset("b"), 0, 1
    )
    assert leftovers_after(before, [{}], {"a": OTHER, "b": FOLDER}, RemovalOutcomes(), unread=()) == NO_LEFTOVERS


def test_each_version_once() -> None:
    """All versions of one path that may be there are kept."""
    found = leftovers_after(NO_LEFTOVERS, [{"a": FILE}, {"a": OTHER}, {"a": FILE}], {}, RemovalOutcomes(), unread=())
    assert found.entries == {"a": [FILE, OTHER]}
    assert found.files == 1


def test_the_bound() -> None:
    """Beyond the bound, paths are counted instead of named, and the count does not go down by itself."""
    held = {f"f{number}": FILE for number in range(8)} | {"d": FOLDER}
    found = leftovers_after(NO_LEFTOVERS, [held], {}, RemovalOutcomes(), unread=(), max_named=5)
    assert (len(found.entries), found.unnamed, found.files) == (5, 3, 8)
    found = leftovers_after(found, [{}], {"f0": FILE}, RemovalOutcomes(), unread=(), max_named=5)
    assert (len(found.entries), found.unnamed, found.files) == (4, 3, 7)
    found = leftovers_after(found, [{}], held, RemovalOutcomes(), unread=(), max_named=5)
    assert (found.entries, found.unnamed, found.files) == ({}, 3, 3)


def test_both_may_be_true() -> None:
    """The union of two records forgets nothing."""
    one, other = Leftovers({"a": [FILE]}, frozenset("a"), 1, 2), Leftovers({"b": [FILE]}, frozenset(), 0, 1)
    assert union(one, other) == Leftovers({"a": [FILE], "b": [FILE]}, frozenset("a"), 1, 2)


@pytest.mark.parametrize(
    ("count", "line"),
    [
        (1, "  still there 1 file gone or left out here is there (sandbox.deletions)"),
        (12_345, "  still there 12,345 files gone or left out here are there (sandbox.deletions)"),
    ],
)
def test_the_status_line(count: int, line: str) -> None:
    """Leftovers are a line and no warning, as they are configured; without any there is no line."""
    where = SandboxName("box", "https://api.klavis.ai", "us")
    status = Status(running=True, pid=1, state=State.WATCHING, workspace="/w", sandbox=where)
    beside = StatusContext("0.1.0", DaemonEnding.CLEAN, None, None)
    assert line in [plain(row) for row in screen(replace(status, lingering=count), beside, 0.0, 79)]
    assert "still there" not in "".join(plain(row) for row in screen(status, beside, 0.0, 79))
