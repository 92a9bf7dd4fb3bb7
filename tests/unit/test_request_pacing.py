"""The wait before an API request once one was refused for coming too soon."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from syncd.remote.bucket import BLOCK_BYTES, CATCH_UP_S, TokenBucket, block_bytes
from syncd.remote.failure import REQUESTS_PER_WINDOW, WINDOW_S, ApiLimit, RequestKind

NOW_S = 1000.0
SINGLE, POLL = RequestKind.SINGLE, RequestKind.POLL


@given(
    st.lists(
        st.tuples(
            st.sampled_from(RequestKind),
            st.floats(0, 2),  # before the request
            st.floats(0, 2),  # until it is counted
            st.floats(0, 2),  # until it is answered
        ),
        max_size=40,
    )
)
def test_no_request_is_one_too_many(requests: list[tuple[RequestKind, float, float, float]]) -> None:
    """However slow the network, no more than two requests, and one poll, are counted within any second."""
    limit, now_s = ApiLimit(), NOW_S
    limit.answered(SINGLE, 429, 0, NOW_S)
    counted: list[tuple[RequestKind, float]] = [(SINGLE, NOW_S)]
    for kind, before_s, sent_s, answer_s in requests:
        now_s += before_s
        now_s += limit.wait_s(kind, now_s)
        limit.count(kind, now_s)
        asked_s = now_s
        now_s += sent_s
        counted.append((kind, now_s))
        now_s += answer_s
        limit.answered(kind, 200, asked_s, now_s)
    rounding_s = 1e-6
    times = [time_s for _, time_s in counted]
    assert all(b - a >= WINDOW_S - rounding_s for a, b in zip(times, times[REQUESTS_PER_WINDOW:], strict=False))
    polls = [time_s for kind, time_s in counted if kind is POLL]
    assert all(b - a >= WINDOW_S - rounding_s for a, b in pairwise(polls))


def test_nothing_waits_that_no_server_has_limited() -> None:
    """Until an answer of 429, and again an hour after the last one."""
    limit = ApiLimit()
    for at_s in (NOW_S, NOW_S, NOW_S):
        assert limit.wait_s(SINGLE, at_s) == 0.0
        limit.count(SINGLE, at_s)
    limit.answered(SINGLE, 429, NOW_S, NOW_S)
    limit.count(SINGLE, NOW_S + 3_599.5)
    limit.count(SINGLE, NOW_S + 3_599.5)
    assert [limit.wait_s(SINGLE, NOW_S + after_s) for after_s in (3_599.75, 3_600.0)] == [0.75, 0.0]


def test_two_are_counted_in_a_second() -> None:
    """The next one waits for the end of the second that began with the first of them."""
    limit = ApiLimit()
    limit.answered(SINGLE, 429, NOW_S, NOW_S)
    assert limit.wait_s(SINGLE, NOW_S) == 0.0
    limit.count(SINGLE, NOW_S + 0.5)
    assert [limit.wait_s(SINGLE, NOW_S + after_s) for after_s in (0.75, 1.0)] == [0.25, 0.0]


# -- the pace of an upload


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
