"""The rules of a write: which path is still as the plan saw it, and what an undo does to one."""

from __future__ import annotations

import pytest

from syncd.merge.path_changes import (
    OTHER,
    JournalPhase,
    PathChange,
    WriteDecision,
    check_plan,
    decide,
)
from syncd.model.entry import ABSENT, Entry, Kind, Stamp

NOTHING, CHANGE, LEAVE = WriteDecision.NOTHING, WriteDecision.CHANGE, WriteDecision.LEAVE
STAMP, LATER = Stamp(1, 2, 3, 4), Stamp(1, 3, 3, 4)
FILE = Entry(Kind.FILE, 0o644, size_bytes=3, digest=b"old", stamp=STAMP)
CHANGED = Entry(Kind.FILE, 0o644, size_bytes=3, digest=b"new", stamp=LATER)
PERSON = Entry(Kind.FILE, 0o644, size_bytes=3, digest=b"mine", stamp=LATER)
EXECUTABLE = Entry(Kind.FILE, 0o755, size_bytes=3, digest=b"old", stamp=LATER)
LINK, OTHER_LINK = Entry(Kind.SYMLINK, target="a"), Entry(Kind.SYMLINK, target="b")
DIRECTORY, CLOSED = Entry(Kind.DIRECTORY, 0o755), Entry(Kind.DIRECTORY, 0o555)
PRIVATE, GROUP = Entry(Kind.DIRECTORY, 0o700), Entry(Kind.DIRECTORY, 0o770)


def _file(digest: bytes = b"", stamp: Stamp | None = None, mode: int = 0o644) -> Entry:
    return Entry(Kind.FILE, mode, size_bytes=3, digest=digest, stamp=stamp)


@pytest.mark.parametrize(
    ("now", "before", "same"),
    [
        (ABSENT, ABSENT, True),
        (ABSENT, FILE, False),
        (FILE, _file(b"old", LATER), True),
        (FILE, _file(b"new", STAMP), False),
        (FILE, _file(b"old", STAMP, 0o755), False),
        (_file(b"old", STAMP, 0o4644), FILE, True),  # a manifest has no set-id bits
        (LINK, LINK, True),
        (LINK, OTHER_LINK, False),
        (DIRECTORY, DIRECTORY, True),
        (DIRECTORY, CLOSED, False),
        (OTHER, OTHER, False),
        (Entry(Kind.UNREAD), Entry(Kind.UNREAD), False),
    ],
)
def test_as_planned(now: Entry, before: Entry, same: bool) -> None:
    """A path has to be what the plan saw: kind, permission bits, target and digest."""
    assert decide(PathChange("a", before, Entry(Kind.SYMLINK, target="c")), now, JournalPhase.DONE) is (
        CHANGE if same else LEAVE
    )


@pytest.mark.parametrize(
    ("before", "after", "now", "ended", "killed"),
    [
        # a file replaced
        (FILE, CHANGED, CHANGED, CHANGE, CHANGE),
        (FILE, CHANGED, FILE, NOTHING, NOTHING),
        (FILE, CHANGED, PERSON, LEAVE, LEAVE),
        (FILE, CHANGED, ABSENT, LEAVE, LEAVE),
        (FILE, CHANGED, OTHER, LEAVE, LEAVE),
        (FILE, CHANGED, DIRECTORY, LEAVE, LEAVE),
        (FILE, EXECUTABLE, EXECUTABLE, CHANGE, CHANGE),
        (LINK, OTHER_LINK, OTHER_LINK, CHANGE, CHANGE),
        (FILE, LINK, OTHER_LINK, LEAVE, LEAVE),
        # created
        (ABSENT, CHANGED, CHANGED, CHANGE, CHANGE),
        (ABSENT, CHANGED, ABSENT, NOTHING, NOTHING),
        (ABSENT, DIRECTORY, PRIVATE, CHANGE, CHANGE),  # it was just made
        (ABSENT, DIRECTORY, GROUP, LEAVE, LEAVE),
        # deleted
        (FILE, ABSENT, ABSENT, CHANGE, CHANGE),
        (CLOSED, ABSENT, DIRECTORY, LEAVE, LEAVE),
        (CLOSED, ABSENT, PRIVATE, LEAVE, CHANGE),
        (CLOSED, ABSENT, GROUP, LEAVE, LEAVE),
        (CLOSED, ABSENT, CLOSED, NOTHING, NOTHING),
        # another mode
        (DIRECTORY, PRIVATE, PRIVATE, CHANGE, CHANGE),
        (CLOSED, PRIVATE, DIRECTORY, LEAVE, LEAVE),
        # another kind: for a moment nothing is there
        (FILE, DIRECTORY, ABSENT, LEAVE, CHANGE),
        (DIRECTORY, LINK, ABSENT, LEAVE, CHANGE),
        (FILE, DIRECTORY, DIRECTORY, CHANGE, CHANGE),
        (DIRECTORY, FILE, PERSON, LEAVE, LEAVE),
    ],
)
def test_undo(before: Entry, after: Entry, now: Entry, ended: WriteDecision, killed: WriteDecision) -> None:
    """An undo restores what is as the write left it, or on the way there if it was killed; the rest is left."""
    change = PathChange("a", after, before)
    assert decide(change, now, JournalPhase.DONE) is ended
    assert decide(change, now, JournalPhase.CHANGING) is killed


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a/.", "a\0b"])
def test_a_path_outside_is_refused(path: str) -> None:
    """A path that is not a plain one inside of the workspace is a caller's error."""
    with pytest.raises(ValueError, match="inside"):
        check_plan([PathChange(path, ABSENT, LINK)])


def test_a_file_that_nothing_tells_apart_is_refused() -> None:
    """It needs a digest, before and after."""
    for before, after in ((Entry(Kind.FILE), ABSENT), (ABSENT, Entry(Kind.FILE))):
        with pytest.raises(ValueError, match="digest"):
            check_plan([PathChange("a", before, after)])
