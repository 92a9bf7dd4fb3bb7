"""The rule of desktop notifications: failing that lasts, success only after it, and at most four in any hour."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.report.notification_rules import (
    HOUR_S,
    MOST_BEFORE_FAILING,
    NEEDED_AFTER_S,
    REPEAT_AFTER_S,
    SUCCESS_TRIES,
    TRY_AGAIN_S,
    AgentEvent,
    Condition,
    Healthy,
    NoticeState,
    NotificationKind,
    SavedWork,
    UnsavedWork,
    after_event_shown,
    after_failed_event,
    after_failed_try,
    after_failure,
    after_saved,
    after_shown,
    plan,
    plan_event,
    render,
    render_event,
)

AFTER_S = 900.0
ROUNDING_S = 0.01
FAILING, NEEDED, IN_SYNC, SAVED, UNSAVED = NotificationKind
ZONE = timezone(timedelta(hours=1))
SINCE = datetime(2026, 11, 24, 14, 5, tzinfo=ZONE)


@dataclass
class Simulation:
    """A daemon and a desktop, with made-up time; `shown` has each notification with its wall time."""

    now_s: float = 1_000.0
    wall_s: float = 5_000.0
    condition: Condition = None
    state: NoticeState = field(default_factory=NoticeState)
    desktop_runs: bool = True
    shown: list[tuple[float, NotificationKind]] = field(default_factory=list)
    tries: int = 0

    def fail(self, text: str = "no network", *, needs_person: bool = False) -> None:
        self.condition = after_failure(self.condition, text, self.now_s, 0.0, needs_person=needs_person)
        self._show_due()

    def hold(self, text: str = "the key is refused") -> None:
        self.fail(text, needs_person=True)

    def succeed(self) -> None:
        self.condition = Healthy()
        self._show_due()

    def pause(self) -> None:
        self.condition = None

    def restart(self) -> None:
        """Start another process, after another boot."""
        self.condition = None
        self.state = NoticeState(self.state.kind, self.state.trouble, self.state.times)
        self.now_s = 7.0

    def wait(self, seconds: float) -> None:
        """Time awake, with a loop that wakes when something is due."""
        end_s = self.now_s + seconds
        while (due_s := self.due_s) is not None and due_s <= end_s:
            before = self.tries
            self._pass(max(0.0, due_s - self.now_s))
            self._show_due()
            if self.tries == before:  # a hair too early, by rounding
                self._pass(0.001)
        self._pass(max(0.0, end_s - self.now_s))

    def sleep(self, seconds: float) -> None:
        self.wall_s += seconds
        self._show_due()

    @property
    def due_s(self) -> float | None:
        planned = plan(self.condition, self.state, AFTER_S, self.now_s, self.wall_s)
        return None if planned is None else planned.at_s

    @property
    def kinds(self) -> list[NotificationKind]:
        return [kind for _, kind in self.shown]

    def _pass(self, seconds: float) -> None:
        self.now_s += seconds
        self.wall_s += seconds

    def _show_due(self) -> None:
        due = plan(self.condition, self.state, AFTER_S, self.now_s, self.wall_s)
        if due is None or due.at_s > self.now_s:
            return
        self.tries += 1
        if self.desktop_runs:
            self.shown.append((self.wall_s, due.kind))
            self.state = after_shown(self.state, due.kind, self.condition, self.wall_s)
        else:
            self.state = after_failed_try(self.state, due.kind, self.now_s)


def test_short_failures_are_not_shown() -> None:
    """Neither a failure that does not last, nor the success after it."""
    daemon = Simulation()
    daemon.succeed()
    for _ in range(50):
        daemon.fail()
        daemon.wait(AFTER_S - 1)
        daemon.succeed()
        daemon.wait(10)
    assert daemon.shown == []


def test_failing_is_shown_once_it_lasts_and_then_once_a_day() -> None:
    """However often it fails, and whatever the failures say; then success, once."""
    daemon = Simulation()
    daemon.fail()
    daemon.wait(AFTER_S - 0.1)
    assert daemon.kinds == []
    daemon.wait(0.2)
    for number in range(23):
        daemon.wait(HOUR_S)
        daemon.fail(f"something else {'x' * number}")
    assert daemon.kinds == [FAILING]
    daemon.wait(HOUR_S)
    assert daemon.kinds == [FAILING, FAILING]
    daemon.succeed()
    daemon.succeed()
    assert daemon.kinds == [FAILING, FAILING, IN_SYNC]


def test_suspend_time_does_not_count() -> None:
    """Only the time that the machine is awake counts."""
    daemon = Simulation()
    daemon.fail()
    daemon.wait(60)
    daemon.sleep(8 * HOUR_S)
    daemon.wait(AFTER_S - 61)
    assert daemon.kinds == []
    daemon.wait(2)
    assert daemon.kinds == [FAILING]


@pytest.mark.parametrize(("after_s", "wait_s"), [(AFTER_S, NEEDED_AFTER_S), (5.0, 5.0)])
def test_a_hold_is_notified_sooner(after_s: float, wait_s: float) -> None:
    """After a minute, or as soon as failing is shown."""
    condition = after_failure(None, "the key is refused", 100.0, 0.0, needs_person=True)
    due = plan(condition, NoticeState(), after_s, 100.0, 5_000.0)
    assert due is not None
    assert (due.kind, due.at_s) == (NEEDED, 100.0 + wait_s)


def test_the_same_hold_is_repeated_after_a_day() -> None:
    """By wall time: a day with the lid closed is a day. Other numbers make it no other hold."""
    daemon = Simulation()
    daemon.hold("3 files where it held 40")
    daemon.wait(NEEDED_AFTER_S)
    for number in range(100):
        daemon.wait(800)
        daemon.hold(f"{number} files where it held 40")
    assert daemon.kinds == [NEEDED]
    daemon.sleep(REPEAT_AFTER_S)
    assert daemon.kinds == [NEEDED, NEEDED]


def test_another_hold_is_shown() -> None:
    """A new key shows that the sandbox is gone, too; a failing network in between is not shown."""
    daemon = Simulation()
    for text in ("the key is refused", "the key is refused", "the sandbox is gone"):
        daemon.hold(text)
        daemon.wait(NEEDED_AFTER_S)
        daemon.fail()
        daemon.wait(AFTER_S)
    assert daemon.kinds == [NEEDED, NEEDED]


def test_a_failure_that_becomes_a_hold() -> None:
    """The hold is shown soon although the failure was."""
    daemon = Simulation()
    daemon.fail()
    daemon.wait(AFTER_S)
    daemon.hold()
    daemon.wait(NEEDED_AFTER_S)
    assert daemon.kinds == [FAILING, NEEDED]


def test_the_same_hold_after_success_is_shown() -> None:
    """The last notification said that all is well."""
    daemon = Simulation()
    for _ in range(2):
        daemon.hold()
        daemon.wait(NEEDED_AFTER_S)
        daemon.succeed()
    assert daemon.kinds == [NEEDED, IN_SYNC] * 2


def test_three_in_an_hour_delay_failing_but_not_success() -> None:
    """What is over does not stay on the screen."""
    daemon = Simulation()
    for number in range(10):
        daemon.hold(f"trouble {'x' * number}")
        daemon.wait(NEEDED_AFTER_S)
    assert daemon.kinds == [NEEDED] * MOST_BEFORE_FAILING
    daemon.succeed()
    assert daemon.kinds[MOST_BEFORE_FAILING:] == [IN_SYNC]
    daemon.hold("another trouble")
    daemon.wait(NEEDED_AFTER_S)
    assert daemon.kinds[-1] is IN_SYNC
    daemon.wait(HOUR_S)
    assert daemon.kinds[-1] is NEEDED


def test_without_a_desktop() -> None:
    """Tried now and then; a person who logs in later reads it. Success is given up soon, and then shown no more."""
    daemon = Simulation(desktop_runs=False)
    daemon.fail()
    daemon.wait(AFTER_S + 10 * TRY_AGAIN_S)
    assert daemon.tries == 11
    daemon.desktop_runs = True
    daemon.wait(TRY_AGAIN_S)
    assert daemon.kinds == [FAILING]
    daemon.desktop_runs = False
    daemon.succeed()
    daemon.wait(SUCCESS_TRIES * TRY_AGAIN_S)
    daemon.desktop_runs = True
    daemon.wait(REPEAT_AFTER_S)
    assert daemon.kinds == [FAILING]
    daemon.fail()
    daemon.wait(AFTER_S)
    assert daemon.kinds == [FAILING, FAILING]


def test_an_idle_daemon_is_not_woken() -> None:
    """Nothing is planned after success, in a pause, and at the start."""
    daemon = Simulation()
    for act in (daemon.succeed, daemon.pause, daemon.restart):
        act()
        assert daemon.due_s is None


def test_a_clock_that_was_set_back() -> None:
    """Times that are still to come are ignored: a notification may be repeated, and none is delayed by years."""
    daemon = Simulation()
    for _ in range(3):
        daemon.hold()
        daemon.wait(NEEDED_AFTER_S)
        daemon.succeed()
    daemon.wall_s -= 365 * REPEAT_AFTER_S
    daemon.hold()
    daemon.wait(NEEDED_AFTER_S)
    assert daemon.kinds[-1] is NEEDED


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["fail", "hold a", "hold b", "hold 1", "hold 2", "succeed", "pause", "restart", "desktop", "none", "sleep"]
        ),
        st.sampled_from([0.0, 1.0, 59.0, 60.0, 61.0, 700.0, 900.0, 3_601.0, 40_000.0, 90_000.0]),
    ),
    max_size=120,
)


@settings(max_examples=400, deadline=None)
@given(_EVENTS, st.booleans())
def test_any_sequence(events: list[tuple[str, float]], needs_person: bool) -> None:
    """Four in any hour at most, success only after failing; failing that stays is shown, and its end at once."""
    daemon = Simulation()
    for event, seconds in events:
        before = len(daemon.shown)
        match event.split():
            case ["fail"]:
                daemon.fail()
            case ["hold", text]:
                daemon.hold(f"trouble {text}")
            case ["succeed"]:
                daemon.succeed()
            case ["pause"]:
                daemon.pause()
            case ["restart"]:
                daemon.restart()
            case ["sleep"]:
                daemon.sleep(seconds)
            case ["desktop" | "none" as desktop]:
                daemon.desktop_runs = desktop == "desktop"
        is_unknown = daemon.condition is None
        if event != "sleep":
            daemon.wait(seconds)
        assert not (is_unknown and len(daemon.shown) > before)
    times = [time_s for time_s, _ in daemon.shown]
    for first_s in times:
        assert sum(first_s <= time_s < first_s + HOUR_S - ROUNDING_S for time_s in times) <= MOST_BEFORE_FAILING + 1
    for position, kind in enumerate(daemon.kinds):
        if kind is IN_SYNC:
            assert position > 0
            assert daemon.kinds[position - 1] in (FAILING, NEEDED)
    assert daemon.tries - len(daemon.shown) <= (daemon.wall_s - 5_000.0) / TRY_AGAIN_S + len(events) + 1
    daemon.desktop_runs = True
    daemon.fail("the end", needs_person=needs_person)
    daemon.wait(REPEAT_AFTER_S + AFTER_S)
    assert daemon.state.kind in (FAILING, NEEDED)
    daemon.succeed()
    assert daemon.kinds[-1] is IN_SYNC


@pytest.mark.parametrize(
    ("kind", "now", "summary", "body"),
    [
        (
            FAILING,
            SINCE + timedelta(hours=1),
            "work is not synced",
            "Since 14:05: {}\nIt goes on by itself; ",
        ),
        (NEEDED, SINCE + timedelta(hours=1), "work is not synced: you are needed", "Since 14:05: {}"),
        (
            NEEDED,
            SINCE + timedelta(days=1),
            "work is not synced: you are needed",
            "Since 2026-11-24 14:05: {}",
        ),
    ],
)
def test_the_text_of_failing(kind: NotificationKind, now: datetime, summary: str, body: str) -> None:
    """It says what fails, since when, and the error's own line, which says what to do."""
    text = "the server refused the API key: put a valid one into ~/.config/syncd/api-key"
    trouble = after_failure(None, text, 0.0, 0.0, needs_person=True)
    notice = render(kind, trouble, "work", SINCE, now)
    assert notice.summary == summary
    assert notice.body.startswith(body.format(text))
    assert (notice.category, notice.icon) == ("transfer.error", "dialog-warning")


