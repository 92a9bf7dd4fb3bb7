"""The rules for blocked paths: what blocks a path, and which paths are withheld."""

from __future__ import annotations

import pytest

from syncd.sandbox.blocked_paths_rules import (
    blocked_by,
    entries_within,
    fingerprint,
    kinds_changed,
    obstructing,
    warnings,
    without,
)
from syncd.scan.entry import Entry, Kind
from syncd.scan.manifest import Manifest

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


@pytest.mark.parametrize(
    ("held", "leftovers", "expected"),
    [
        ([{"p": FILE, "q": FILE}], {}, False),
        ([{"p": OTHER_FILE}], {}, False),
        ([{"gone": FOLDER}], {}, False),
        ([{}], {}, False),
        ([{"p": FOLDER}], {}, True),
        ([{"p": LINK}], {}, True),
        ([{"p": FILE}, {"p": FOLDER}], {}, True),
        ([{}, {}], {"p": [OTHER_FILE]}, False),
        ([], {"gone": [FOLDER]}, False),
        ([], {"p": [OTHER_FILE, FOLDER]}, True),
    ],
)
def test_kinds_changed(held: list[Manifest], leftovers: dict[str, list[Entry]], *, expected: bool) -> None:
    """The kind has changed if any record holds a wanted path with another kind."""
    assert kinds_changed(held, {"p": FILE, "q": FILE}, leftovers) is expected


def test_parts() -> None:
    """A blocked path includes all below it, and no path that only begins alike."""
    manifest = Manifest({"a": FOLDER, "a/b": FILE, "ab": FILE, "c": FILE})
    aside = entries_within(manifest, {"a"})
    assert list(aside) == ["a", "a/b"]
    assert list(without(manifest, aside)) == ["ab", "c"]
    assert entries_within(manifest, ()) == {}


def test_the_fingerprint() -> None:
    """The fingerprint shows any change here, without the content, in any order."""
    before = {"a": FILE, "b": LINK}
    assert fingerprint({"b": LINK, "a": FILE}) == fingerprint(before)
    assert fingerprint({"a": Entry(Kind.FILE, 0o644, 1, 5), "b": LINK}) == fingerprint(before)
    for now in ({"a": OTHER_FILE, "b": LINK}, {"a": FILE}, {"a": FILE, "b": FILE}, {**before, "c": FILE}):
        assert fingerprint(now) != fingerprint(before)


def test_warnings() -> None:
    """Fifty paths are named, in order, each with its remedy; the others are counted."""
    (closed,) = warnings({"a/b": "r"})
    assert str(closed) == (
        "'a/b' is not sent: in the sandbox its directory is read-only: make it writable there; "
        "then run `syncd push --force`"
    )
    assert str(warnings({"a": "d"})[0]) == (
        "'a' is not sent: in the sandbox a directory has its place: move that away there, or rename it here; "
        "then run `syncd push --force`"
    )
    assert len(warnings({f"{number:03}": "d" for number in range(50)})) == 50
    one_more = warnings({f"{number:03}": "d" for number in range(51)})[50]
    assert str(one_more) == (
        "1 more paths are not sent, as their places in the sandbox are taken: "
        "free the places of those that are named, then run `syncd push --force`"
    )
    many = warnings({f"{number:03}": "d" for number in reversed(range(1_060))})
    assert [many[0].key, many[49].key, many[50].key] == ["blocked:000", "blocked:049", "blocked"]
    assert many[50].what.startswith("1,010 more paths are not sent")
    assert "something of another kind may have its place" in warnings({"a": "what?"})[0].what
