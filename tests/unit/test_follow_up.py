"""The wait of a command for files that change while they are read, and its message."""

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
def test_what_a_command_waits_for(before: str | None, follow_up: str, torn: str, left: str) -> None:
    """It waits for all of a first sync, and of a later one for the files named before and those torn now."""
    assert unsettled(before, follow_up, torn) == set(left)


def test_the_message() -> None:
    """One line has the names, what the sandbox has of them, and what to do."""
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


def test_the_message_of_blocked_paths() -> None:
    """It has the names and what to do."""
    assert str(left_out(["a"])) == (
        "'a' is not in the sandbox, where something of another kind has that name; all else is there: "
        "`syncd status` names what it is; move it away there, then run `syncd push --force`"
    )
    assert str(left_out(["b", "a"])).startswith("'a', 'b' are not in the sandbox")
