"""The rules of a write: which path is still as the plan saw it, and what an undo does to one."""

from __future__ import annotations

import pytest

from syncd.merge.writes import (
    OTHER,
    JournalPhase,
    PathChange,
    Restoration,
    Write,
    ancestors,
    check_plan,
    may_be_as_planned,
    restoration,
)
from syncd.model.entry import ABSENT, Entry, Kind, Stamp

STAMP, LATER = Stamp(1, 2, 3, 4), Stamp(1, 3, 3, 4)
FILE = Entry(Kind.FILE, 0o644, size_bytes=3, digest=b"old", stamp=STAMP)
CHANGED = Entry(Kind.FILE, 0o644, size_bytes=3, digest=b"new", stamp=LATER)
PERSON = Entry(Kind.FILE, 0o644, size_bytes=3, digest=b"mine", stamp=LATER)
EXECUTABLE = Entry(Kind.FILE, 0o755, size_bytes=3, digest=b"old", stamp=LATER)
LINK, OTHER_LINK = Entry(Kind.SYMLINK, target="a"), Entry(Kind.SYMLINK, target="b")
DIRECTORY, CLOSED = Entry(Kind.DIRECTORY, 0o755), Entry(Kind.DIRECTORY, 0o555)
PRIVATE, GROUP = Entry(Kind.DIRECTORY, 0o700), Entry(Kind.DIRECTORY, 0o770)


def _file(digest: bytes = b"", stamp: Stamp | None = None, mode: int = 0o644, size_bytes: int = 3) -> Entry:
    return Entry(Kind.FILE, mode, size_bytes=size_bytes, digest=digest, stamp=stamp)


@pytest.mark.parametrize(
    ("now", "before", "same"),
    [
        (ABSENT, ABSENT, True),
        (ABSENT, FILE, False),
        (FILE, ABSENT, False),
        (_file(stamp=STAMP), _file(stamp=STAMP), True),
        (_file(stamp=LATER), _file(stamp=STAMP), False),
        (_file(stamp=LATER), _file(b"old", STAMP), True),  # its content is compared later
        (_file(stamp=LATER), _file(b"old"), True),
        (_file(stamp=LATER, size_bytes=4), _file(b"old"), False),
        (_file(stamp=STAMP, mode=0o755), _file(stamp=STAMP), False),
        (_file(stamp=STAMP, mode=0o4644), _file(stamp=STAMP), True),  # a manifest has no set-id bits
        (LINK, LINK, True),
        (LINK, OTHER_LINK, False),
        (LINK, FILE, False),
        (DIRECTORY, DIRECTORY, True),
        (DIRECTORY, CLOSED, False),
        (DIRECTORY, LINK, False),
        (OTHER, OTHER, False),
        (OTHER, ABSENT, False),
    ],
)
def test_as_planned(now: Entry, before: Entry, same: bool) -> None:
    """A path has to be what the plan saw: kind, permission bits, target, and size with stamp or digest."""
    assert may_be_as_planned(now, before) is same


NOT_NEEDED, RESTORE, LEAVE = Restoration.NOT_NEEDED, Restoration.RESTORE, Restoration.LEAVE


