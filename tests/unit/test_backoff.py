"""What follows from a failed sync: back-off for what passes, a hold for what a person must mend."""

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
from syncd.daemon.backoff import FailureBackoff, ends_a_new_daemon
from syncd.daemon.scheduler import HoldEnds
from syncd.remote.retry import RetrySettings

NOW_S = 1000.0


def backoff() -> FailureBackoff:
    return FailureBackoff(RetrySettings(first_s=1.0, max_s=8.0, give_up_s=300.0))


def test_what_passes_is_backed_off_from() -> None:
    """The wait doubles with each sync that failed, up to the longest; a success brings the first one back."""
    after = backoff()
    waits = []
    for _ in range(6):
        after.after(Unavailable("no network"), NOW_S, 1.0)
        assert after.hold is None
        assert after.not_before_s is not None
        waits.append(after.not_before_s - NOW_S)
    assert waits == [1, 2, 4, 8, 8, 8]
    after.clear()
    assert after.not_before_s is None
    after.after(TryLater("full disk"), NOW_S, 1.0)
    assert after.not_before_s == NOW_S + 1


@pytest.mark.parametrize(("asked_s", "wait_s"), [(0.0, 1.0), (0.5, 1.0), (900.0, 900.0)])
def test_a_servers_wish_outlasts_a_sync(asked_s: float, wait_s: float) -> None:
    """What `Retry-After` asked for is kept to by the next sync as well."""
    after = backoff()
    after.after(Unavailable("busy"), NOW_S, 1.0, asked_s)
    assert after.not_before_s == NOW_S + wait_s


@pytest.mark.parametrize("failure", [KeyRefused("no"), SandboxRefused("no"), ConfigError("no")])
def test_a_refusal_waits_for_a_person(failure: SyncdError) -> None:
    """Changes at home do not mend it; the API is asked again slowly, and ever more so."""
    after = backoff()
    waits = []
    for _ in range(6):
        after.after(failure, NOW_S, 1.0)
        assert after.hold is not None
        assert after.hold.ends is HoldEnds.WITH_A_PERSON
        assert after.waits_for_person
        waits.append(after.hold.recheck_s - NOW_S)
    assert waits == [60, 120, 240, 480, 600, 600]
    assert after.not_before_s is None


@pytest.mark.parametrize(
    ("failure", "took_s", "wait_s"),
    [
        (WorkspaceError("missing"), 0.01, 2.0),
        (NearlyEmpty("emptied"), 0.01, 2.0),
        (NearlyEmpty("emptied"), 3.0, 60.0),
        (SnapshotTooLarge("large"), 0.01, 60.0),
    ],
)
def test_what_is_wrong_at_home_is_looked_at(failure: SyncdError, took_s: float, wait_s: float) -> None:
    """A workspace that came back is found soon, without a scan taking more than a small part of the time."""
    after = backoff()
    after.after(failure, NOW_S, took_s)
    assert after.hold is not None
    assert (after.hold.ends, after.hold.recheck_s) == (HoldEnds.WITH_CHANGES, NOW_S + wait_s)
    assert not after.waits_for_person


def test_the_last_failure_counts() -> None:
    """A refusal after a network failure holds, a network failure after a refusal is tried again."""
    after = backoff()
    after.after(KeyRefused("no"), NOW_S, 1.0)
    after.after(Unavailable("no network"), NOW_S, 1.0)
    assert after.hold is None
    assert after.not_before_s is not None
    after.woke(10.0)
    assert after.not_before_s is None


def test_a_sleep_counts_for_what_a_server_asked_for() -> None:
    """A nap ends our own back-off, and of a server's `Retry-After` as much as it lasted."""
    after = backoff()
    after.after(Unavailable("busy"), NOW_S, 1.0, asked_s=3600.0)
    after.woke(600.0)
    after.woke(1000.0)
    assert after.not_before_s == NOW_S + 2000
    after.after(Unavailable("no network"), NOW_S, 1.0)
    after.woke(1.0)
    assert after.not_before_s is None
    after.woke(1.0)
    assert after.not_before_s is None


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
def test_what_ends_a_daemon_that_never_synced(failure: SyncdError, *, ends: bool) -> None:
    """Wrong keys, sandboxes and paths do; what may pass by itself does not."""
    assert ends_a_new_daemon(failure) is ends
