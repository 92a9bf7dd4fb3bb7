"""The pace of an upload: never above the limit, and hardly below, whatever the clock does."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from syncd.remote.bucket import BLOCK_BYTES, CATCH_UP_S, TokenBucket, block_bytes

limits = st.integers(1 << 10, 100 << 20)
# By how much a wait is longer than asked, or a send takes: a timer's lateness, a stall of the network, an hour.
delays = st.one_of(st.just(0.0), st.floats(0, CATCH_UP_S / 2), st.floats(0, 5), st.just(3600.0))


@pytest.mark.parametrize(
    ("limit", "size"),
    [(0, BLOCK_BYTES), (10 << 20, BLOCK_BYTES), (100 << 10, 2560), (1 << 10, 1 << 10), (1, 1 << 10)],
)
def test_blocks_are_smaller_at_a_lower_rate(limit: int, size: int) -> None:
    """A block is a fortieth of a second's bytes, within bounds."""
    assert block_bytes(limit) == size


def sending(limit: int, delayed_s: list[tuple[float, float]]) -> list[tuple[float, int]]:
    """Return when blocks are sent, and their sizes; each wait and each send takes so much too long."""
    now_s = 100.0
    token_bucket = TokenBucket(now_s)
    sent = []
    for late_s, stalled_s in delayed_s:
        token_bucket = token_bucket.refilled(now_s, limit)
        wait_s = token_bucket.wait_s(limit)
        now_s += wait_s + late_s if wait_s else 0.0
        token_bucket = token_bucket.refilled(now_s, limit)
        assert token_bucket.wait_s(limit) < 1e-6, "one wait is enough where nothing changes"
        sent.append((now_s, block_bytes(limit)))
        token_bucket = token_bucket.consumed(block_bytes(limit))
        now_s += stalled_s
    return sent


@given(limits, st.lists(st.tuples(delays, delays), min_size=1, max_size=60))
@example(1 << 20, [(0.0, 0.0)] * 20 + [(0.0, 10.0)] + [(0.0, 0.0)] * 20)
def test_no_period_exceeds_the_limit(limit: int, delayed_s: list[tuple[float, float]]) -> None:
    """Between any two blocks no more is sent than the limit allows, the catch-up, and a block."""
    sent = sending(limit, delayed_s)
    most = CATCH_UP_S * limit + block_bytes(limit) + 2  # a part of a byte is not waited for
    before = [0, *accumulate(size for _, size in sent)]
    for first, (since_s, _) in enumerate(sent):
        for last in range(first, len(sent)):
            went = before[last + 1] - before[first]
            assert went <= limit * (sent[last][0] - since_s) * (1 + 1e-9) + most


@given(limits, st.lists(st.floats(0, CATCH_UP_S), min_size=1, max_size=200))
def test_late_timers_do_not_slow_the_upload(limit: int, late_s: list[float]) -> None:
    """If each wait is too long by at most the catch-up, the last block is late by at most that."""
    sent = sending(limit, [(each_s, 0.0) for each_s in late_s])
    ideal_s = 100.0 + sum(size for _, size in sent[:-1]) / limit
    assert sent[-1][0] <= ideal_s + CATCH_UP_S + 1e-6


@given(limits, st.floats(0.1, 1e6))
def test_a_stall_is_not_made_up_for(limit: int, stall_s: float) -> None:
    """After a stall all is as at the beginning, except for the catch-up."""
    token_bucket = TokenBucket(0.0).consumed(block_bytes(limit)).refilled(stall_s + block_bytes(limit) / limit, limit)
    assert token_bucket.ahead_bytes == pytest.approx(-CATCH_UP_S * limit)


@given(limits, st.floats(0, 1e6))
def test_a_clock_that_goes_back_holds_nothing_up(limit: int, back_s: float) -> None:
    """A clock that went back leaves the wait as it was."""
    token_bucket = TokenBucket(1e6).consumed(block_bytes(limit))
    assert token_bucket.refilled(1e6 - back_s, limit).wait_s(limit) == token_bucket.wait_s(limit)


@given(limits, limits)
def test_another_limit_holds_from_the_next_block_on(old: int, new: int) -> None:
    """Bytes sent under the old limit delay the new one by at most one of its blocks."""
    token_bucket = TokenBucket(0.0).refilled(0.0, old).consumed(block_bytes(old)).refilled(0.0, new)
    assert token_bucket.wait_s(new) <= block_bytes(new) / new


def test_without_a_limit_there_is_no_wait() -> None:
    """Without a limit nothing waits, and a later limit does not count earlier bytes."""
    token_bucket = TokenBucket(0.0)
    for _ in range(1000):
        token_bucket = token_bucket.refilled(0.0, 0).consumed(BLOCK_BYTES)
        assert token_bucket.wait_s(0) == 0
    assert token_bucket.refilled(0.0, 1 << 20).wait_s(1 << 20) <= BLOCK_BYTES / (1 << 20)


def test_an_even_pace() -> None:
    """With punctual timers the blocks are sent at even intervals from the first one on."""
    sent = sending(1 << 20, [(0.0, 0.0)] * 100)
    gaps = [then - now for (now, _), (then, _) in pairwise(sent)]
    assert max(gaps) == pytest.approx(min(gaps), rel=0.01)
