"""What a sync added, changed and removed in the sandbox, and what several syncs did together."""

from __future__ import annotations

import pytest

from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Difference, Manifest
from syncd.sandbox.sandbox_content import UNKNOWN, SandboxContent
from syncd.selection.secret_scanner import Secret
from syncd.sync.outcome import (
    Change,
    ChangeCounts,
    Outcome,
    arrived_changes,
    combine,
    combined,
    is_given_up,
    obstructed_paths,
    secret_warnings,
    still_changing,
    torn_copy,
    unsettled,
)
from syncd.sync.status_document import LastSync

A, C, R = Change.ADDED, Change.CHANGED, Change.REMOVED


def manifest(**contents: str) -> Manifest:
    """A manifest of files with these contents."""
    return Manifest({n: Entry(Kind.FILE, 0o644, 0, len(c), digest=c.encode()) for n, c in contents.items()})


def lists(changes: Difference) -> tuple[list[str], list[str], list[str]]:
    """The paths by change."""
    return [*changes.added], [*changes.changed], [*changes.removed]


def test_a_first_sync_adds_all() -> None:
    """Whatever was changed before it, and until a run is told of it."""
    first = arrived_changes(UNKNOWN, SandboxContent(manifest(a="1", b="1", c="1")))
    assert lists(first) == (["a", "b", "c"], [], [])
    together = {"old": R}
    combine(together, first)
    combine(together, Difference(added=["d"], changed=["a"], removed=["b"]))
    assert together == dict.fromkeys("acd", A)
    combine(together, Difference(added=["b"], removed=["d"]))
    assert together == dict.fromkeys("abc", A)


def test_the_changes_of_a_sync() -> None:
    """Between two that are known; of several, what they did together."""
    before, now = manifest(a="1", b="1", c="1"), manifest(a="1", b="2", d="1")
    found = arrived_changes(SandboxContent(before), SandboxContent(now))
    assert lists(found) == (["d"], ["b"], ["c"])
    together: dict[str, Change] = {}
    combine(together, found)
    assert together == {"d": A, "b": C, "c": R}
    assert lists(arrived_changes(SandboxContent(now), UNKNOWN)) == ([], [], [])
    sent = Outcome(LastSync("2026-11-24T13:20:01Z", 3, 9, "ab", 0.5), change=found)
    assert (sent.word, sent.counts) == ("initialized", ChangeCounts(1, 1, 1))
    assert (Outcome(None).word, Outcome(None).counts) == ("unchanged", None)


@pytest.mark.parametrize(
    ("before", "now", "both"),
    [(A, C, A), (A, R, None), (R, A, C), (C, R, R), (C, C, C), (C, A, C), (R, R, R), (A, A, A), (R, C, C)],
)
def test_two_changes_as_one(before: Change, now: Change, both: Change | None) -> None:
    """Added then changed is added, added then removed is nothing, removed then added is changed."""
    assert combined(before, now) is both
    assert combined(None, before) is before


def test_what_stays_there_is_removed_later() -> None:
    """A leftover is not removed, until it is no leftover any more; one that is sent again is changed."""
    had, kept = SandboxContent(manifest(a="1", x="1")), SandboxContent(manifest(x="1"), left=manifest(a="1"))
    assert lists(arrived_changes(had, kept)) == ([], [], [])
    assert lists(arrived_changes(kept, kept)) == ([], [], [])
    assert lists(arrived_changes(kept, SandboxContent(manifest(x="1")))) == ([], [], ["a"])
    assert lists(arrived_changes(kept, SandboxContent(manifest(a="2", x="1")))) == ([], ["a"], [])


@pytest.mark.parametrize(
    ("before", "follow_up", "torn", "left"),
    [
        (None, "ab", "a", "ab"),
        ("ab", "", "", ""),
        ("ab", "bc", "", "b"),
        ("a", "bc", "c", "c"),
    ],
)
def test_files_that_change_while_they_are_read(before: str | None, follow_up: str, torn: str, left: str) -> None:
    """A command waits for all of the first sync; later for those named before, and those that are torn now."""
    assert unsettled(before, follow_up, torn) == set(left)


def test_what_a_command_says_that_cannot_wait_longer() -> None:
    """After two more syncs it names the paths, and what to do."""
    assert [is_given_up("a", 1), is_given_up("a", 2), is_given_up("", 9)] == [False, True, False]
    assert str(still_changing(["a.log"])) == (
        "'a.log' kept changing while being read: its copy in the sandbox may be half old and half new, all else is "
        "there: try again when nothing writes there, or exclude it in .syncdignore"
    )
    assert str(still_changing(["b", "a"])).startswith("'a', 'b' kept changing while being read: their copies in the")
    assert str(obstructed_paths(["a"])) == (
        "'a' is not in the sandbox, where something else has that place; all else is there: "
        "`syncd status` names what it is, and what to do before you run `syncd push --force`"
    )
    assert str(obstructed_paths([*"gfedcba"])).startswith("'a', 'b', 'c', 'd', 'e', and 2 more are not in the sandbox")


def test_the_warning_about_a_file_that_changes() -> None:
    """It goes by itself, and says what to do if it does not."""
    assert torn_copy("a\nb") == (
        "torn:a\nb",
        "'a\\nb' was written while it was read: its copy in the sandbox may be half old and half new",
        "the next sync sends it again; a file that never rests belongs in .syncdignore",
    )


def test_the_warnings_about_secrets() -> None:
    """Of what is excluded, also if an earlier version was sent; of what is gone here, that it is still there."""
    secret = Secret("an AWS key", 3)
    files = {path: (Entry(Kind.FILE), secret) for path in ("new", "sent")}
    warnings = secret_warnings(files, SandboxContent(manifest(sent="1")), ["sent", "gone"])
    allow = "take it out, or allow the path in workspace.allow_secrets with `syncd config edit`"
    left = "what was sent of it before may still be in the sandbox"
    removed = 'with sandbox.deletions = "mirror" syncd removes it there; another sandbox does not have it'
    assert warnings == [
        ("secret:new", "'new' holds an AWS key in line 3 and is excluded", allow),
        ("secret:sent", f"'sent' holds an AWS key in line 3 and is excluded, but {left}", allow),
        ("secret:gone", f"in 'gone' a secret was found here, and {left}", removed),
    ]
