"""Files that change while they are read: the commands that wait for them, and the errors."""

from __future__ import annotations

import pytest

from syncd.sync.follow_up import left_out, still_changing, torn_copy, unsettled


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


def test_the_error_and_the_warning() -> None:
    """They name the paths, what the sandbox has of them, and a remedy, in one line whatever the names."""
    one = str(still_changing(["a b"]))
    assert one == (
        "'a b' kept changing while being read: its copy in the sandbox may be half old and half new, all else is "
        "there: try again when nothing writes there, or leave it out in .syncdignore"
    )
    many = str(still_changing({"e", "d", "c", "b", "a"}))
    assert many.startswith("'a', 'b', 'c' and 2 more kept changing while being read: their copies in the sandbox")
    torn = torn_copy("b")
    assert torn.key == "torn:b"
    assert str(torn) == (
        "'b' was written while it was read: its copy in the sandbox may be half old and half new: "
        "the next sync sends it again; a file that never rests belongs in .syncdignore"
    )


def test_the_error_about_blocked_paths() -> None:
    """It names the paths and a remedy."""
    assert str(left_out(["a"])) == (
        "'a' is not in the sandbox, where something else has that place; all else is there: "
        "`syncd status` names what it is, and what to do before you run `syncd push --force`"
    )
    assert str(left_out(["b", "a"])).startswith("'a', 'b' are not in the sandbox")
