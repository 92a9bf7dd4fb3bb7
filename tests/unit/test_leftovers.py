"""Leftovers in a sandbox, and what of them has a wanted path's place: the rules."""

from __future__ import annotations

import pytest

from syncd.model.entry import Entry, Kind
from syncd.sandbox.leftovers import NO_LEFTOVERS, leftovers_after, obstructed_by, obstructing

FILE = Entry(Kind.FILE, 0o644, 1, 5, digest=b"1")
LINK = Entry(Kind.SYMLINK, 0o777, 1, target="a")
FOLDER = Entry(Kind.DIRECTORY, 0o755, 1)


@pytest.mark.parametrize(
    ("gone", "failed", "unread", "entries", "files"),
    [
        ((), (), set(), ["a", "d", "d/l"], 2),
        ({"a", "d", "d/l"}, (), set(), [], 0),
        ({"d/l"}, {"d"}, set(), ["a", "d"], 1),
        ((), (), {"a"}, ["a", "d", "d/l"], 1),
        ((), (), {"d"}, ["a", "d", "d/l"], 1),
        ((), {"stay"}, set(), ["a", "d", "d/l", "stay"], 2),
    ],
)
def test_what_stays(gone: set[str], failed: set[str], unread: set[str], entries: list[str], files: int) -> None:
    """Paths that were not removed are left over; those that could not be read are not counted."""
    held = {"stay": FILE, "a": FILE, "d": FOLDER, "d/l": LINK}
    found = leftovers_after(NO_LEFTOVERS, [held], {"stay": FILE}, gone=gone, failed=failed, unread=unread)
    assert list(found.entries) == entries
    assert found.files == files
    assert found.without(entries) == NO_LEFTOVERS


@pytest.mark.parametrize(
    ("there", "now", "expected"),
    [
        (FOLDER, FILE, True),
        (FOLDER, LINK, True),
        (FILE, FOLDER, True),
        (LINK, FOLDER, True),
        (FILE, LINK, False),
        (LINK, FILE, False),
        (FILE, FILE, False),
        (FOLDER, FOLDER, False),
        (FILE, None, False),
    ],
)
def test_what_has_a_place(there: Entry, now: Entry | None, *, expected: bool) -> None:
    """A directory replaces nothing and nothing replaces it; files and links replace one another."""
    wanted = {} if now is None else {"p": now}
    assert obstructed_by({"p": [there.kind]}, wanted) == ({"p": there.kind} if expected else {})
    kinds = [(now or there).kind, there.kind]
    assert obstructed_by({"p": kinds}, wanted) == ({"p": there.kind} if expected else {})


def test_in_the_way() -> None:
    """The versions of the path itself and of all below it are in its way; other deleted paths are not."""
    wanted = {"d": FILE, "f": FOLDER, "f/new": FILE, "sub": FOLDER, "sub/d": LINK}
    gone = ["d", "d/a", "d/sub", "d/sub/b", "f", "f/old", "sub/d", "sub/d/x", "sub/old", "old", "old/x", "dd/x"]
    found = obstructing({path: [FILE] for path in gone}, wanted)
    assert list(found) == ["d", "d/a", "d/sub", "d/sub/b", "f", "sub/d", "sub/d/x"]