def test_the_text_of_success() -> None:
    """It says nothing of the trouble."""
    notice = render(IN_SYNC, Healthy(), "work", SINCE, SINCE)
    assert notice.summary == "work is in sync again"
    assert (notice.category, notice.icon) == ("transfer.complete", "emblem-default")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "no answer from https://u:pw@host.example:8443/a/b?c=d#e: try later",
            "no answer from host.example:8443: try later",
        ),
        ("(https://storage.example/x?X-Goog-Signature=ab12&y=1) failed", "(storage.example) failed"),
        ("got 'https://host/a' and http://[::1]:80/b.", "got 'host' and [::1]:80."),
        ("Authorization: Bearer sk-12345 was refused", "Authorization: Bearer [key] was refused"),
        ("two\nlines\tand \x1b[31m", "two lines and \\x1b[31m"),
        ("the file a://", "the file "),
        ("x" * 5_000, "x" * 399 + "…"),
    ],
)
def test_no_key_and_no_url(text: str, shown: str) -> None:
    """Only the host of a URL is shown, without a signature; the text is bounded."""
    trouble = after_failure(None, text, 0.0, 0.0, needs_person=True)
    assert render(NEEDED, trouble, "work", SINCE, SINCE).body == f"Since 14:05: {shown}"


def test_an_odd_name() -> None:
    """A workspace's name is shown on one short line."""
    notice = render(IN_SYNC, Healthy(), "a\nb\udcff" + "c" * 100, SINCE, SINCE)
    assert notice.summary.startswith("a b\\udcffc")
    assert len(notice.summary) <= 40 + len(" is in sync again")


