"""The differences of manifests, the digests that are kept, and the snapshots that are refused."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from syncd.model.entry import (
    WRITTEN_BACK_NS,
    YOUNG_NS,
    Entry,
    Kind,
    Stamp,
    arrived_digest,
    as_read,
    as_sent,
    count_files,
)
from syncd.model.manifest import (
    Difference,
    Manifest,
    carry_over_digests,
    difference,
    forget_stamps,
    not_written_back,
    sharing,
    without_digest,
)
from syncd.scan.exclusions import largest, mib, over_limit
from syncd.scan.guards import lost_nearly_all

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
    ("known", "scanned", "digest"),
    [
        (FILE, UNREAD, b"d1"),
        (FILE, replace(UNREAD, mode=0o600), b"d1"),
        (FILE, replace(UNREAD, stamp=replace(OLD, mtime_ns=1_001)), b""),
        (FILE, replace(UNREAD, stamp=replace(OLD, ctime_ns=2_001)), b""),
        (FILE, replace(UNREAD, stamp=replace(OLD, inode=9)), b""),
        (FILE, replace(UNREAD, stamp=replace(OLD, device=9)), b""),
        (FILE, replace(UNREAD, size_bytes=6), b""),
        (replace(FILE, stamp=None), UNREAD, b""),
        (replace(FILE, stamp=None), replace(UNREAD, stamp=OLD), b""),
        (UNREAD, UNREAD, b""),
        (LINK, UNREAD, b""),
        (FILE, replace(UNREAD, stamp=replace(OLD, inode=9), digest=b"own"), b"own"),
        (FILE, replace(UNREAD, digest=b"own"), b"own"),
    ],
)
def test_carry_over_digests(known: Entry, scanned: Entry, digest: bytes) -> None:
    """A digest is carried over while size and stamp are the same, and only if the stamp was kept."""
    assert carry_over_digests(Manifest({"a": known}), Manifest({"a": scanned}))["a"] == replace(scanned, digest=digest)


def test_carry_over_digests_keeps_paths() -> None:
    """The paths are those of the scan, whatever else is known."""
    known = Manifest({"z": FILE, "a": FILE, "gone": FILE})
    settled = carry_over_digests(known, Manifest({"a": UNREAD, "new": UNREAD, "z": UNREAD, "d": FOLDER}))
    assert settled == {"a": FILE, "d": FOLDER, "new": UNREAD, "z": FILE}


@pytest.mark.parametrize(
    ("age_ns", "kept"), [(YOUNG_NS + 1, True), (YOUNG_NS, False), (1, False), (0, False), (-5, False)]
)
def test_as_read(age_ns: int, *, kept: bool) -> None:
    """The stamp of a file with a time within the coarsest granularity, or in the future, is not kept."""
    entry = as_read(UNREAD, b"d", OLD.ctime_ns + age_ns)
    assert entry.digest == b"d"
    assert (entry.stamp == OLD) is kept


@pytest.mark.parametrize(
    ("age_ns", "written_back"), [(WRITTEN_BACK_NS + 1, True), (WRITTEN_BACK_NS, False), (0, False)]
)
def test_as_read_once_all_is_written_back(age_ns: int, *, written_back: bool) -> None:
    """A file that was changed less than a minute before may still be mapped, and written without changing its times."""
    assert as_read(UNREAD, b"d", OLD.ctime_ns + age_ns).written_back is written_back
    assert as_read(replace(UNREAD, stamp=None), b"d", OLD.ctime_ns + age_ns).written_back is False


def test_files_that_may_have_changed_without_events() -> None:
    """Files whose stamps were kept, and that were not known to be written back when they were read."""
    old = replace(FILE, written_back=True)
    manifest = {"young": FILE, "old": old, "not read": UNREAD, "not kept": replace(FILE, stamp=None), "d": FOLDER}
    assert not_written_back(manifest) == ["young"]
    assert carry_over_digests(Manifest({"a": old}), Manifest({"a": UNREAD}))["a"].written_back


def test_forget_stamps() -> None:
    """The digest is kept for comparison, the stamp is removed; other paths are ignored."""
    manifest = {"a": replace(FILE, written_back=True), "b": FILE, "d": FOLDER}
    forget_stamps(manifest, ["a", "d", "gone"])
    assert manifest == {"a": replace(FILE, stamp=None), "b": FILE, "d": FOLDER}


def test_an_old_mtime_does_not_count() -> None:
    """Only the ctime counts: an unpacked file's mtime can be any time."""
    entry = replace(UNREAD, stamp=Stamp(0, 10 * YOUNG_NS, 3, 4))
    assert as_read(entry, b"d", 10 * YOUNG_NS + 1).stamp is None


