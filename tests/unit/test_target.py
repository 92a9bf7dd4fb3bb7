"""The replacement of acquired sandboxes, and the limit of acquisitions."""

from __future__ import annotations

import pytest

from syncd.remote.target import AcquiredSandbox, Target, ends_at, margin_s, replace_in_s
from syncd.sandbox.provider import SPAN_S, acquire_wait_s, callable_servers


@pytest.mark.parametrize(
    ("life_s", "age_s", "left_s"),
    [
        (7200, 0, 7140.0),
        (7200, 7100, 40.0),
        (7200, 7140, 0.0),
        (7200, 9000, 0.0),
        (60, 53, 1.0),
        (60, 54, 0.0),
        (None, 1e9, None),
        (7200, -0.5, None),
    ],
)
def test_the_next_one_is_due_before_the_end(life_s: float | None, age_s: float, left_s: float | None) -> None:
    """It is replaced a minute before its end, or a tenth of a short lifetime; not by a clock that was set back."""
    acquired_sandbox = AcquiredSandbox("box", 1000.0, None if life_s is None else 1000.0 + life_s, {})
    assert replace_in_s(acquired_sandbox, 1000.0 + age_s) == left_s


@pytest.mark.parametrize(
    ("ages_s", "wanted_s"),
    [
        ([], 0.0),
        ([1, 2], 0.0),
        ([1, 2, 3], SPAN_S - 3),
        ([1, 2, 3, 4], SPAN_S - 3),
        ([1, 2, SPAN_S], 0.0),
        ([1, 2, SPAN_S - 1], 1.0),
        ([-1, -2, -3], 0.0),
        ([0, 0, 0.5], SPAN_S - 0.5),
    ],
)
def test_at_most_three_are_acquired_in_ten_minutes(ages_s: list[float], wanted_s: float) -> None:
    """Three are acquired in ten minutes; the fourth waits until the first of them is ten minutes old."""
    assert acquire_wait_s([5000.0 - age_s for age_s in ages_s], 5000.0) == pytest.approx(wanted_s)


def test_one_that_never_ends_needs_no_time_for_the_next() -> None:
    """One of two hours needs a minute."""
    assert [margin_s(AcquiredSandbox("box", 0.0, ends_s, {})) for ends_s in (None, 7200.0)] == [0.0, 60.0]


def test_one_sandbox_by_two_ways() -> None:
    """The region is only the way there; what is known of it has the name of the sandbox."""
    one, other = Target("https://h", "box", "us"), Target("https://h", "box", "asia")
    assert one.same_sandbox(other)
    assert one.owner == other.owner == "https://h box"
    assert not any(map(one.same_sandbox, (Target("https://h", "box2", "us"), Target("https://i", "box", "us"))))


def test_the_end_of_a_sandbox() -> None:
    """None has one that never ends, or that was not acquired."""
    ends = [AcquiredSandbox("box", 0.0, ends_s, {}) for ends_s in (86_400.0, None)]
    assert [*map(ends_at, (*ends, None))] == ["1970-01-02T00:00:00Z", None, None]


# -- its servers


HOSTILE = {
    "git": "https://host/$(touch${IFS}x)?t='\"`id`",
    "GIT": "https://host/second",
    "a;b\nc": "http://host/x",
    "blank": "https://host/a b",
    "line": "https://host/\nexport PATH=",
    "other": "javascript:alert(1)",
    "none": "",
    "": "https://host/nameless",
}


def test_only_a_usable_address_is_passed_on() -> None:
    """A callable server has a name and a valid http address."""
    assert set(callable_servers(HOSTILE)) == {"git", "GIT", "a;b\nc"}