LOST = UnsavedWork("2 files in the sandbox could not be saved before it ended: 'a', 'b'")


@pytest.mark.parametrize("event", [SavedWork(3), LOST])
def test_an_event_is_shown_at_once_and_once_an_hour(event: AgentEvent) -> None:
    """Each kind for itself, whatever was shown about syncing."""
    busy = NoticeState(FAILING, "no network", (4_990.0, 4_995.0, 5_000.0), failed_tries=2, retry_at_s=9_000.0)
    assert plan_event(event, busy, 100.0, 5_000.0).at_s == 100.0
    state = after_event_shown(busy, event, 5_000.0)
    assert plan_event(event, state, 700.0, 5_600.0).at_s == 100.0 + HOUR_S
    assert plan_event(event, state, 100.0 + HOUR_S, 5_000.0 + HOUR_S).at_s == 100.0 + HOUR_S
    other = LOST if isinstance(event, SavedWork) else SavedWork(1)
    assert plan_event(other, state, 700.0, 5_600.0).at_s == 700.0
    failing = after_failure(None, "no network", 0.0, 0.0, needs_person=False)
    assert plan(failing, state, AFTER_S, 100.0, 5_000.0) == plan(failing, busy, AFTER_S, 100.0, 5_000.0)


def test_the_hour_outlives_what_is_shown_about_syncing() -> None:
    """Success and failing forget their own times alone."""
    state = after_event_shown(after_event_shown(NoticeState(), LOST, 5.0), SavedWork(1), 7.0)
    state = after_shown(state, FAILING, after_failure(None, "no", 0.0, 0.0, needs_person=False), 8.0)
    for _ in range(SUCCESS_TRIES):
        state = after_failed_try(state, IN_SYNC, 9.0)
    assert (state.unsaved_at_s, state.saved_at_s, state.times, state.kind) == (5.0, 7.0, (8.0,), None)


