"""The paths that syncd's own entries block in the sandbox, and the paths that are left out."""

from __future__ import annotations

import pytest

from syncd.sandbox.blocked_paths_rules import hindered, in_the_way, kinds_changed, mark, warnings, within_of, without
from syncd.scan.manifest import Entry, Kind, Manifest

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
    """A directory neither replaces nor is replaced by another kind; files and links replace each other."""
    wanted = {} if now is None else {"p": now}
    assert hindered({"p": [old]}, wanted) == ({"p"} if expected else set())
    assert hindered({"p": [now or old, old]}, wanted) == ({"p"} if expected else set())


def test_in_the_way() -> None:
    """Own versions of the path and of all below it are in the way; other deleted paths are not."""
    wanted = {"d": FILE, "f": FOLDER, "f/new": FILE, "sub": FOLDER, "sub/d": LINK}
    gone = ["d", "d/a", "d/sub", "d/sub/b", "f", "f/old", "sub/d", "sub/d/x", "sub/old", "old", "old/x", "dd/x"]
    found = in_the_way({path: [FILE] for path in gone}, wanted)
    assert list(found) == ["d", "d/a", "d/sub", "d/sub/b", "f", "sub/d", "sub/d/x"]


@pytest.mark.parametrize(
    ("held", "lingering", "expected"),
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
def test_kinds_changed(held: list[Manifest], lingering: dict[str, list[Entry]], *, expected: bool) -> None:
    """A wanted path that any record has as another kind has changed its kind."""
    assert kinds_changed(held, {"p": FILE, "q": FILE}, lingering) is expected


def test_parts() -> None:
    """A blocked path includes all below it, and no path that only begins alike."""
    manifest = {"a": FOLDER, "a/b": FILE, "ab": FILE, "c": FILE}
    aside = within_of(manifest, {"a"})
    assert list(aside) == ["a", "a/b"]
    assert list(without(manifest, aside)) == ["ab", "c"]
    assert within_of(manifest, ()) == {}


def test_the_fingerprint() -> None:
    """It changes with any local change, whatever is known of the content, in any order."""
    before = {"a": FILE, "b": LINK}
    assert mark({"b": LINK, "a": FILE}) == mark(before)
    assert mark({"a": Entry(Kind.FILE, 0o644, 1, 5), "b": LINK}) == mark(before)
    for now in ({"a": OTHER_FILE, "b": LINK}, {"a": FILE}, {"a": FILE, "b": FILE}, {**before, "c": FILE}):
        assert mark(now) != mark(before)


def test_warnings() -> None:
    """Fifty paths have a warning of their own, in order, with what to do; the others are counted."""
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
        "mend those that are named, and run `syncd push --force`"
    )
    many = warnings({f"{number:03}": "d" for number in reversed(range(1_060))})
    assert [many[0].key, many[49].key, many[50].key] == ["blocked:000", "blocked:049", "blocked"]
    assert many[50].what.startswith("1,010 more paths are not sent")
    assert "something of another kind may have its place" in warnings({"a": "what?"})[0].what
