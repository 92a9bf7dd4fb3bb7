"""What is known of a sandbox's content, and which paths a partial archive holds."""

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
        (Difference(uncertain_reason=["a"]), False, True),
    ],
)
def test_the_sandbox_may_differ(found: Difference, uncertain: bool, differs: bool) -> None:
    """By anything that differs or may, and by an initialize without an answer."""
    assert SandboxContent({}, {}, uncertain).may_differ(found) is differs


def test_each_version_may_be_there() -> None:
    """The last known manifest and what was sent after it; neither where nothing is known."""
    content = SandboxContent({"a": _file()}, {"b": _file()})
    assert content.versions == ({"a": _file()}, {"b": _file()})
    assert [content.may_hold(path) for path in "abc"] == [True, True, False]
    assert SandboxContent().versions == ({}, {})


def test_nothing_is_expected_after_an_unanswered_initialize() -> None:
    """A reset may have come before it."""
    assert set(SandboxContent({"a": _file()}, {"b": _file()}).expected) == {"a"}
    assert set(SandboxContent({"a": _file()}, {}, uncertain=True).expected) == set()


MANIFEST: Manifest = {"d": DIRECTORY, "d/a": _file(3), "d/b": _file(5), "e": DIRECTORY, "e/c": _file(9), "f": _file(1)}


@pytest.mark.parametrize(
    ("found", "paths"),
    [
        (Difference(), {"d"}),
        (Difference(removed=["gone"]), {"d"}),
        (Difference(added=["d/a"], changed=["d/b"], uncertain_reason=["f"]), {"d", "d/a", "d/b", "f"}),
        (Difference(changed=["d/a", "d/b", "e/c"]), {"d", "d/a", "d/b", "e/c"}),
        (Difference(changed=["d/a", "d/b", "e/c", "f"]), None),
        (Difference(added=list(MANIFEST)), None),
    ],
)
def test_a_partial_archive_holds_what_differs(found: Difference, paths: set[str] | None) -> None:
    """And the smallest entry; none where it would hold everything, directories by what is in them."""
    assert partial_paths(MANIFEST, found) == paths


def test_the_smallest_entry_comes_along() -> None:
    """An archive of nothing may be refused by a server."""
    assert partial_paths({"a": _file(9), "b": _file(2), "c": _file(5)}, Difference()) == {"b"}
