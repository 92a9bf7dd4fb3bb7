"""The rules for blocked paths: what blocks a path, and which paths are withheld."""

from __future__ import annotations

import pytest

from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.sandbox.blocked_paths_rules import (
    blocked_by,
    entries_within,
    obstructing,
    without,
)

FILE = Entry(Kind.FILE, 0o644, 1, 5, digest=b"d")
OTHER_FILE = Entry(Kind.FILE, 0o644, 2, 6, digest=b"e")
FOLDER = Entry(Kind.DIRECTORY, 0o755, 1)
LINK = Entry(Kind.SYMLINK, 0o777, 1, target="t")


@pytest.mark.parametrize(
    ("old", "now", "expected"),
    [
        (FOLDER, FILE, True),
        (FOLDER, LINK, True),
        (FILE, FOLDER, True),
        (LINK, FOLDER, True),
        (FILE, LINK, False),
        (LINK, FILE, False),
        (FILE, OTHER_FILE, False),
        (FOLDER, FOLDER, False),
        (FILE, None, False),
    ],
)
def test_hindered(old: Entry, now: Entry | None, *, expected: bool) -> None:
    """A directory replaces nothing and nothing replaces it; files and links replace one another."""
    wanted = {} if now is None else {"p": now}
    assert blocked_by({"p": [old]}, wanted) == ({"p"} if expected else set())
    assert blocked_by({"p": [now or old, old]}, wanted) == ({"p"} if expected else set())


def test_in_the_way() -> None:
    """The versions of the path itself and of all below it block it; other deleted paths do not."""
    wanted = {"d": FILE, "f": FOLDER, "f/new": FILE, "sub": FOLDER, "sub/d": LINK}
    gone = ["d", "d/a", "d/sub", "d/sub/b", "f", "f/old", "sub/d", "sub/d/x", "sub/old", "old", "old/x", "dd/x"]
    found = obstructing({path: [FILE] for path in gone}, wanted)
    assert list(found) == ["d", "d/a", "d/sub", "d/sub/b", "f", "sub/d", "sub/d/x"]


def test_parts() -> None:
    """A blocked path includes all below it, and no path that only begins alike."""
    manifest = Manifest({"a": FOLDER, "a/b": FILE, "ab": FILE, "c": FILE})
    aside = entries_within(manifest, {"a"})
    assert list(aside) == ["a", "a/b"]
    assert list(without(manifest, aside)) == ["ab", "c"]
    assert entries_within(manifest, ()) == {}
