"""Desktop notices with made-up time: what is shown, when, and that nothing fails or blocks the daemon."""

from __future__ import annotations

import os
from math import inf
from pathlib import Path

import pytest

from syncd.report.desktop_notifier import FAILING_AFTER_S, NEEDED_AFTER_S, DesktopNotifier
from tests.clock import ScriptedClock
from tests.desktop import Desktop

LONGEST = "syncd.report.desktop_notifier._LONGEST_S"


@pytest.fixture
def desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desktop:
    """One that has the time that a busy machine takes to start a program."""
    monkeypatch.setattr(LONGEST, 60.0)
    return Desktop(tmp_path)


def notifier(clock: ScriptedClock, desktop: Desktop, sandbox: str = "") -> DesktopNotifier:
    environ = {"PATH": f"{desktop.folder}:{os.environ['PATH']}", "KLAVIS_API_KEY": "kl_live"}
    return DesktopNotifier("/home/dev/work", environ, clock, sandbox)


def test_failing_for_long_and_then_in_sync_again(desktop: Desktop, clock: ScriptedClock) -> None:
    """Told once it has lasted, then success, once each; no text is markup, has a secret, or more than one line."""
    notices = notifier(clock, desktop)
    notices.succeeded()
    text = "<b>no</b>\n\x1b[2J answer from https://api.example/put?X-Goog-Signature=ab: Bearer kl_live"
    notices.failed(f"{text} {'x' * 5_000}", needs_person=False)
    clock.go_on(FAILING_AFTER_S - 1)
    notices.show_due()
    assert desktop.shown() == []
    clock.go_on(1)
    for _ in range(3):
        notices.show_due()
    notices.succeeded()
    notices.succeeded()
    (failing, body), (again, _) = desktop.shown()
    assert (failing, again) == ("work is not synced", "work is in sync again")
    assert "(b)no(/b)" in body
    assert not any(bad in body for bad in ("<", "X-Goog", "kl_live", "\n", "\x1b"))
    assert len(body) < 500
    assert "KLAVIS_API_KEY" not in desktop.environ()


def test_what_waits_for_a_person(desktop: Desktop, clock: ScriptedClock) -> None:
    """It is told after a minute; not during a pause."""
    notices = notifier(clock, desktop)
    notices.failed("the key is refused", needs_person=True)
    notices.paused()
    clock.go_on(NEEDED_AFTER_S)
    notices.show_due()
    assert desktop.shown() == []
    notices.failed("the key is refused", needs_person=True)
    clock.go_on(NEEDED_AFTER_S)
    notices.show_due()
    assert [summary for summary, _ in desktop.shown()] == ["work needs you"]


def test_one_of_several_sandboxes(desktop: Desktop, clock: ScriptedClock) -> None:
    """It is named, and so it is in the commands."""
    notifier(clock, desktop, sandbox="blue").agent_is_quiet(2)
    expected = ("work (blue): the agent changed 2 files", "`syncd diff --sandbox blue` shows them.")
    assert desktop.shown() == [expected]


@pytest.mark.parametrize("does", ["exit 1", "sleep 600", None])
def test_a_desktop_that_fails_hangs_or_is_not_there(
    desktop: Desktop, clock: ScriptedClock, does: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next failure tries it again."""
    works = desktop.program.read_text()
    desktop.instead(does)
    notices = notifier(clock, desktop)
    notices.failed("no network", needs_person=False)
    clock.go_on(FAILING_AFTER_S)
    with monkeypatch.context() as patch:
        patch.setattr(LONGEST, 0.2)
        notices.show_due()
    assert notices.due_s == inf
    desktop.program.write_text(works)
    desktop.program.chmod(0o755)
    notices.failed("no network", needs_person=False)
    assert [summary for summary, _ in desktop.shown()] == ["work is not synced"]
