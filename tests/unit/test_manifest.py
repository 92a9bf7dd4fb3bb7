"""Manifests: their differences, the order of their paths, the digests that are carried over, and shared directories."""

from __future__ import annotations

import os
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import syncd.model.manifest
from syncd.model.directory import EMPTY, Directory, Entries, differing, forget_decoded, read
from syncd.model.entry import (
    Entry,
    Kind,
    Stamp,
    content_bytes,
    count_files,
)
from syncd.model.manifest import (
    Difference,
    Manifest,
    archive_order,
    carry_over_digests,
    changed_paths,
    difference,
    directories_above,
    entry_changes,
    is_within,
    removed_paths,
    replaced_entries,
    sharing,
    without_stamps,
)
from tests.unit.test_entry import FILE, FOLDER, LINK, UNREAD


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"a": FILE}, {"a": FILE}, Difference()),
        ({}, {"a": FILE}, Difference(added=["a"])),
        ({"a": FILE}, {}, Difference(removed=["a"])),
        ({"a": FILE, "b": FILE, "c": FILE}, {"b": FILE, "d": FILE}, Difference(added=["d"], removed=["a", "c"])),
        ({"a": FILE}, {"a": replace(FILE, mtime_s=99)}, Difference()),
        ({"a": FILE}, {"a": replace(FILE, stamp=None)}, Difference()),
        ({"a": FILE}, {"a": replace(FILE, mode=0o755)}, Difference(changed=["a"])),
        ({"a": FILE}, {"a": replace(FILE, size_bytes=6)}, Difference(changed=["a"])),
        ({"a": FILE}, {"a": replace(UNREAD, size_bytes=6)}, Difference(changed=["a"])),
        ({"a": FILE}, {"a": replace(FILE, digest=b"d2")}, Difference(changed=["a"])),
        ({"a": FILE}, {"a": UNREAD}, Difference(to_read=["a"])),
        ({"a": UNREAD}, {"a": FILE}, Difference(to_read=["a"])),
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


# "a-" is between "a" and "a/" as a plain text; é is before "\udc80" by its character, and after it by its bytes.
NAMES = ["a", "a/b", "a/b/f", "a/l", "a-", "é", "\udc80"]
TREE = Manifest({name: FOLDER if name in ("a", "a/b") else LINK if name == "a/l" else FILE for name in NAMES})


def test_paths_in_the_archives_order() -> None:
    """A directory comes right before its content, by the bytes of the names."""
    in_order = ["a", "a/b", "a/b/f", "a/l", "a-", "\udc80", "é"]
    assert (sorted(NAMES, key=archive_order), [*TREE]) == (in_order, in_order)
    assert [*Manifest(dict.fromkeys(NAMES, FILE))] == in_order
    assert directories_above(["a/b/f", "a/b/g", "x/y", "z"]) == {"a", "a/b", "x"}
    assert [path for path, _ in TREE.top.directories()] == ["", "a", "a/b"]


def test_a_part_of_a_manifest() -> None:
    """The paths that are named, and all that is below them; and what is left without them alone."""
    assert TREE.paths_within(["a/b", "none", "é"]) == ["a/b", "é", "a/b/f"]
    assert TREE.within(["a/b"]) == {"a/b": FOLDER, "a/b/f": FILE}
    within = {path for path in ("a/b", "a/b/f", "a/l", "a/bc", "a", "é") if is_within(path, {"a/b", "é"})}
    assert (within, is_within("a", ())) == ({"a/b", "a/b/f", "é"}, False)
    left = TREE.without(["é", "none"])
    assert (set(NAMES) - set(left), len(TREE)) == ({"é"}, 7)
    assert TREE["a/l"].target == "a"
    with pytest.raises(KeyError, match="none"):
        del left["none"]


def test_a_directory_in_anothers_place() -> None:
    """It takes the place of all that was there, at any depth; an empty one that of nothing."""
    other = Directory(Entries({"new": FILE}))
    assert set(TREE.with_directory("a/b", other)) == {*NAMES, "a/b/new"} - {"a/b/f"}
    assert set(TREE.with_directory("", other)) == {"new"}
    emptied = TREE.with_directory("a/b", EMPTY)
    assert (set(emptied), [path for path, _ in emptied.top.directories()]) == ({*NAMES} - {"a/b/f"}, ["", "a"])
    assert emptied.with_directory("x/y/z", other).top.find("x/y/z") is other
    assert TREE.with_directory("none", EMPTY).top is TREE.top
    assert Manifest({"a/f": FILE}).with_directory("a", EMPTY).top is EMPTY
    assert other.replaced(None, {}) is other
    assert other.replaced(Entries({}), {"x": EMPTY}) is EMPTY
    assert TREE.with_directory("a/b", TREE.top.find("a/b")).top is TREE.top
    assert Manifest({"f": FILE}).without(["f"]).top is EMPTY


