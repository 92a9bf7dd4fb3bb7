"""Desktop notices over a real session bus with made-up time: shown and replaced, and no bus blocks the daemon."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.report.desktop_notifier import TRY_AGAIN_S, DesktopNotifier
from syncd.report.notices import AGENT_EVERY_S, LastNotice
from tests.bus import NO_BUS, private_bus
from tests.clock import ScriptedClock
from tests.desktop import NotificationServer, notification_server

needs_bus = pytest.mark.skipif(bool(NO_BUS), reason=NO_BUS or "all is here")

AFTER_S = 900.0
NOT_SYNCED = "work is not synced"
NEEDED = "work is not synced: you are needed"
AGAIN = "work is in sync again"
BOTH_CHANGED = "work: both sides had changed"


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[str]:
    """A real bus in the usual place of a runtime folder."""
    with private_bus(f"unix:path={tmp_path}/bus") as address:
        yield address


def notifier(clock: ScriptedClock, environ: dict[str, str], last: LastNotice | None = None) -> DesktopNotifier:
    return DesktopNotifier("/home/dev/work", AFTER_S, environ, last or LastNotice(), clock)


def summaries(server: NotificationServer) -> list[str]:
    return [seen.summary for seen in server.shown]


@needs_bus
def test_failing_for_long_and_then_in_sync_again(bus: str, clock: ScriptedClock) -> None:
    """Told once it has lasted, then success in its place; all fields arrive as specified, and text is not markup."""
    with notification_server(bus) as server:
        desktop = notifier(clock, {"DBUS_SESSION_BUS_ADDRESS": bus})
        desktop.succeeded()
        desktop.failed("<b>no</b> & so on", needs_person=False)
        assert desktop.due_s == clock.monotonic + AFTER_S
        clock.go_on(AFTER_S)
        for _ in range(3):
            desktop.show_due()
        desktop.succeeded()
        desktop.succeeded()
        failing, again = server.shown
    assert desktop.due_s is None
    assert (failing.app, failing.replaces, failing.icon, failing.timeout_ms) == ("syncd", 0, "dialog-warning", -1)
    assert failing.summary == NOT_SYNCED
    assert "&lt;b&gt;no&lt;/b&gt; &amp; so on" in failing.body
    assert failing.changes == {"urgency": ("y", 1), "category": ("s", "transfer.error")}
    assert (again.summary, again.replaces) == (AGAIN, failing.number)


@needs_bus
def test_the_agents_work_is_told_beside_the_rest(bus: str, clock: ScriptedClock) -> None:
    """At once and once an hour; a notice that syncing fails stays."""
    with notification_server(bus) as server:
        desktop = notifier(clock, {"DBUS_SESSION_BUS_ADDRESS": bus})
        desktop.saved(3)
        desktop.saved(1)
        desktop.saved(1)
        assert summaries(server) == [BOTH_CHANGED]
        assert desktop.due_s == clock.monotonic + AGENT_EVERY_S
        clock.go_on(AGENT_EVERY_S)
        desktop.show_due()
        assert server.shown[1].body.startswith("2 files")
        assert [seen.replaces for seen in server.shown] == [0, 0]


@needs_bus
def test_a_pause_is_no_failure(bus: str, clock: ScriptedClock) -> None:
    """The time of a pause does not count for a failure before it."""
    desktop = notifier(clock, {"DBUS_SESSION_BUS_ADDRESS": bus})
    desktop.failed("no network", needs_person=False)
    desktop.paused()
    assert desktop.due_s is None
    clock.go_on(10 * AFTER_S)
    desktop.failed("no network", needs_person=False)
    assert desktop.due_s == clock.monotonic + AFTER_S


@needs_bus
def test_the_usual_place(bus: str, tmp_path: Path, clock: ScriptedClock) -> None:
    """Without an address, as under cron, the bus of the runtime folder is used; a named one counts alone."""
    with notification_server(bus) as server:
        notifier(clock, {"XDG_RUNTIME_DIR": str(tmp_path), "DBUS_SESSION_BUS_ADDRESS": "disabled:"}).saved(1)
        assert server.shown == []
        notifier(clock, {"XDG_RUNTIME_DIR": str(tmp_path)}).saved(1)
        assert len(server.shown) == 1


@needs_bus
@pytest.mark.parametrize("settings", [{"refuses": "Notify"}, {"refuses": "GetCapabilities"}, {"ignores": "Notify"}])
def test_a_server_that_refuses_or_hangs(bus: str, clock: ScriptedClock, settings: dict[str, str]) -> None:
    """It is tried again later."""
    with notification_server(bus, **settings) as server:
        assert _in_vain(clock, {"DBUS_SESSION_BUS_ADDRESS": bus})
        assert server.shown == []


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"DBUS_SESSION_BUS_ADDRESS": "nonsense"},
        {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere/bus"},
        {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/etc/passwd"},
        {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/%00/\udcff"},
        {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/" + "long" * 40},
        {"DBUS_SESSION_BUS_ADDRESS": "unix:abstract=nobody-listens-here"},
        {"DBUS_SESSION_BUS_ADDRESS": "autolaunch:"},
        {"XDG_RUNTIME_DIR": "/nowhere"},
    ],
    ids=str,
)
def test_no_bus(environ: dict[str, str], clock: ScriptedClock, caplog: pytest.LogCaptureFixture) -> None:
    """No address, a wrong one, or a dead one: a line at debug level, and a later try."""
    caplog.set_level(logging.DEBUG, "syncd")
    assert _in_vain(clock, environ)
    assert [record.levelname for record in caplog.records if record.name == "syncd"] == ["DEBUG"]


def _in_vain(clock: ScriptedClock, environ: dict[str, str]) -> bool:
    """True if a trouble that is due is to be shown again later."""
    desktop = notifier(clock, environ)
    desktop.failed("no network", needs_person=False)
    clock.go_on(AFTER_S)
    desktop.show_due()
    return desktop.due_s == clock.monotonic + TRY_AGAIN_S


def test_the_libraries_are_loaded_for_the_first_notice() -> None:
    """A daemon without a notice does not load them."""
    code = "import sys, syncd.daemon.build; print({'jeepney', 'asyncio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "set()"
