"""Which links stay inside the workspace by their text, and how an upload keeps its pace."""

from __future__ import annotations

import pytest

from syncd.policy.links import stays_inside
from syncd.policy.pace import BLOCK_BYTES, block_bytes, wait_s


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


@pytest.mark.parametrize(
    ("limit", "size"),
    [(0, BLOCK_BYTES), (10 << 20, BLOCK_BYTES), (100 << 10, 10 << 10), (1 << 10, 1 << 10), (1, 1 << 10)],
)
def test_blocks_are_smaller_at_a_lower_rate(limit: int, size: int) -> None:
    """A tenth of a second's bytes a block, within bounds."""
    assert block_bytes(limit) == size


@pytest.mark.parametrize(
    ("sent", "elapsed_s", "limit", "wait"),
    [
        (0, 0.0, 1000, 0.0),
        (1000, 0.0, 1000, 1.0),
        (1000, 0.4, 1000, 0.6),
        (1000, 5.0, 1000, 0.0),
        (1 << 30, 0.0, 0, 0.0),
    ],
)
def test_the_wait_before_a_block(sent: int, elapsed_s: float, limit: int, wait: float) -> None:
    """As long as the rate is ahead of the clock, and not at all without a limit."""
    assert wait_s(sent, elapsed_s, limit) == wait