def test_files_that_changed_while_they_were_read_are_uncertain() -> None:
    """A file that changed while it was read is neither equal nor different."""
    entry = as_sent(FILE, FILE.size_bytes, b"sent")
    assert entry == replace(FILE, digest=b"", stamp=None, sent_digest=b"sent")
    assert carry_over_digests(Manifest({"a": entry}), Manifest({"a": UNREAD}))["a"].digest == b""
    assert difference({"a": entry}, {"a": FILE}).uncertain == ["a"]


@pytest.mark.parametrize(
    ("before", "now", "lost"),
    [(0, 0, False), (19, 0, False), (20, 0, True), (20, 1, True), (20, 2, False), (100, 9, True), (100, 10, False)],
)
def test_a_workspace_that_lost_nearly_all(before: int, now: int, *, lost: bool) -> None:
    """Of 20 files and more, fewer than a tenth left counts as lost."""
    assert lost_nearly_all(before, now) is lost


def test_files_and_links_are_counted() -> None:
    """Directories do not count; links count as files."""
    assert count_files([FILE, FOLDER, LINK, FOLDER]) == 2


def test_what_was_sent_of_a_file_that_changed_meanwhile() -> None:
    """Its digest is that of the bytes that were sent, until the file is read in one piece."""
    torn = as_sent(replace(FILE, written_back=True), 3, b"sent")
    assert torn == replace(FILE, size_bytes=3, digest=b"", stamp=None, sent_digest=b"sent", written_back=False)
    assert arrived_digest(torn) == b"sent"
    whole = as_read(replace(FILE, digest=b"", sent_digest=b"sent"), b"d", OLD.ctime_ns + YOUNG_NS + 1)
    assert whole == replace(FILE, digest=b"d")
    assert arrived_digest(whole) == b"d"
    assert arrived_digest(UNREAD) == b""


def test_files_without_digest() -> None:
    """Files that were not read in one piece; directories and links have no content."""
    entries = {"d": FOLDER, "l": LINK, "known": FILE, "unread": UNREAD, "torn": as_sent(FILE, 3, b"sent")}
    assert without_digest(entries) == ["unread", "torn"]


def test_the_limit() -> None:
    """A snapshot over the limit is refused with its size, the key and the largest paths first."""
    sizes = {"small": 1, "a\nb": 3 << 20, "c": 2 << 20, "d": 4 << 20, "e": 5 << 20}
    manifest = Manifest({path: replace(FILE, size_bytes=size) for path, size in sizes.items()} | {"dir": FOLDER})
    assert over_limit(manifest, 13) == (
        "the snapshot holds 14.0 MiB, more than sync.max_snapshot_mib = 13; "
        r"the largest: 'e' (5.0 MiB), 'd' (4.0 MiB), 'a\nb' (3.0 MiB)"
    )
    assert largest(manifest, 1) == [("e", 5 << 20)]


def test_exactly_the_limit_fits() -> None:
    """A snapshot of exactly the limit is allowed."""
    assert over_limit(Manifest({"a": replace(FILE, size_bytes=1 << 20)}), 1) is None
    assert over_limit(Manifest({"a": replace(FILE, size_bytes=(1 << 20) + 1)}), 1) is not None
    assert mib(1536 << 20) == "1,536.0 MiB"


def test_equal_directories_are_shared() -> None:
    """A manifest that was read from the disk takes no memory of its own where it is as another one."""
    like = Manifest({"a": FOLDER, "a/b": FOLDER, "a/b/f": FILE, "c": FOLDER, "c/f": FILE})
    read_again = Manifest(dict(like.items()))
    read_again["c/f"] = replace(FILE, mode=0o755)
    found = sharing(read_again, like)
    assert found == read_again
    assert found.top.find("a") is like.top.find("a")
    assert found.top.find("c") is not like.top.find("c")
