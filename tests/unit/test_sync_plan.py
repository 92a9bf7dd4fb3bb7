"""Decisions about the content of a sandbox, and the paths of a partial archive."""

from __future__ import annotations

import pytest

from syncd.scan.manifest import Difference, Entry, Kind, Manifest
from syncd.sync.sync_plan import SandboxContent, partial_paths


def _file(size_bytes: int = 8) -> Entry:
    return Entry(Kind.FILE, 0o644, 0, size_bytes)


DIRECTORY = Entry(Kind.DIRECTORY, 0o755, 0)


@pytest.mark.parametrize(
    ("found", "uncertain", "differs"),
    [
        (Difference(), False, False),
        (Difference(), True, True),
        (Difference(added=["a"]), False, True),
        (Difference(changed=["a"]), False, True),
        (Difference(removed=["a"]), False, True),
        (Difference(uncertain=["a"]), False, True),
    ],
)
def test_the_sandbox_may_differ(found: Difference, uncertain: bool, differs: bool) -> None:
    """After any difference, certain or not, and after an initialize without an answer."""
    assert SandboxContent({}, {}, uncertain).may_differ(found) is differs


def test_each_version_may_be_in_the_sandbox() -> None:
    """The last known manifest and the entries sent after it; neither if nothing is known."""
    content = SandboxContent({"a": _file()}, {"b": _file()})
    assert content.versions == ({"a": _file()}, {"b": _file()})
    assert [content.may_hold(path) for path in "abc"] == [True, True, False]
    assert SandboxContent().versions == ({}, {})


def test_nothing_is_expected_after_an_unanswered_initialize() -> None:
    """A reset may have preceded it."""
    assert set(SandboxContent({"a": _file()}, {"b": _file()}).expected) == {"a"}
    assert set(SandboxContent({"a": _file()}, {}, uncertain=True).expected) == set()


MANIFEST: Manifest = {"d": DIRECTORY, "d/a": _file(3), "d/b": _file(5), "e": DIRECTORY, "e/c": _file(9), "f": _file(1)}


@pytest.mark.parametrize(
    ("found", "paths"),
    [
        (Difference(), {"d"}),
        (Difference(removed=["gone"]), {"d"}),
        (Difference(added=["d/a"], changed=["d/b"], uncertain=["f"]), {"d", "d/a", "d/b", "f"}),
        (Difference(changed=["d/a", "d/b", "e/c"]), {"d", "d/a", "d/b", "e/c"}),
        (Difference(changed=["d/a", "d/b", "e/c", "f"]), None),
        (Difference(added=list(MANIFEST)), None),
    ],
)
def test_a_partial_archive_holds_what_differs(found: Difference, paths: set[str] | None) -> None:
    """With the smallest entry, and directories by the paths in them. None if it would hold everything."""
    assert partial_paths(MANIFEST, found) == paths


def test_a_partial_archive_is_never_empty() -> None:
    """The smallest entry is in it: a server may refuse an archive without any."""
    assert partial_paths({"a": _file(9), "b": _file(2), "c": _file(5)}, Difference()) == {"b"}