def test_the_hour_after_a_clock_that_was_set_back() -> None:
    """A time that is still to come is ignored."""
    state = after_event_shown(NoticeState(), LOST, 9_000.0)
    assert plan_event(LOST, state, 100.0, 5_000.0).at_s == 100.0


def test_an_event_without_a_desktop() -> None:
    """It is tried a few times, and then given up."""
    event: AgentEvent | None = LOST
    now_s = 100.0
    for _ in range(SUCCESS_TRIES):
        assert event is not None
        assert plan_event(event, NoticeState(), now_s, 5_000.0).at_s == now_s
        event = after_failed_event(event, now_s)
        now_s += TRY_AGAIN_S
    assert event is None


def test_files_that_were_saved_meanwhile_are_added() -> None:
    """One notification counts them all, and its tries go on."""
    event = after_failed_event(after_saved(None, 2), 100.0)
    assert isinstance(event, SavedWork)
    assert after_saved(event, 3) == SavedWork(5, 1, 100.0 + TRY_AGAIN_S)


@pytest.mark.parametrize(
    ("event", "kind", "summary", "body"),
    [
        (
            SavedWork(3),
            SAVED,
            "work: both sides had changed",
            "3 files of the agent were saved before they were overwritten.\n`syncd saved` ",
        ),
        (
            SavedWork(1),
            SAVED,
            "work: both sides had changed",
            "1 file of the agent was saved before it was overwritten.\n",
        ),
        (LOST, UNSAVED, "work: the agent's work is not saved", f"{LOST.text}\n`syncd status` "),
        (
            UnsavedWork("no answer from https://u:pw@host.example/a?b#c\nAuthorization: Bearer sk-12345"),
            UNSAVED,
            "work: the agent's work is not saved",
            "no answer from host.example Authorization: Bearer [key]\n",
        ),
    ],
)
def test_the_text_of_an_event(event: AgentEvent, kind: NotificationKind, summary: str, body: str) -> None:
    """It says what happened, to how many files, and which command says more; no key and no URL."""
    notice = render_event(event, "work")
    assert event.kind is kind
    assert notice.summary == summary
    assert notice.body.startswith(body)
    assert notice.icon == ("dialog-information" if kind is SAVED else "dialog-warning")
