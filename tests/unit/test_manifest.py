"""The differences of manifests, the digests that are kept, and the snapshots that are refused."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from syncd.model.entry import (
    YOUNG_NS,
    Entry,
    Kind,
    Stamp,
    as_read,
)
from syncd.model.manifest import (
    Difference,
    Manifest,
    carry_over_digests,
    difference,
    not_written_back,
    sharing,
)

OLD = Stamp(1_000, 2_000, 3, 4)
FILE = Entry(Kind.FILE, 0o644, 1, 5, stamp=OLD, digest=b"d1")
UNREAD = replace(FILE, digest=b"")
FOLDER = Entry(Kind.DIRECTORY, 0o755, 1)
LINK = Entry(Kind.SYMLINK, 0o777, 1, target="a")


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({}, {}, Difference()),
        ({"a": FILE}, {"a": FILE}, Difference()),
        ({}, {"a": FILE}, Difference(added=["a"])),
        ({"a": FILE}, {}, Difference(removed=["a"])),
        ({"a": FILE}, {"b": FILE}, Difference(added=["b"], removed=["a"])),
        ({"a": FILE, "b": FILE}, {"b": FILE, "c": FILE}, Difference(added=["c"], removed=["a"])),
        ({"a": FILE, "b": FILE, "c": FILE}, {"b": FILE, "d": FILE}, Difference(added=["d"], removed=["a", "c"])),
        ({"a": FILE}, {"a": replace(FILE, mtime_s=99)}, Difference()),
        ({"a": FILE}, {"a": replace(FILE, stamp=None)}, Difference()),
        ({"a": FILE}, {"a": replace(FILE, mode=0o755)}, Difference(changed=["a"])),
        ({"a": FILE}, {"a": replace(FILE, size_bytes=6)}, Difference(changed=["a"])),
        ({"a": FILE}, {"a": replace(UNREAD, size_bytes=6)}, Difference(changed=["a"])),
        ({"a": FILE}, {"a": replace(FILE, digest=b"d2")}, Difference(changed=["a"])),
        ({"a": FILE}, {"a": UNREAD}, Difference(uncertain=["a"])),
        ({"a": UNREAD}, {"a": FILE}, Difference(uncertain=["a"])),
        ({"a": FILE}, {"a": FOLDER}, Difference(changed=["a"])),
        ({"a": FOLDER}, {"a": replace(FOLDER, mtime_s=2)}, Difference()),
        ({"a": FOLDER}, {"a": replace(FOLDER, mode=0o700)}, Difference(changed=["a"])),
        ({"a": LINK}, {"a": replace(LINK, target="b")}, Difference(changed=["a"])),
        ({"a": LINK}, {"a": replace(LINK, mtime_s=7)}, Difference()),
    ],
)
def test_difference(before: dict[str, Entry], now: dict[str, Entry], expected: Difference) -> None:
    """Kind, mode, target, size and content are compared; times are not, and unread content is uncertain."""
    found = difference(before, now)
    assert found == expected
    assert found.certain is bool(expected.added or expected.changed or expected.removed)
    assert len(found) == len([*expected.added, *expected.changed, *expected.removed])


@pytest.mark.parametrize(
    ("age_ns", "kept"), [(YOUNG_NS + 1, True), (YOUNG_NS, False), (1, False), (0, False), (-5, False)]
)
def test_as_read(age_ns: int, *, kept: bool) -> None:
    """The stamp of a file with a time within the coarsest granularity, or in the future, is not kept."""
    entry = as_read(UNREAD, b"d", OLD.ctime_ns + age_ns)
    assert entry.digest == b"d"
    assert (entry.stamp == OLD) is kept


def test_files_that_may_have_changed_without_events() -> None:
    """Files whose stamps were kept, and that were not known to be written back when they were read."""
    old = replace(FILE, written_back=True)
    manifest = {"young": FILE, "old": old, "not read": UNREAD, "not kept": replace(FILE, stamp=None), "d": FOLDER}
    assert not_written_back(manifest) == ["young"]
    assert carry_over_digests(Manifest({"a": old}), Manifest({"a": UNREAD}))["a"].written_back


def test_equal_directories_are_shared() -> None:
    """A manifest that was read from the disk takes no memory of its own where it is as another one."""
    like = Manifest({"a": FOLDER, "a/b": FOLDER, "a/b/f": FILE, "c": FOLDER, "c/f": FILE})
    read_again = Manifest(dict(like.items()))
    read_again["c/f"] = replace(FILE, mode=0o755)
    found = sharing(read_again, like)
    assert found == read_again
    assert found.top.find("a") is like.top.find("a")
    assert found.top.find("c") is not like.top.find("c")
