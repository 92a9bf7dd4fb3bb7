"""Which links stay inside the workspace by their text."""

from __future__ import annotations

import pytest

from syncd.policy.links import stays_inside


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
    """A target inside, however it is written."""
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
    """An absolute target, or one that leaves on its way, even if it comes back."""
    assert not stays_inside(path, target)
