"""What is to be removed in a sandbox, what is left over there, and what is in the way of what is wanted."""

from __future__ import annotations

import pytest

from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.model.reconcile import left_over, obstructed_by, obstructing, paths_to_delete

FILE, OTHER = Entry(Kind.FILE, 0o644, 1, 3, digest=b"one"), Entry(Kind.FILE, 0o644, 2, 5, digest=b"other")
DIRECTORY, LINK = Entry(Kind.DIRECTORY, 0o755), Entry(Kind.SYMLINK, target="f")
KINDS = {"f": FILE, "o": OTHER, "d": DIRECTORY, "l": LINK}


def manifest(text: str) -> Manifest:
    """`a:d a/b:f` has a directory and a file in it."""
    return Manifest({path: KINDS[kind] for path, _, kind in (word.partition(":") for word in text.split())})


@pytest.mark.parametrize(
    ("held", "wanted", "unread", "leftovers", "deleted"),
    [
        ("a:f b:f", "a:f b:f", "", "", ""),
        ("a:f b:f", "a:o", "", "", "b:f"),
        ("d:d d/a:f d/e:d d/e/b:f", "", "", "", "d/e/b:f d/e:d d/a:f d:d"),
        ("a:f", "a:d a/b:f", "", "", "a:f"),
        ("a:f", "a:l", "", "", "a:f"),
        ("a:f d:d d/b:f", "", "d", "", "a:f"),
        ("a:f", "", "", "b:f", "b:f a:f"),
        ("a:f", "a:f b:o c:d", "", "b:f c:f", "c:f"),
        # Of a repository a file may go, or all with the folder around it; what is in it does not go with it alone.
        (".git:d .git/a:f .git/b:f", ".git:d .git/a:f", "", "", ".git/b:f"),
        (".git:d .git/a:f f:f", "f:f", "", "", ".git:d"),
        ("d:d d/.git:d d/.git/a:f", "d:d", "", "", "d/.git:d"),
        ("d:d d/.git:d d/.git/a:f", "", "", "", "d/.git/a:f d/.git:d d:d"),
        ("", "d:d", "", "d/.git/a:f", ""),
        ("d:d d/.git:d d/.git/m:d d/.git/m/.git:d d/.git/m/.git/a:f", "d:d", "", "", "d/.git:d"),
    ],
)
def test_what_is_to_be_removed(held: str, wanted: str, unread: str, leftovers: str, deleted: str) -> None:
    """The content of a directory goes before it."""
    found = paths_to_delete([manifest(held), manifest(leftovers)], manifest(wanted), unread.split())
    expected = [(path, [KINDS[kind]]) for path, _, kind in (word.partition(":") for word in deleted.split())]
    assert [*found.items()] == expected


def test_each_version_that_may_be_there_is_named() -> None:
    """Of the base, and of what was sent and not answered."""
    found = paths_to_delete([manifest("a:f"), manifest("a:o")], Manifest(), ())
    assert found == {"a": [FILE, OTHER]}


@pytest.mark.parametrize(
    ("wanted", "gone", "failed", "left"),
    [
        ("a:f d:d d/b:f x:f", "", "", ""),
        ("", "", "", "a d d/b x"),
        ("", "a d/b", "d", "d x"),
        ("", "a d d/b x", "", ""),
        ("a:d", "", "a y", "a d d/b x"),
        ("a:d", "", "", "d d/b x"),
    ],
)
def test_what_is_left_over(wanted: str, gone: str, failed: str, left: str) -> None:
    """What was neither removed nor is wanted, and another kind of what is wanted that could not be removed."""
    found = left_over(manifest("a:f d:d d/b:f x:f"), manifest(wanted), gone.split(), failed.split())
    assert list(found) == left.split()


@pytest.mark.parametrize(
    ("wanted", "in_the_way"),
    [("", ""), ("a:f", "a"), ("d:d", "d"), ("d:f", "d d/b"), ("d:d d/b:f", "d d/b"), ("d/b:f", "d/b")],
)
def test_what_has_a_wanted_place(wanted: str, in_the_way: str) -> None:
    """Also what is below a path that is to be no directory."""
    found = {path: [entry] for path, entry in manifest("a:f d:d d/b:f").items()}
    assert set(obstructing(found, manifest(wanted))) == set(in_the_way.split())


@pytest.mark.parametrize(
    ("kind", "wanted", "is_obstructed"),
    [
        (Kind.FILE, "a:f", False),
        (Kind.FILE, "a:l", False),
        (Kind.SYMLINK, "a:f", False),
        (Kind.FILE, "a:d", True),
        (Kind.DIRECTORY, "a:l", True),
        (Kind.DIRECTORY, "a:d", False),
        (Kind.DIRECTORY, "b:f", False),
    ],
)
def test_a_directory_is_replaced_by_nothing_and_replaces_nothing(
    kind: Kind, wanted: str, *, is_obstructed: bool
) -> None:
    """Files and links replace one another."""
    assert obstructed_by({"a": [kind]}, manifest(wanted)) == ({"a": kind} if is_obstructed else {})
