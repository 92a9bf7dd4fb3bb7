"""Links that stay inside the workspace by their target."""

from __future__ import annotations

import os
import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.scan.links import leads_out, stays_inside, turns_back


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("a", "b"),
        ("a", "./b//c/"),
        ("a", "."),
        ("d/a", ".."),
        ("d/a", "../b"),
        ("d/e/a", "../../b"),
        ("a", "d/../b"),
        ("a", "..."),
        ("a", "b\udcff"),
    ],
)
def test_links_that_stay(path: str, target: str) -> None:
    """A target inside stays, however it is written."""
    assert stays_inside(path, target)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("a", ""),
        ("a", "/etc/passwd"),
        ("a", "/"),
        ("a", ".."),
        ("a", "../a"),
        ("d/a", "../../b"),
        ("d/a", "../../d/a"),
        ("a", "d/../../b"),
        ("a", "d/.././/../b"),
    ],
)
def test_links_that_leave(path: str, target: str) -> None:
    """An absolute target leaves, and one that leaves on its way, even if it comes back."""
    assert not stays_inside(path, target)


@pytest.mark.parametrize("target", ["a/..", "../a/../b", "a/./../b", "a//../b", "..a/.."])
def test_targets_that_turn_back(target: str) -> None:
    """A target goes up from a name, which may be a link."""
    assert turns_back(target)


@pytest.mark.parametrize("target", ["", ".", "..", "../../a/b", "./../a", "a/..b", "a/.../b", "/a"])
def test_targets_that_do_not_turn_back(target: str) -> None:
    """A target goes up first, then down."""
    assert not turns_back(target)


@pytest.mark.parametrize(
    ("links", "outside"),
    [
        ({"d/e/up": "../..", "d/out": "e/up/../outside"}, {"d/out"}),
        ({"d/up": "..", "l": "d/up/.."}, {"l"}),
        ({"d/up": "..", "l": "d/up/../x", "m": "l"}, {"l", "m"}),
        ({"d/up": ".", "l": "d/up/../x"}, set()),
        ({"a": "b", "b": "a", "c": "a/../x"}, set()),
        ({"x": "x/../y"}, set()),
        ({"x": "x/x/x/x"}, set()),
        ({"l": "out/../secret"}, set()),
    ],
)
def test_links_through_others(links: dict[str, str], outside: set[str]) -> None:
    """A target that goes up from a link goes up from that link's target; a loop leads nowhere."""
    assert {path for path, target in links.items() if leads_out(path, target, links.get)} == outside


PARTS = st.sampled_from(["..", "..", ".", "", "a", "b", "c"])
LINKS = st.dictionaries(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join),
    st.lists(PARTS, min_size=1, max_size=5).map("/".join),
    max_size=5,
)


@given(LINKS)
def test_links_stay_inside_together_unless_one_turns_back(links: dict[str, str]) -> None:
    """Only for targets that turn back the other links are resolved."""
    # As in a snapshot, nothing is below a link.
    links = {path: text for path, text in links.items() if not any(path.startswith(f"{other}/") for other in links)}
    kept = {path: text for path, text in links.items() if stays_inside(path, text)}
    for path, target in kept.items():
        if leads_out(path, target, kept.get):
            assert any(turns_back(text) for text in kept.values())
        elif not turns_back(target):
            text = posixpath.normpath(os.path.join(posixpath.dirname(path), target))
            assert not text.startswith("..")
