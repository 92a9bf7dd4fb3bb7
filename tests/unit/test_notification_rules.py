"""The rules of desktop notifications: failures that last, recoveries after them, and a rate limit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.report.notification_rules import (
    DAY_S,
    MOST,
    NEEDED_AFTER_S,
    STALE_S,
    TRY_AGAIN_FIRST_S,
    TRY_AGAIN_MAX_S,
    Condition,
    Failing,
    Healthy,
    NoticeState,
    NotificationKind,
    TwoClocks,
    failed,
    in_vain,
    outlived,
    plan,
    render,
    said,
    shifted,
)

AFTER_S = 900.0
ROUNDING_S = 0.01
BAD = (NotificationKind.FAILING, NotificationKind.NEEDED)
ZONE = timezone(timedelta(hours=1))
SINCE = datetime(2026, 11, 24, 14, 5, tzinfo=ZONE)


@dataclass
class NoticeRig:
    """A daemon, its machine and user, and the notifications shown; None: a failure was forgotten."""

    time_s: float = 0.0
    awake_s: float = 1_000.0
    boot_s: float = 5_000.0
    condition: Condition = None
    reported: NoticeState = field(default_factory=NoticeState)
    present: bool = True
    said: list[tuple[float, NotificationKind | None, str]] = field(default_factory=list)
    tries: int = 0

    @property
    def now(self) -> TwoClocks:
        return TwoClocks(self.awake_s, self.boot_s)

    def fail(self, text: str = "no network", *, needs_person: bool = False) -> None:
        before, self.reported = self.reported, outlived(self.reported, self.condition, self.now)
        if self.reported.news is not before.news:
            self.said.append((self.time_s, None, ""))
        self.condition = failed(self.condition, text, self.awake_s, 0.0, needs_person=needs_person)
        self.look()

    def hold(self, text: str = "the key is refused") -> None:
        self.fail(text, needs_person=True)

    def well(self) -> None:
        self.condition = self.condition if isinstance(self.condition, Healthy) else Healthy(self.boot_s)
        self.look()

    def pause(self) -> None:
        self.condition = None

    def restart(self) -> None:
        """Start another process, after another boot."""
        self.condition = None
        self.reported = shifted(self.reported, 7.0 - self.boot_s)
        self.awake_s = self.boot_s = 7.0

    def wait(self, seconds: float) -> None:
        """Let time pass awake, with a check when it is due."""
        end_s = self.awake_s + seconds
        while (due := plan(self.condition, self.reported, AFTER_S, self.now)) is not None and due.at_s <= end_s:
            self._pass(max(0.0, due.at_s - self.awake_s))
            before = self.reported
            self.look()
            if self.reported is before:  # a hair too early, by rounding
                self._pass(0.001)
        self._pass(max(0.0, end_s - self.awake_s))

    def sleep(self, seconds: float) -> None:
        self.time_s += seconds
        self.boot_s += seconds
        self.look()

    def _pass(self, seconds: float) -> None:
        self.time_s += seconds
        self.awake_s += seconds
        self.boot_s += seconds

    def look(self) -> None:
        due = plan(self.condition, self.reported, AFTER_S, self.now)
        if due is None or due.at_s > self.awake_s:
            return
        self.tries += 1
        if self.present:
            kind = (
                self.condition.kind
                if isinstance(self.condition, Failing) and due.news is NotificationKind.NEEDED
                else ""
            )
            self.said.append((self.time_s, due.news, kind))
            self.reported = said(self.reported, due.news, self.condition, self.now)
        else:
            self.reported = in_vain(self.reported, self.now)

    @property
    def news(self) -> list[NotificationKind]:
        return [news for _, news, _ in self.said if news is not None]


def test_success_is_not_notified() -> None:
    """A success is not notified, nor is a failure that does not last."""
    rig = NoticeRig()
    rig.well()
    for _ in range(50):
        rig.fail()
        rig.wait(AFTER_S - 1)
        rig.well()
        rig.wait(10)
    assert rig.said == []


def test_a_failure_and_its_end_are_notified_once() -> None:
    """A failure is notified once, however long it lasts, and its end once."""
    rig = NoticeRig()
    rig.fail()
    rig.wait(AFTER_S - 0.1)
    assert rig.news == []
    rig.wait(0.2)
    for _ in range(200):
        rig.wait(3_600)
        rig.fail("something else")
    assert rig.news == [NotificationKind.FAILING]
    rig.well()
    assert rig.news == [NotificationKind.FAILING, NotificationKind.WELL]


def test_suspend_time_does_not_count() -> None:
    """Only the time that the machine is awake counts."""
    rig = NoticeRig()
    rig.fail()
    rig.wait(60)
    rig.sleep(8 * 3_600)
    rig.wait(AFTER_S - 61)
    assert rig.news == []
    rig.wait(2)
    assert rig.news == [NotificationKind.FAILING]


@pytest.mark.parametrize(("after_s", "wait_s"), [(AFTER_S, NEEDED_AFTER_S), (5.0, 5.0)])
def test_a_hold_is_notified_sooner(after_s: float, wait_s: float) -> None:
    """A hold is notified after a minute, or at once if the failure was notified."""
    trouble = failed(None, "the key is refused", 100.0, 0.0, needs_person=True)
    due = plan(trouble, NoticeState(), after_s, TwoClocks(100.0, 100.0))
    assert due is not None
    assert (due.news, due.at_s) == (NotificationKind.NEEDED, 100.0 + wait_s)


def test_a_hold_is_notified_again_after_a_day() -> None:
    """The day is one of wall time and includes a suspend."""
    rig = NoticeRig()
    rig.hold("3 files where it held 40")
    rig.wait(NEEDED_AFTER_S)
    for number in range(100):
        rig.wait(800)
        rig.hold(f"{number} files where it held 40")
    assert rig.news == [NotificationKind.NEEDED]
    rig.sleep(DAY_S)
    assert rig.news == [NotificationKind.NEEDED, NotificationKind.NEEDED]


def test_another_hold_is_notified() -> None:
    """A hold with another reason is notified; a network failure in between is not."""
    rig = NoticeRig()
    for _ in range(5):
        for text in ("the key is refused", "the sandbox is gone"):
            rig.hold(text)
            rig.wait(NEEDED_AFTER_S)
            rig.fail()
            rig.wait(AFTER_S)
    assert [kind for _, _, kind in rig.said] == ["the key is refused", "the sandbox is gone"]


def test_a_failure_that_becomes_a_hold() -> None:
    """The hold is notified though the failure was."""
    rig = NoticeRig()
    rig.fail()
    rig.wait(AFTER_S)
    rig.hold()
    rig.wait(NEEDED_AFTER_S)
    assert rig.news == [NotificationKind.FAILING, NotificationKind.NEEDED]


def test_the_same_hold_after_a_recovery_is_notified() -> None:
    """The recovery was notified, so the hold is notified again."""
    rig = NoticeRig()
    for _ in range(2):
        rig.hold()
        rig.wait(NEEDED_AFTER_S)
        rig.well()
    assert rig.news == [NotificationKind.NEEDED, NotificationKind.WELL] * 2


def test_the_last_notification_is_kept_for_the_recovery() -> None:
    """At the limit the recovery is still notified, so that the screen does not keep a failure that is over."""
    rig = NoticeRig()
    for number in range(10):
        rig.hold(f"trouble {'x' * number}")
        rig.wait(NEEDED_AFTER_S)
    assert rig.news == [NotificationKind.NEEDED] * (MOST[0][1] - 1)
    rig.well()
    assert rig.news[-1] is NotificationKind.WELL


def test_no_failure_is_notified_without_room_for_its_recovery() -> None:
    """The last notification within the limit is never a failure."""
    rig = NoticeRig()
    for text in ("one trouble", "another trouble"):
        rig.hold(text)
        rig.wait(NEEDED_AFTER_S)
    rig.well()
    rig.fail()
    rig.wait(2 * AFTER_S)
    assert rig.news == [NotificationKind.NEEDED, NotificationKind.NEEDED, NotificationKind.WELL]
    rig.wait(3_600 - 2 * AFTER_S)
    assert rig.news[3:] == [NotificationKind.FAILING]


def test_a_failure_that_comes_and_goes() -> None:
    """It is notified only a few times a day."""
    rig = NoticeRig()
    said_by_hour = []
    for _ in range(24):
        for _ in range(3):
            rig.fail()
            rig.wait(AFTER_S + 1)
            rig.well()
            rig.wait(299)
        said_by_hour.append(len(rig.said))
    assert said_by_hour[0] == 4
    assert said_by_hour[-1] == 12
    rig.fail()
    rig.wait(2 * AFTER_S)
    assert len(rig.said) == 13, "a new day"


def test_without_a_desktop() -> None:
    """It is tried now and then; a user who logs in later is notified of what still lasts."""
    rig = NoticeRig(present=False)
    rig.fail()
    rig.wait(AFTER_S + 63 * TRY_AGAIN_FIRST_S)
    assert rig.tries == 7  # at once, then after 10, 20, 40, … s
    rig.wait(10 * TRY_AGAIN_MAX_S)
    assert rig.tries == 17
    rig.present = True
    rig.wait(TRY_AGAIN_MAX_S)
    assert rig.news == [NotificationKind.FAILING]
    rig.present = False
    rig.well()
    rig.wait(STALE_S)
    rig.present = True
    rig.wait(DAY_S)
    assert rig.news == [NotificationKind.FAILING]
    rig.fail()
    rig.wait(AFTER_S)
    assert rig.news == [NotificationKind.FAILING, NotificationKind.FAILING]


def test_an_idle_daemon_is_not_woken() -> None:
    """There is no deadline when all is well, paused, or notified."""
    rig = NoticeRig()
    for do in (rig.well, rig.pause, rig.restart):
        do()
        assert plan(rig.condition, rig.reported, AFTER_S, rig.now) is None
    rig.fail()
    rig.wait(AFTER_S)
    assert plan(rig.condition, rig.reported, AFTER_S, rig.now) is None


Event = tuple[str, float]
_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "fail",
                "hold a",
                "hold b",
                "hold 1",
                "hold 2",
                "well",
                "pause",
                "restart",
                "here",
                "away",
                "wait",
                "sleep",
            ]
        ),
        st.sampled_from([0.0, 1.0, 59.0, 60.0, 61.0, 700.0, 900.0, 3_601.0, 40_000.0, 90_000.0]),
    ),
    max_size=120,
)


def lived(events: Iterable[Event]) -> NoticeRig:
    """Return a rig after a random sequence of steps, with a check at each."""
    rig = NoticeRig()
    for event, seconds in events:
        before = len(rig.news)
        match event.split():
            case ["fail"]:
                rig.fail()
            case ["hold", text]:
                rig.hold(f"trouble {text}")
            case ["well"]:
                rig.well()
                if rig.present and rig.reported.not_before_s is None:
                    assert rig.reported.news not in BAD, "good news was kept back"
            case ["pause"]:
                rig.pause()
            case ["restart"]:
                rig.restart()
            case ["sleep"]:
                rig.sleep(seconds)
            case ["here" | "away" as where]:
                rig.present = where == "here"
        quiet = rig.condition is None
        if event != "sleep":
            rig.wait(seconds)
        assert not (quiet and len(rig.news) > before), "said in a pause, or before anything was known"
    return rig


@settings(max_examples=400, deadline=None)
@given(_EVENTS)
def test_the_rate_limit(events: list[Event]) -> None:
    """The limits of an hour and a day hold in any sequence of failures, suspends and restarts."""
    rig = lived(events)
    for window_s, most in MOST:
        times = [time_s for time_s, news, _ in rig.said if news is not None]
        for first_s in times:
            assert sum(first_s <= time_s < first_s + window_s - ROUNDING_S for time_s in times) <= most
    assert len(rig.reported.times) <= MOST[-1][1]
    assert len(rig.reported.kinds) <= MOST[-1][1]
    assert rig.tries - len(rig.news) <= rig.time_s / TRY_AGAIN_MAX_S + 7 * (len(rig.news) + 1)


@settings(max_examples=400, deadline=None)
@given(_EVENTS)
def test_nothing_is_repeated(events: list[Event]) -> None:
    """A recovery is notified only after a failure, a failure once, and a hold once a day."""
    rig = lived(events)
    last: NotificationKind | None = None
    since_well: dict[str, float] = {}
    for time_s, news, kind in rig.said:
        if news is None:
            since_well = {}
        elif news is NotificationKind.WELL:
            assert last in BAD
            since_well = {}
        elif news is NotificationKind.FAILING:
            assert last not in BAD
        else:
            assert kind not in since_well or time_s - since_well[kind] >= DAY_S - ROUNDING_S
            since_well[kind] = time_s
        last = news


@settings(max_examples=200, deadline=None)
@given(_EVENTS, st.booleans())
def test_a_lasting_failure_is_always_notified(events: list[Event], needs_person: bool) -> None:
    """After any sequence a lasting failure is notified within a day, and its end at once."""
    rig = lived(events)
    rig.present = True
    rig.fail("the end", needs_person=needs_person)
    rig.wait(DAY_S + AFTER_S + TRY_AGAIN_MAX_S)
    assert rig.reported.news in BAD
    rig.well()
    assert rig.news[-1] is NotificationKind.WELL


def test_another_boots_clock() -> None:
    """Every time in the record is moved to the new boot's clock, and nothing else."""
    reported = NoticeState(NotificationKind.NEEDED, {"a": 10.0}, (5.0, 10.0), 2, 20.0)
    assert shifted(reported, -7.0) == NoticeState(NotificationKind.NEEDED, {"a": 3.0}, (-2.0, 3.0), 2, 13.0)
    assert shifted(NoticeState(), 7.0) == NoticeState()


