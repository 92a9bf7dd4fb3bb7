"""Consequences of a failed sync: backoff for what passes by itself, a hold for what a person must fix."""

from __future__ import annotations

import pytest

from syncd.core.errors import (
    ConfigError,
    KeyRefused,
    NearlyEmpty,
    SandboxRefused,
    SnapshotTooLarge,
    SyncdError,
    TryLater,
    Unavailable,
    WorkspaceError,
)
from syncd.daemon.scheduler import (
    WORKSPACE_POLL_S,
    WORKSPACE_POLL_SHARE,
    FailureBackoff,
    Hold,
    HoldEnds,
    ends_a_new_daemon,
)
from syncd.remote.failure import RetrySettings

NOW_S = 1000.0


def backoff() -> FailureBackoff:
    return FailureBackoff(RetrySettings(first_s=1.0, max_s=8.0, give_up_s=300.0))


def test_waits_are_random() -> None:
    """Laptops whose syncs failed in one moment return in different ones, from a hold too."""
    for failure in (Unavailable("no network"), KeyRefused("no")):
        waits = set()
        for chance in (0.0, 0.5, 1.0):
            after = backoff()
            after.after(failure, NOW_S, 1.0, chance)
            waits.add(after.hold.recheck_s if after.hold is not None else after.not_before_s)
        assert len(waits) == 3


@pytest.mark.parametrize(("asked_s", "wait_s"), [(0.0, 1.0), (0.5, 1.0), (900.0, 960.0)])
def test_retry_after_holds_for_the_next_sync(asked_s: float, wait_s: float) -> None:
    """The next sync waits at least as long as `Retry-After` of the last one says."""
    after = backoff()
    after.after(Unavailable("busy"), NOW_S, 1.0, 1.0, asked_s)
    assert after.not_before_s == NOW_S + wait_s


@pytest.mark.parametrize("failure", [KeyRefused("no"), SandboxRefused("no"), ConfigError("no")])
def test_a_refusal_is_held(failure: SyncdError) -> None:
    """Local changes do not end the hold; the API is asked again at growing intervals."""
    after = backoff()
    waits = []
    for _ in range(6):
        after.after(failure, NOW_S, 1.0, 1.0)
        assert after.hold is not None
        assert after.hold.ends is HoldEnds.WITH_A_PERSON
        assert after.waits_for_person
        waits.append(after.hold.recheck_s - NOW_S)
    assert waits == [60, 120, 240, 480, 600, 600]
    assert after.not_before_s is None


def test_what_changes_may_mend_is_held_for_them() -> None:
    """A snapshot that is too large is tried again at the next change; a workspace that is away, soon besides."""
    after = backoff()
    after.after(SnapshotTooLarge("no"), NOW_S, 1.0, 1.0)
    assert after.hold == Hold(HoldEnds.WITH_CHANGES, NOW_S + 60)
    assert not after.waits_for_person
    for took_s, recheck_s in ((0.1, WORKSPACE_POLL_S), (60.0, 60 * WORKSPACE_POLL_SHARE)):
        after.after(WorkspaceError("no"), NOW_S, took_s, 1.0)
        assert after.hold == Hold(HoldEnds.WITH_CHANGES, NOW_S + recheck_s)


def test_suspend_time_counts_for_retry_after() -> None:
    """A suspend ends syncd's own backoff, and shortens a server's `Retry-After` by its length."""
    after = backoff()
    after.after(Unavailable("busy"), NOW_S, 1.0, 1.0, asked_s=3600.0)
    after.woke(600.0)
    assert after.not_before_s == NOW_S + 3000
    after.woke(1000.0)
    assert after.not_before_s == NOW_S + 2000
    after.after(Unavailable("no network"), NOW_S, 1.0, 1.0)
    after.woke(1.0)
    assert after.not_before_s is None
    after.woke(1.0)
    assert after.not_before_s is None


def test_nothing_failed_yet() -> None:
    """Nothing is waited for, and a sleep changes nothing."""
    after = backoff()
    assert (after.hold, after.not_before_s) == (None, None)
    after.woke(5.0)
    assert (after.hold, after.not_before_s) == (None, None)
    assert not after.waits_for_person


def test_a_success_begins_anew() -> None:
    """The next wait and the next hold are as the first ones."""
    after = backoff()
    for failure in (KeyRefused("no"), Unavailable("no network")):
        firsts = []
        for _ in range(2):
            after.after(failure, NOW_S, 1.0, 1.0)
            firsts.append((after.hold, after.not_before_s))
            after.after(failure, NOW_S, 1.0, 1.0)
            after.clear()
            assert (after.hold, after.not_before_s) == (None, None)
        assert firsts[0] == firsts[1]


def test_the_longest_wait() -> None:
    """Waits double up to `retry.max_delay_seconds`, however long an outage lasts."""
    after, waits = backoff(), []
    for _ in range(6):
        after.after(Unavailable("no network"), NOW_S, 1.0, 1.0)
        assert after.not_before_s is not None
        waits.append(after.not_before_s - NOW_S)
    assert waits == [1, 2, 4, 8, 8, 8]


@pytest.mark.parametrize(
    ("failure", "ends"),
    [
        (KeyRefused("x"), True),
        (SandboxRefused("x"), True),
        (WorkspaceError("x"), True),
        (ConfigError("x"), True),
        (NearlyEmpty("x"), False),
        (SnapshotTooLarge("x"), False),
        (Unavailable("x"), False),
        (TryLater("x"), False),
    ],
)
def test_errors_that_end_a_daemon_before_its_first_sync(failure: SyncdError, *, ends: bool) -> None:
    """Wrong keys, sandboxes and paths end it; errors that may pass by themselves do not."""
    assert ends_a_new_daemon(failure) is ends
