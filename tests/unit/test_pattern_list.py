"""The patterns of a list that apply in each directory; a directory is asked about its own only."""

from __future__ import annotations

import pytest

from syncd.selection.pattern_list import pattern_list
from syncd.selection.selection import Selection, SelectionSettings


@pytest.mark.parametrize("where", ["deep/", "a/deep/", "a/b/deep/", "a/b/c/d/deep/"])
def test_a_folder_at_any_depth_is_found(where: str) -> None:
    """`**/deep/y` speaks of `y` in each folder `deep`, however many folders are above it."""
    found = pattern_list(b"**/deep/y\n").files.local(where)
    assert found is not None
    assert found.literals == {"y": 0}


@pytest.mark.parametrize("where", ["one/two/", "a/one/two/", "a/b/c/one/two/"])
def test_folders_one_in_the_other_are_found_at_any_depth(where: str) -> None:
    """`**/one/two/y` speaks of `y` in a folder `two` that is in a folder `one`."""
    found = pattern_list(b"**/one/two/y\n").files.local(where)
    assert found is not None
    assert found.literals == {"y": 0}


@pytest.mark.parametrize("where", ["", "two/", "one/", "one/two/three/", "one/a/two/", "xone/two/"])
def test_other_folders_are_not_spoken_of(where: str) -> None:
    """`**/one/two/y` says nothing about another folder, whatever part of its path is alike."""
    assert pattern_list(b"**/one/two/y\n").files.local(where) is None


def test_a_pattern_from_the_top_holds_there_alone() -> None:
    """`/one/y` speaks of the folder `one` at the top, `/y` of the top itself."""
    files = pattern_list(b"/one/y\n/z\n").files
    assert files.local("a/one/") is None
    found = files.local("one/")
    assert found is not None
    assert found.literals == {"y": 0}
    top = files.local("")
    assert top is not None
    assert top.literals == {"z": 1}


@pytest.mark.parametrize("pattern", [b"*.log", b"name", b"**/name", b"name/", b"**/*.log"])
def test_what_holds_everywhere_is_asked_once_for_all(pattern: bytes) -> None:
    """A list of such patterns alone need not be asked again in each directory."""
    sides = pattern_list(pattern).directories
    assert sides.all_unanchored is True
    assert sides.unanchored is not None


@pytest.mark.parametrize("pattern", [b"/name", b"a/name", b"**/a/name", b"a/*/name"])
def test_what_holds_in_some_folders_is_asked_there(pattern: bytes) -> None:
    """A list with a pattern of some folders is asked in each, and adds nothing elsewhere."""
    sides = pattern_list(pattern).files
    assert sides.all_unanchored is False
    assert sides.unanchored is None


def test_folders_of_the_same_patterns_share_what_is_made_of_them() -> None:
    """What is made of some patterns is made once, for all folders that they hold in."""
    files = pattern_list(b"**/deep/*.log\n**/docs/*.log\n").files
    assert files.local("a/deep/") is not None
    assert files.local("a/deep/") is files.local("b/c/deep/")
    assert files.local("a/deep/") is not files.local("a/docs/")


def test_a_folder_of_rules_at_depth_leaves_its_files_out() -> None:
    """The same through the whole selection, three folders down."""
    scope = Selection(SelectionSettings()).root().with_files({".gitignore": b"**/deep/y\n"})
    scope = scope.enter("a").enter("b").enter("deep")
    assert not scope.decide("y", is_dir=False).included
    assert scope.decide("z", is_dir=False).included