@pytest.mark.parametrize(
    ("news", "now", "summary", "body"),
    [
        (
            NotificationKind.FAILING,
            SINCE + timedelta(hours=1),
            "work is not synced",
            "Since 14:05: {}\nIt goes on by itself; ",
        ),
        (NotificationKind.NEEDED, SINCE + timedelta(hours=1), "work is not synced: you are needed", "Since 14:05: {}"),
        (
            NotificationKind.NEEDED,
            SINCE + timedelta(days=1),
            "work is not synced: you are needed",
            "Since 2026-11-24 14:05: {}",
        ),
    ],
)
def test_the_text_of_a_failure(news: NotificationKind, now: datetime, summary: str, body: str) -> None:
    """The text has the failure, its start, and the error's own line, which says what to do."""
    text = "the server refused the API key: put a valid one into ~/.config/syncd/api-key"
    trouble = failed(None, text, 0.0, 0.0, needs_person=True)
    notice = render(news, trouble, "work", SINCE, now)
    assert notice.summary == summary
    assert notice.body.startswith(body.format(text))
    assert (notice.category, notice.icon) == ("transfer.error", "dialog-warning")


def test_the_text_of_a_recovery() -> None:
    """It holds nothing of the failure."""
    notice = render(NotificationKind.WELL, Healthy(0.0), "work", SINCE, SINCE)
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
    trouble = failed(None, text, 0.0, 0.0, needs_person=True)
    assert render(NotificationKind.NEEDED, trouble, "work", SINCE, SINCE).body == f"Since 14:05: {shown}"


def test_an_odd_name() -> None:
    """A workspace's name is shown on one short line."""
    notice = render(NotificationKind.WELL, Healthy(0.0), "a\nb\udcff" + "c" * 100, SINCE, SINCE)
    assert notice.summary.startswith("a b\\udcffc")
    assert len(notice.summary) <= 40 + len(" is in sync again")