def test_paths_from_all_over() -> None:
    """So many of them, from each directory about as many, and each is there."""
    tree = Manifest({f"{folder}/{name}": FILE for folder in "abcdefgh" for name in "12345678"})
    assert sorted(tree.spread(8)) == [f"{folder}/1" for folder in "abcdefgh"]
    assert sorted(tree.spread(4)) == [f"{folder}/1" for folder in "aceg"]
    assert sorted(tree.spread(16)) == sorted(f"{folder}/{name}" for folder in "abcdefgh" for name in "12")
    assert set(tree.spread(1000)) == set(tree)
    assert set(TREE.spread(100)) == set(NAMES)
    above = Manifest({**tree.without(f"{folder}/1" for folder in "abcdefgh"), "1": FILE, "2": FILE, "3": FILE})
    assert len(above.spread(18)) == 18
    assert len(above.spread(16)) == 9
    assert TREE.spread(1) == ["a", "a/b", "a/b/f"]


def test_stamps_that_are_forgotten() -> None:
    """A directory that is then as in another manifest is that one's."""
    tree = Manifest({"a": FOLDER, "a/f": FILE, "b": FOLDER, "b/f": replace(FILE, stamp=None)})
    bare = replace(FILE, stamp=None)
    found = without_stamps(tree)
    assert (found["a/f"], found["b/f"]) == (bare, bare)
    assert without_stamps(found) is found
    assert found.top.find("b") is tree.top.find("b")
    assert without_stamps(tree, found).top is found.top


def test_digests_that_are_carried_over() -> None:
    """Those of files with the same stamp and size; directories that are then as known are those."""
    known = Manifest({"a": FOLDER, "a/f": FILE, "b": FOLDER, "b/f": FILE, "b/g": FILE, "b/new": UNREAD, "l": LINK})
    scanned = Manifest({path: replace(entry, digest=b"") for path, entry in known.items()})
    scanned["b/g"] = replace(UNREAD, size_bytes=6)
    scanned["b/h"] = replace(UNREAD, stamp=Stamp(0, 0, 0, 0))
    known["b/h"] = known["b/i"] = FILE
    scanned["b/i"] = replace(FILE, digest=b"d2")
    found = carry_over_digests(known, scanned)
    assert found.top.find("a") is known.top.find("a")
    assert {path: entry.digest for path, entry in found.items() if entry.digest} == {
        "a/f": b"d1",
        "b/f": b"d1",
        "b/i": b"d2",
    }
    assert found["l"] == LINK
    assert carry_over_digests(Manifest(), scanned) == scanned
    assert sorted(changed_paths(known, found)) == ["b/g", "b/h", "b/i"]
    assert list(entry_changes({"f": FILE}, Manifest({"f": FILE, "g": LINK}))) == [("g", None, LINK)]


def test_equal_directories_are_shared() -> None:
    """A manifest that was read from the disk takes no memory of its own where it is as another one."""
    like = Manifest({"a": FOLDER, "a/b": FOLDER, "a/b/f": FILE, "c": FOLDER, "c/f": FILE})
    read_again = Manifest(dict(like.items()))
    read_again["c/f"] = replace(FILE, mode=0o755)
    found = sharing(read_again, like)
    assert found == read_again
    assert found.top.find("a") is like.top.find("a")
    assert found.top.find("c") is not like.top.find("c")
    other = Manifest({"x": FILE})
    assert sharing(other, like) is other


def test_a_directory_of_many() -> None:
    """It is read as any other one."""
    many = {f"{number:05}": FILE for number in range(5_000)}
    assert dict(read(Entries(many))) == many


@pytest.mark.parametrize("count", [2, 1000])
def test_what_was_decoded_is_forgotten(count: int) -> None:
    """It stays in memory while it is read again and again, and no longer."""
    entries = Entries({f"{number}": FILE for number in range(count)})
    first = read(entries)
    assert read(entries) is first
    forget_decoded()
    assert read(entries) is not first
    assert read(entries) == first


def test_the_stored_form() -> None:
    """The names, then the links' targets, which need not be UTF-8; what was stored is read as it was."""
    entries = Entries({"l": replace(LINK, target="\udcff"), "b": FILE, "d": FOLDER})
    assert entries.texts == b"b\0d\0l\0\xff"
    again = Entries.stored(entries.texts, entries.encoded)
    assert again.equals(entries)
    assert (again.count, again.files, again.content_bytes) == (3, 2, 5) == (entries.count, entries.files, 5)
    assert again.decoded() == entries.decoded() == {"b": FILE, "d": FOLDER, "l": replace(LINK, target="\udcff")}
    assert Entries.stored(b"l", entries.encoded[:1].replace(b"\x93", b"\x90")).decoded() == {}
    two = Entries({"k": LINK, "l": LINK}).encoded
    assert Entries.stored(b"k\0l\0t", two).decoded() == {"k": replace(LINK, target="t"), "l": replace(LINK, target="")}
    assert (again.first_names(2), again.first_names(9)) == (["b", "d"], ["b", "d", "l"])


