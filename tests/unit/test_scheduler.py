"""The daemon's next action, when a sync that failed is tried again, and what the next scan has to examine."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from syncd.core.errors import (
    ConfigError,
    KeyRefused,
    NearlyEmpty,
    SandboxRefused,
    SnapshotTooLarge,
    SyncdError,
    Unavailable,
    WorkspaceError,
)
from syncd.core.waiter import Event
from syncd.daemon.scheduler import (
    FOLLOW_MAX_WAIT_S,
    FOLLOW_QUIET_S,
    WORKSPACE_POLL_S,
    WORKSPACE_POLL_SHARE,
    Action,
    Due,
    Facts,
    Retry,
    RetryEnds,
    Step,
    Wait,
    ends_a_new_daemon,
    newer_events,
    next_action,
    retry_after,
    retry_at_s,
)
from syncd.remote.failure import RetrySettings
from syncd.sync.outcome import SyncReason
from syncd.sync.status_document import State
from syncd.watch.changes import (
    MAX_DIRTY,
    Burst,
    Changes,
    DirtyDirectories,
    joined,
    unfinished,
)

QUIET_S, LONGEST_S = 1.0, 15.0
NOW_S = 100.0


def due(**values: Any) -> Due:
    return Due(QUIET_S, LONGEST_S, **values)


def facts(**values: Any) -> Facts:
    return Facts(**{"rescan_at_s": NOW_S + 600, **values})


DUE = Burst(NOW_S - 1, NOW_S - 1)
YOUNG = Burst(NOW_S - 0.5, NOW_S - 0.5)
ARRIVED = Burst(NOW_S - 5, NOW_S - 5)
BACKOFF = Retry(RetryEnds.BY_ITSELF, NOW_S + 4)
PERSON = Retry(RetryEnds.WITH_A_PERSON, NOW_S + 60)
CHANGES = Retry(RetryEnds.WITH_CHANGES, NOW_S + 60)
BACKOFF_OVER, PERSON_NOW = Retry(RetryEnds.BY_ITSELF, NOW_S), Retry(RetryEnds.WITH_A_PERSON, NOW_S)


@pytest.mark.parametrize(
    ("given", "told", "action"),
    [
        (due(), facts(), Wait(NOW_S + 600, State.WATCHING)),
        (due(), facts(rescan_at_s=NOW_S), SyncReason.RESCAN),
        (due(starting=True), facts(rescan_at_s=NOW_S), SyncReason.START),
        (due(starting=True), facts(), Wait(NOW_S + 600, State.STARTING)),
        (due(), facts(rescan_at_s=NOW_S, save_at_s=NOW_S), Step.SAVE),
        (due(), facts(rescan_at_s=NOW_S, save_at_s=NOW_S + 1), SyncReason.RESCAN),
        (due(), facts(save_at_s=NOW_S + 700), Wait(NOW_S + 600, State.WATCHING)),
        (due(), facts(paused=True, save_at_s=NOW_S + 1), Wait(NOW_S + 1, State.PAUSED)),
        (due(burst=YOUNG), facts(), Wait(NOW_S + 0.5, State.DEBOUNCING)),
        (due(burst=DUE), facts(), SyncReason.CHANGE),
        (due(burst=YOUNG), facts(rescan_at_s=NOW_S - 5), Wait(NOW_S + 0.5, State.DEBOUNCING)),
        (due(burst=Burst(NOW_S - 15, NOW_S)), facts(), SyncReason.CHANGE),
        (due(burst=Burst(NOW_S - 14, NOW_S)), facts(), Wait(NOW_S + 1, State.DEBOUNCING)),
        (due(burst=DUE, retry=BACKOFF), facts(), Wait(NOW_S + 4, State.RETRYING)),
        (due(retry=BACKOFF_OVER), facts(), SyncReason.RETRY),
        (due(retry=PERSON, burst=DUE), facts(), Wait(NOW_S + 60, State.HELD)),
        (due(retry=PERSON_NOW), facts(), SyncReason.RETRY),
        (due(retry=CHANGES), facts(), Wait(NOW_S + 60, State.HELD)),
        (due(retry=CHANGES, burst=YOUNG), facts(), Wait(NOW_S + 0.5, State.HELD)),
        (due(retry=CHANGES, burst=DUE), facts(), SyncReason.RETRY),
        (due(burst=DUE), facts(paused=True), Wait(inf, State.PAUSED)),
        (due(retry=BACKOFF_OVER), facts(paused=True), Wait(inf, State.PAUSED)),
        (due(), facts(requested=True, paused=True), SyncReason.ORDER),
        (due(retry=PERSON), facts(requested=True), SyncReason.ORDER),
        (due(), facts(requested=True, has_writer=True), Wait(inf, State.WATCHING)),
        (due(burst=DUE), facts(has_writer=True), Wait(inf, State.DEBOUNCING)),
        (due(arrived=ARRIVED), facts(), Step.FOLLOW),
        (due(arrived=Burst(NOW_S, NOW_S)), facts(), Wait(NOW_S + 5, State.WATCHING)),
        (due(arrived=ARRIVED), facts(rescan_at_s=NOW_S), SyncReason.RESCAN),
        (due(arrived=ARRIVED, burst=YOUNG), facts(), Wait(NOW_S + 0.5, State.DEBOUNCING)),
        (due(arrived=ARRIVED, retry=BACKOFF), facts(), Wait(NOW_S + 4, State.RETRYING)),
        (due(arrived=ARRIVED), facts(paused=True), Wait(inf, State.PAUSED)),
        (due(arrived=ARRIVED), facts(has_writer=True), Wait(inf, State.WATCHING)),
        (due(rescan_at_s=NOW_S), facts(), SyncReason.RESCAN),
        (due(rescan_at_s=NOW_S + 5), facts(), Wait(NOW_S + 5, State.WATCHING)),
    ],
)
def test_next_action(given: Due, told: Facts, action: Action) -> None:
    """A request goes first, then a pause, a hold, back-off, a burst, the periodic scan, and last the repository.

    The state while it waits shows what a person requested first, then what a person must fix, then what passes.
    """
    assert next_action(given, told, NOW_S) == action


@pytest.mark.parametrize(
    ("changes_at_s", "expected"), [(inf, 30.0), (-5.0, 1.0), (1.0, 1.0), (2.5, 2.5), (30.0, 30.0), (31.0, 30.0)]
)
def test_a_newer_change_ends_a_wait(changes_at_s: float, expected: float) -> None:
    """Once it is due, and never before the shortest wait."""
    assert retry_at_s(30.0, 1.0, changes_at_s) == expected
    assert retry_at_s(30.0, 30.0, changes_at_s) == 30.0


def test_an_event_makes_another_value() -> None:
    """A burst goes on with each change, and after a sync that gave way; a success and a sleep end the back-off."""
    started = due(burst=YOUNG, starting=True, retry=BACKOFF)
    assert started.begun() == due(retry=BACKOFF)
    assert due().with_change(NOW_S).with_change(NOW_S + 1) == due(burst=Burst(NOW_S, NOW_S + 1))
    assert due(retry=BACKOFF).with_change(NOW_S) == due(burst=Burst(NOW_S, NOW_S), retry=BACKOFF)
    assert due(retry=BACKOFF).given_way(YOUNG) == due(burst=YOUNG, retry=BACKOFF)
    assert due(burst=YOUNG).given_way(DUE) == due(burst=Burst(NOW_S - 1, NOW_S - 0.5))
    synced = due(burst=YOUNG, retry=BACKOFF).synced(NOW_S).synced(NOW_S + 2)
    assert synced == due(burst=YOUNG, arrived=Burst(NOW_S, NOW_S + 2))
    assert due(retry=BACKOFF).woken(60.0, NOW_S) == due(burst=Burst(NOW_S, NOW_S))
    assert due().woken(60.0, NOW_S) == due(burst=Burst(NOW_S, NOW_S))
    held = due(retry=PERSON, burst=DUE).woken(60.0, NOW_S)
    assert held == due(retry=PERSON, burst=Burst(NOW_S - 1, NOW_S))
    asked = due(retry=Retry(RetryEnds.BY_ITSELF, NOW_S + 90, asked_until_s=NOW_S + 90))
    assert asked.woken(60.0, NOW_S).retry == Retry(RetryEnds.BY_ITSELF, NOW_S + 30, 0, NOW_S + 30)


def test_what_ends_the_work_under_way() -> None:
    """What has come does at once; a change, once it is due; the end of the sandbox, at its time."""
    told = facts(requested=True, paused=True, has_writer=True, reloads=True, slept=True, save_at_s=NOW_S + 9)
    assert newer_events(due(burst=YOUNG), told, NOW_S) == {
        **dict.fromkeys(Event, NOW_S),
        Event.SAVE: NOW_S + 9,
        Event.CHANGE: NOW_S + 0.5,
    }
    assert newer_events(due(), facts(), NOW_S) == {Event.SAVE: inf, Event.CHANGE: inf}


def test_the_repository_follows_a_burst_of_syncs() -> None:
    """It follows some seconds after the last one, and at the latest a while after the first one that it lacks."""
    assert due().follow_at_s == inf
    assert due(arrived=Burst(NOW_S, NOW_S + 3)).follow_at_s == NOW_S + 3 + FOLLOW_QUIET_S
    assert due(arrived=Burst(NOW_S, NOW_S + 29)).follow_at_s == NOW_S + FOLLOW_MAX_WAIT_S


# -- after a failure


def after(failure: SyncdError, before: Retry | None = None, **values: Any) -> Retry:
    """Return the next try after a sync of a second that failed now, with the longest of the waits by chance."""
    settings = RetrySettings(first_s=1.0, max_s=8.0, give_up_s=300.0)
    return retry_after(failure, before, settings, NOW_S, **{"took_s": 1.0, "chance": 1.0, **values})


def waits_s(failure: SyncdError) -> list[float]:
    """Return the waits after six failures in a row."""
    tries = [after(failure)]
    for _ in range(5):
        tries.append(after(failure, tries[-1]))
    return [each.at_s - NOW_S for each in tries]


@pytest.mark.parametrize("failure", [Unavailable("no network"), KeyRefused("no")])
def test_waits_are_random(failure: SyncdError) -> None:
    """Laptops whose syncs failed in one moment return in different ones, from a hold too."""
    assert len({after(failure, chance=chance).at_s for chance in (0.0, 0.5, 1.0)}) == 3


@pytest.mark.parametrize(("asked_s", "wait_s"), [(0.0, 1.0), (0.5, 1.0), (900.0, 960.0)])
def test_retry_after_holds_for_the_next_sync(asked_s: float, wait_s: float) -> None:
    """The next sync waits at least as long as `Retry-After` of the last one says."""
    assert after(Unavailable("busy"), asked_s=asked_s).at_s == NOW_S + wait_s


@pytest.mark.parametrize("failure", [KeyRefused("no"), SandboxRefused("no"), ConfigError("no")])
def test_a_refusal_is_held(failure: SyncdError) -> None:
    """Local changes do not end the hold; the API is asked again at growing intervals."""
    assert due(retry=after(failure)).is_held
    assert due(retry=after(failure)).awaits_person
    assert waits_s(failure) == [60, 120, 240, 480, 600, 600]


def test_the_longest_wait() -> None:
    """Waits double up to `retry.max_delay_seconds`, however long an outage lasts; after another failure, anew."""
    assert not due(retry=after(Unavailable("no network"))).is_held
    assert waits_s(Unavailable("no network")) == [1, 2, 4, 8, 8, 8]
    assert after(Unavailable("no network"), PERSON).at_s == NOW_S + 1


@pytest.mark.parametrize(
    ("failure", "took_s", "wait_s"),
    [
        (SnapshotTooLarge("no"), 1.0, 60.0),
        (WorkspaceError("no"), 0.1, WORKSPACE_POLL_S),
        (WorkspaceError("no"), 60.0, 60 * WORKSPACE_POLL_SHARE),
    ],
)
def test_what_changes_may_mend_is_held_for_them(failure: SyncdError, took_s: float, wait_s: float) -> None:
    """A snapshot that is too large is tried again at the next change; a workspace that is away, soon besides."""
    retry = after(failure, took_s=took_s)
    assert retry == Retry(RetryEnds.WITH_CHANGES, NOW_S + wait_s)
    assert due(retry=retry).is_held
    assert not due(retry=retry).awaits_person


def test_suspend_time_counts_for_retry_after() -> None:
    """A suspend ends syncd's own back-off and no hold, and shortens a server's `Retry-After` by its length."""
    asked = after(Unavailable("busy"), asked_s=3600.0).woken(600.0)
    assert asked.at_s == NOW_S + 3000
    again = asked.woken(1000.0)
    assert again.at_s == NOW_S + 2000
    assert after(Unavailable("busy"), again).at_s == NOW_S + 1
    assert after(Unavailable("no network")).woken(1.0) is None
    assert PERSON.woken(1.0) == PERSON


@pytest.mark.parametrize(
    ("failure", "ends"),
    [
        (KeyRefused("x"), True),
        (WorkspaceError("x"), True),
        (NearlyEmpty("x"), False),
        (SnapshotTooLarge("x"), False),
        (Unavailable("x"), False),
    ],
)
def test_errors_that_end_a_daemon_before_its_first_sync(failure: SyncdError, *, ends: bool) -> None:
    """Wrong keys, sandboxes and paths end it; errors that may pass by themselves do not."""
    assert ends_a_new_daemon(failure) is ends


# -- what events leave behind


def test_what_are_changes() -> None:
    """A directory, or that there may be others; a written file has no scan begin."""
    found = [Changes(), Changes(modified=frozenset("f")), Changes(dirty=frozenset("d")), Changes(rescan=True)]
    assert [bool(each) for each in found] == [False, False, True, True]


def test_the_directories_of_a_scan() -> None:
    """At first all, then those that were reported, once; all again where nobody knows which, or a full scan is due."""
    dirty = DirtyDirectories(rescan_s=600.0)
    assert dirty.rescan_at_s == -inf
    assert dirty.take(5.0) is None
    dirty.add(Changes(dirty=frozenset(("a", "b"))))
    dirty.add(Changes(dirty=frozenset(("c",))))
    assert [dirty.take(6.0), dirty.take(6.0)] == [{"a", "b", "c"}, frozenset()]
    since_s = [(7.0, 4.9), (7.0, 5.0), (8.0, 5.0), (9.0, 7.0)]
    assert [dirty.take(now_s, all_since_s) for now_s, all_since_s in since_s] == [set(), None, set(), None]
    assert [dirty.take(608.9), dirty.take(609.0), dirty.take(609.0)] == [set(), None, set()]
    for changes in (Changes(rescan=True), Changes(dirty=frozenset(map(str, range(MAX_DIRTY + 1))))):
        dirty.add(changes)
        assert [dirty.take(610.0), dirty.take(610.0)] == [None, set()]
    dirty.add(Changes(dirty=frozenset(map(str, range(MAX_DIRTY)))))
    assert len(dirty.take(610.0) or ()) == MAX_DIRTY


def test_two_bursts_are_one() -> None:
    """It begins with the earlier one, and ends with the last change of both."""
    burst = Burst(1.0, 3.0)
    assert joined(burst, Burst(2.0, 4.0)) == Burst(1.0, 4.0)
    assert joined(burst, Burst(-inf, -inf)) == burst
    assert joined(burst, None) == burst


def test_when_a_burst_goes_on_in_what_a_scan_found() -> None:
    """Until the quiet time since that is over, and never longer than the longest wait since its first change."""
    burst = Burst(1.0, 3.0)
    assert unfinished(burst, 4.0, 5.9, 2.0, 10.0) == Burst(1.0, 4.0)
    assert unfinished(burst, 4.0, 6.0, 2.0, 10.0) is None
    assert unfinished(burst, 4.0, 4.4, 2.0, 3.5) == Burst(1.0, 4.0)
    assert unfinished(burst, 4.0, 4.5, 2.0, 3.5) is None
    assert unfinished(burst, -inf, 5.0, 2.0, 10.0) is None
