"""Desktop notices over a real session bus with made-up time: shown and replaced, and no bus blocks the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.report.desktop_notifier import TRY_AGAIN_S, DesktopNotifier, LastNotice
from tests.bus import NO_BUS, private_bus
from tests.clock import ScriptedClock
from tests.desktop import notification_server

needs_bus = pytest.mark.skipif(bool(NO_BUS), reason=NO_BUS or "all is here")

AFTER_S = 900.0
NOT_SYNCED = "work is not synced"
AGAIN = "work is in sync again"


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[str]:
    """A real bus in the usual place of a runtime folder."""
    with private_bus(f"unix:path={tmp_path}/bus") as address:
        yield address


def notifier(
    clock: ScriptedClock, environ: dict[str, str], last: LastNotice | None = None, after_s: float = AFTER_S
) -> DesktopNotifier:
    return DesktopNotifier("/home/dev/work", after_s, environ, last or LastNotice(), clock)


# -- what is shown


@needs_bus
def test_failing_for_long_and_then_in_sync_again(bus: str, clock: ScriptedClock) -> None:
    """Told once it has lasted, then success in its place; no text is markup, has a secret, or more than one line."""
    with notification_server(bus) as server:
        desktop = notifier(clock, {"DBUS_SESSION_BUS_ADDRESS": bus})
        desktop.succeeded()
        text = "<b>no</b>\n\x1b[2J answer from https://user:pw@api.example/put?X-Goog-Signature=ab: Bearer kl_live"
        desktop.failed(f"{text} {'x' * 5_000}", needs_person=False)
        clock.go_on(AFTER_S)
        for _ in range(3):
            desktop.show_due()
        desktop.succeeded()
        desktop.succeeded()
        failing, again = server.shown
    assert (failing.app, failing.replaces, failing.timeout_ms, failing.changes) == ("syncd", 0, -1, {})
    assert failing.summary == NOT_SYNCED
    assert "(b)no(/b)" in failing.body
    assert "answer from api.example" in failing.body
    assert not any(bad in failing.body for bad in ("<", "://", "X-Goog", "pw", "kl_live", "\n", "\x1b"))
    assert len(failing.body) < 500
    assert (again.summary, again.replaces) == (AGAIN, failing.number)


@needs_bus
def test_one_of_several_sandboxes(bus: str, clock: ScriptedClock) -> None:
    """It is named, and so it is in the commands."""
    with notification_server(bus) as server:
        environ = {"DBUS_SESSION_BUS_ADDRESS": bus}
        DesktopNotifier("/work", AFTER_S, environ, LastNotice(), clock, sandbox="blue").agent_is_quiet(2)
        (shown,) = server.shown
    assert (shown.summary, shown.body) == (
        "work (blue): the agent changed 2 files",
        "`syncd diff --sandbox blue` shows them.",
    )


# -- what is not


@needs_bus
@pytest.mark.parametrize("settings", [{"refuses": "Notify"}, {"ignores": "Notify"}])
def test_a_server_that_refuses_or_hangs(bus: str, clock: ScriptedClock, settings: dict[str, str]) -> None:
    """It is tried again later."""
    with notification_server(bus, **settings) as server:
        assert _in_vain(clock, {"DBUS_SESSION_BUS_ADDRESS": bus})
        assert server.shown == []


def _in_vain(clock: ScriptedClock, environ: dict[str, str]) -> bool:
    """True if a trouble that is due is to be shown again later."""
    desktop = notifier(clock, environ)
    desktop.failed("no network", needs_person=False)
    clock.go_on(AFTER_S)
    desktop.show_due()
    return desktop.due_s == clock.monotonic + TRY_AGAIN_S