@pytest.mark.parametrize(
    ("before", "after", "now", "ended", "killed"),
    [
        # a file replaced
        (FILE, CHANGED, CHANGED, RESTORE, RESTORE),
        (FILE, CHANGED, FILE, NOT_NEEDED, NOT_NEEDED),
        (FILE, CHANGED, PERSON, LEAVE, LEAVE),
        (FILE, CHANGED, ABSENT, LEAVE, LEAVE),
        (FILE, CHANGED, OTHER, LEAVE, LEAVE),
        (FILE, CHANGED, DIRECTORY, LEAVE, LEAVE),
        (FILE, EXECUTABLE, EXECUTABLE, RESTORE, RESTORE),
        (FILE, EXECUTABLE, FILE, NOT_NEEDED, NOT_NEEDED),
        (LINK, OTHER_LINK, OTHER_LINK, RESTORE, RESTORE),
        (LINK, OTHER_LINK, LINK, NOT_NEEDED, NOT_NEEDED),
        (FILE, LINK, OTHER_LINK, LEAVE, LEAVE),
        # created
        (ABSENT, CHANGED, CHANGED, RESTORE, RESTORE),
        (ABSENT, CHANGED, PERSON, LEAVE, LEAVE),
        (ABSENT, CHANGED, ABSENT, NOT_NEEDED, NOT_NEEDED),
        (ABSENT, DIRECTORY, DIRECTORY, RESTORE, RESTORE),
        (ABSENT, DIRECTORY, PRIVATE, RESTORE, RESTORE),  # it was just made
        (ABSENT, DIRECTORY, GROUP, LEAVE, LEAVE),
        # deleted
        (FILE, ABSENT, ABSENT, RESTORE, RESTORE),
        (FILE, ABSENT, FILE, NOT_NEEDED, NOT_NEEDED),
        (FILE, ABSENT, PERSON, LEAVE, LEAVE),
        (CLOSED, ABSENT, ABSENT, RESTORE, RESTORE),
        (CLOSED, ABSENT, DIRECTORY, RESTORE, RESTORE),  # it was opened, to be emptied or filled
        (CLOSED, ABSENT, PRIVATE, RESTORE, RESTORE),
        (CLOSED, ABSENT, GROUP, LEAVE, LEAVE),
        (CLOSED, ABSENT, CLOSED, NOT_NEEDED, NOT_NEEDED),
        # another mode
        (DIRECTORY, PRIVATE, PRIVATE, RESTORE, RESTORE),
        (CLOSED, PRIVATE, DIRECTORY, RESTORE, RESTORE),
        (DIRECTORY, PRIVATE, GROUP, LEAVE, LEAVE),
        # another kind: for a moment nothing is there
        (FILE, DIRECTORY, ABSENT, LEAVE, RESTORE),
        (DIRECTORY, FILE, ABSENT, LEAVE, RESTORE),
        (DIRECTORY, LINK, ABSENT, LEAVE, RESTORE),
        (FILE, DIRECTORY, DIRECTORY, RESTORE, RESTORE),
        (DIRECTORY, FILE, FILE, RESTORE, RESTORE),
        (DIRECTORY, FILE, PERSON, LEAVE, LEAVE),
    ],
)
def test_restoration(before: Entry, after: Entry, now: Entry, ended: Restoration, killed: Restoration) -> None:
    """An undo restores what is as the write left it, or on the way there if it was killed; the rest is left."""
    change = PathChange(0, "a", before, after)
    assert restoration(change, now, JournalPhase.DONE) is ended
    assert restoration(change, now, JournalPhase.CHANGING) is killed


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a/.", "a\0b"])
def test_a_path_outside_is_refused(path: str) -> None:
    """A path that is not a plain one inside of the workspace is a caller's error."""
    with pytest.raises(ValueError, match="inside"):
        check_plan([Write(path, ABSENT, LINK)])


def test_a_plan_that_contradicts_itself_is_refused() -> None:
    """A path twice, a file below a file, below a deletion, and a file that nothing tells apart."""
    new = _file()
    with pytest.raises(ValueError, match="twice"):
        check_plan([Write("a", ABSENT, new), Write("a", ABSENT, new)])
    with pytest.raises(ValueError, match="below"):
        check_plan([Write("a", ABSENT, new), Write("a/b/c", ABSENT, new)])
    with pytest.raises(ValueError, match="below"):
        check_plan([Write("a", DIRECTORY, ABSENT), Write("a/b", ABSENT, new)])
    with pytest.raises(ValueError, match="stamp"):
        check_plan([Write("a", Entry(Kind.FILE), ABSENT)])
    check_plan([Write("a", FILE, DIRECTORY), Write("a/b", ABSENT, new), Write("a/c", FILE, ABSENT)])


def test_ancestors() -> None:
    """The directories above a path, the top one first."""
    assert list(ancestors("a/b/c")) == ["a", "a/b"]
    assert list(ancestors("a")) == []
