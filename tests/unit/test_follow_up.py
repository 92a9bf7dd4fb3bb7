"""Files that change while they are read: the commands that wait for them, and the errors."""

from __future__ import annotations

import pytest

from syncd.sync.outcome import unsettled


@pytest.mark.parametrize(
    ("before", "follow_up", "torn", "left"),
    [
        (None, "", "", ""),
        (None, "ab", "", "ab"),
        (None, "ab", "a", "ab"),
        ("ab", "", "", ""),
        ("ab", "b", "", "b"),
        ("ab", "bc", "", "b"),
        ("a", "bc", "c", "c"),
        ("", "c", "", ""),
    ],
)
def test_unsettled_paths(before: str | None, follow_up: str, torn: str, left: str) -> None:
    """All of the first sync; after a later one those that were named before, and those that are torn now."""
    assert unsettled(before, follow_up, torn) == set(left)
