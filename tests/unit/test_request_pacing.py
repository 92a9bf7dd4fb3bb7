"""The wait before an API request once one was refused for coming too soon."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from syncd.remote.request_pacing import REQUESTS_PER_WINDOW, WINDOW_S, ApiLimit, RequestKind

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
