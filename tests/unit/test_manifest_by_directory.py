"""A manifest behaves as a dict of its entries in the archive's order, and copies do not change with each other."""

from __future__ import annotations

import os
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import syncd.model.manifest
from syncd.model.directory import differing
from syncd.model.entry import Entry, Kind, content_bytes, count_files
from syncd.model.manifest import (
    Manifest,
    difference,
    removed_paths,
    replaced_entries,
)

FOLDER = Entry(Kind.DIRECTORY, 0o755, 1)
# "a-" sorts between "a" and "a/": as plain texts its content would part a directory from its own.
NAMES = st.sampled_from(["a", "a-", "b", "\udcff", "é"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
ENTRIES = st.one_of(
    st.just(FOLDER),
    st.integers(0, 9).map(lambda size: Entry(Kind.FILE, 0o644, 1, size, digest=b"d%d" % size)),
    st.just(Entry(Kind.SYMLINK, 0o777, 1, target="t")),
)
TREES = st.dictionaries(PATHS, ENTRIES, max_size=12)
CHANGES = st.lists(st.tuples(PATHS, ENTRIES | st.none()), max_size=8)


def with_parents(tree: dict[str, Entry]) -> dict[str, Entry]:
    """The tree with each directory above its paths, as a scan finds it, in the archive's order."""
    whole = dict(tree)
    for path in tree:
        while path := path.rpartition("/")[0]:
            whole[path] = FOLDER
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
@given(TREES, CHANGES, CHANGES, st.sampled_from((0, 1, 256)))
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
@given(TREES, CHANGES)
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
    manifest = Manifest(dict.fromkeys(paths, FOLDER))
    changed = manifest | {deep: replace(FOLDER, mode=0o700)}
    assert list(manifest) == paths
    assert list(replaced_entries(manifest, changed)) == [deep]