# -- as a dict of its entries


PLAIN_FOLDER = Entry(Kind.DIRECTORY, 0o755, 1)
# "a-" sorts between "a" and "a/": as plain texts its content would part a directory from its own.
DRAWN_NAMES = st.sampled_from(["a", "a-", "b", "\udcff", "é"])
DRAWN_PATHS = st.lists(DRAWN_NAMES, min_size=1, max_size=3).map("/".join)
DRAWN_ENTRIES = st.one_of(
    st.just(PLAIN_FOLDER),
    st.integers(0, 9).map(lambda size: Entry(Kind.FILE, 0o644, 1, size, digest=b"d%d" % size)),
    st.just(Entry(Kind.SYMLINK, 0o777, 1, target="t")),
)
DRAWN_TREES = st.dictionaries(DRAWN_PATHS, DRAWN_ENTRIES, max_size=12)
DRAWN_CHANGES = st.lists(st.tuples(DRAWN_PATHS, DRAWN_ENTRIES | st.none()), max_size=8)


def with_parents(tree: dict[str, Entry]) -> dict[str, Entry]:
    """The tree with each directory above its paths, as a scan finds it, in the archive's order."""
    whole = dict(tree)
    for path in tree:
        while path := path.rpartition("/")[0]:
            whole[path] = PLAIN_FOLDER
    return {path: whole[path] for path in sorted(whole, key=lambda path: os.fsencode(path).split(b"/"))}


def assert_is(manifest: Manifest, tree: dict[str, Entry]) -> None:
    assert manifest == tree
    assert len(manifest) == len(tree)
    assert (manifest.files, manifest.content_bytes) == (count_files(tree.values()), content_bytes(tree.values()))
    assert sorted(manifest) == sorted(tree)
    assert list(manifest.items()) == list(zip(manifest, manifest.values(), strict=True))
    assert all(path in manifest and manifest.get(path) == entry for path, entry in tree.items())
    parents = {path.rpartition("/")[0] for path in tree}
    assert sum(len(manifest.entries_in(path)) for path in parents) == len(tree)


def apply(target: Manifest | dict[str, Entry], changes: list[tuple[str, Entry | None]]) -> None:
    for path, entry in changes:
        if entry is not None:
            target[path] = entry
        else:
            target.pop(path, None)


@settings(max_examples=40)
@given(DRAWN_TREES, DRAWN_CHANGES, DRAWN_CHANGES, st.sampled_from((0, 1, 256)))
def test_copies_are_apart(
    tree: dict[str, Entry], ours: list[tuple[str, Entry | None]], theirs: list[tuple[str, Entry | None]], decoded: int
) -> None:
    """Whatever is changed in a manifest and in its copy, in turns, each is as a dict with the same changes."""
    with mock.patch.object(syncd.model.manifest, "_MOST_EDITED", decoded):
        manifest, one, other = Manifest(tree), dict(tree), dict(tree)
        apply(manifest, ours[:2])
        apply(one, ours[:2])
        other = dict(one)
        copy = manifest.copy()
        apply(manifest, ours[2:])
        apply(one, ours[2:])
        apply(copy, theirs)
        apply(other, theirs)
        assert_is(manifest, one)
        assert_is(copy, other)
        assert_is(manifest | copy, one | other)
        assert (manifest == copy) is (one == other)


@settings(max_examples=40)
@given(DRAWN_TREES, DRAWN_CHANGES)
def test_comparisons(tree: dict[str, Entry], changes: list[tuple[str, Entry | None]]) -> None:
    """Two manifests are compared as two dicts are."""
    before = Manifest(with_parents(tree))
    now = before.copy()
    apply(now, changes)
    plain_before, plain_now = dict(before), dict(now)
    assert sorted(replaced_entries(before, now)) == sorted(replaced_entries(plain_before, plain_now))
    above = {path[:end] for path in replaced_entries(before, now) for end in range(len(path)) if path[end] == "/"}
    assert above <= {path for path, _, _ in differing(before.top, now.top)}
    assert sorted(removed_paths(before, now)) == sorted(plain_before.keys() - plain_now.keys())
    found, expected = difference(before, now), difference(plain_before, plain_now)
    assert sorted(found.added) == sorted(expected.added)
    assert (sorted(found.changed), sorted(found.removed)) == (sorted(expected.changed), sorted(expected.removed))


def test_a_deep_tree() -> None:
    """A tree may be deeper than Python's calls."""
    deep = "/".join("d" * 1500)
    paths = [deep[: 2 * depth + 1] for depth in range(1500)]
    manifest = Manifest(dict.fromkeys(paths, PLAIN_FOLDER))
    changed = manifest | {deep: replace(PLAIN_FOLDER, mode=0o700)}
    assert list(manifest) == paths
    assert list(replaced_entries(manifest, changed)) == [deep]
