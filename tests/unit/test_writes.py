"""The rules of a write: which path is still as the plan saw it, and what an undo does to one."""

from __future__ import annotations

import pytest

from syncd.merge.writes import (
    OTHER,
    JournalItem,
    JournalPhase,
    NewEntry,
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
        (None, ABSENT, True),
        (None, FILE, False),
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
def test_as_planned(now: Entry | None, before: Entry, same: bool) -> None:
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
        (FILE, CHANGED, None, LEAVE, LEAVE),
        (FILE, CHANGED, OTHER, LEAVE, LEAVE),
        (FILE, CHANGED, DIRECTORY, LEAVE, LEAVE),
        (FILE, EXECUTABLE, EXECUTABLE, RESTORE, RESTORE),
        (FILE, EXECUTABLE, FILE, NOT_NEEDED, NOT_NEEDED),
        (LINK, OTHER_LINK, OTHER_LINK, RESTORE, RESTORE),
        (LINK, OTHER_LINK, LINK, NOT_NEEDED, NOT_NEEDED),
        (FILE, LINK, OTHER_LINK, LEAVE, LEAVE),
        # created
        (None, CHANGED, CHANGED, RESTORE, RESTORE),
        (None, CHANGED, PERSON, LEAVE, LEAVE),
        (None, CHANGED, None, NOT_NEEDED, NOT_NEEDED),
        (None, DIRECTORY, DIRECTORY, RESTORE, RESTORE),
        (None, DIRECTORY, PRIVATE, RESTORE, RESTORE),  # it was just made
        (None, DIRECTORY, GROUP, LEAVE, LEAVE),
        # deleted
        (FILE, None, None, RESTORE, RESTORE),
        (FILE, None, FILE, NOT_NEEDED, NOT_NEEDED),
        (FILE, None, PERSON, LEAVE, LEAVE),
        (CLOSED, None, None, RESTORE, RESTORE),
        (CLOSED, None, DIRECTORY, RESTORE, RESTORE),  # it was opened, to be emptied or filled
        (CLOSED, None, PRIVATE, RESTORE, RESTORE),
        (CLOSED, None, GROUP, LEAVE, LEAVE),
        (CLOSED, None, CLOSED, NOT_NEEDED, NOT_NEEDED),
        # another mode
        (DIRECTORY, PRIVATE, PRIVATE, RESTORE, RESTORE),
        (CLOSED, PRIVATE, DIRECTORY, RESTORE, RESTORE),
        (DIRECTORY, PRIVATE, GROUP, LEAVE, LEAVE),
        # another kind: for a moment nothing is there
        (FILE, DIRECTORY, None, LEAVE, RESTORE),
        (DIRECTORY, FILE, None, LEAVE, RESTORE),
        (DIRECTORY, LINK, None, LEAVE, RESTORE),
        (FILE, DIRECTORY, DIRECTORY, RESTORE, RESTORE),
        (DIRECTORY, FILE, FILE, RESTORE, RESTORE),
        (DIRECTORY, FILE, PERSON, LEAVE, LEAVE),
    ],
)
def test_restoration(
    before: Entry | None,
    after: Entry | None,
    now: Entry | None,
    ended: Restoration,
    killed: Restoration,
) -> None:
    """An undo restores what is as the write left it, or on the way there if it was killed; the rest is left."""
    item = JournalItem(0, "a", before, after)
    assert restoration(item, now, JournalPhase.DONE) is ended
    assert restoration(item, now, JournalPhase.CHANGING) is killed


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a/.", "a\0b"])
def test_a_path_outside_is_refused(path: str) -> None:
    """A path that is not a plain one inside of the workspace is a caller's error."""
    with pytest.raises(ValueError, match="inside"):
        check_plan([Write(path, ABSENT, NewEntry(Kind.SYMLINK, target="x"))])


def test_a_plan_that_contradicts_itself_is_refused() -> None:
    """A path twice, a file below a file, below a deletion, and a file that nothing tells apart."""
    new = NewEntry(Kind.FILE, 0o644, content="/x")
    with pytest.raises(ValueError, match="twice"):
        check_plan([Write("a", ABSENT, new), Write("a", ABSENT, new)])
    with pytest.raises(ValueError, match="below"):
        check_plan([Write("a", ABSENT, new), Write("a/b/c", ABSENT, new)])
    with pytest.raises(ValueError, match="below"):
        check_plan([Write("a", DIRECTORY, None), Write("a/b", ABSENT, new)])
    with pytest.raises(ValueError, match="stamp"):
        check_plan([Write("a", Entry(Kind.FILE), None)])
    check_plan([Write("a", FILE, NewEntry(Kind.DIRECTORY)), Write("a/b", ABSENT, new), Write("a/c", FILE, None)])


def test_ancestors() -> None:
    """The directories above a path, the top one first."""
    assert list(ancestors("a/b/c")) == ["a", "a/b"]
    assert list(ancestors("a")) == []
