"""The paths to remove in the sandbox."""

from __future__ import annotations

import pytest

from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.sandbox.leftovers import paths_to_delete

FILE = Entry(Kind.FILE, 0o644, 1, 5, digest=b"d" * 32)
FOLDER = Entry(Kind.DIRECTORY, 0o755, 1)
LINK = Entry(Kind.SYMLINK, 0o777, 1, target="x")


@pytest.mark.parametrize(
    ("held", "wanted", "unread", "gone"),
    [
        ({"a": FILE}, {"a": FILE}, (), []),
        ({"a": FILE}, {}, (), ["a"]),
        ({"a": FILE}, {"a": FILE, "b": FILE}, (), []),
        ({"a": FILE}, {"a": Entry(Kind.FILE, 0o600, 9, 7)}, (), []),
        ({"d": FOLDER, "d/e": FOLDER, "d/e/f": FILE}, {}, (), ["d/e/f", "d/e", "d"]),
        ({"d": FOLDER, "d/f": FILE}, {"d": FILE}, (), ["d/f", "d"]),
        ({"f": FILE}, {"f": FOLDER, "f/g": FILE}, (), ["f"]),
        ({"f": LINK}, {"f": FILE}, (), ["f"]),
        ({"d": FOLDER, "d/f": FILE, "g": FILE}, {}, {"d"}, ["g"]),
        ({"d": FOLDER, "d/f": FILE}, {"d": FOLDER}, {"d/f"}, []),
        ({"dd": FILE}, {}, {"d"}, ["dd"]),
        ({".git": FOLDER, ".git/HEAD": FILE, "a": FILE}, {}, (), ["a", ".git"]),
        ({".git": FOLDER, ".git/HEAD": FILE}, {".git": FOLDER}, (), [".git/HEAD"]),
        ({"d": FOLDER, "d/.git": FOLDER, "d/.git/HEAD": FILE}, {"d": FOLDER}, (), ["d/.git"]),
        ({"d": FOLDER, "d/.git": FOLDER, "d/.git/HEAD": FILE}, {}, (), ["d/.git/HEAD", "d/.git", "d"]),
        ({".git": FILE}, {}, (), [".git"]),
    ],
)
def test_paths_to_remove(held: Manifest, wanted: Manifest, unread: set[str], gone: list[str]) -> None:
    """Deleted paths and those of another kind are removed, contents first; never those that could not be read."""
    found = paths_to_delete([held], wanted, unread, {})
    assert list(found) == gone
    assert all(found[path] == [held[path]] for path in gone)
