"""Desktop notifications by the real daemon over a real session bus, also from the hardened service."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agent import Agent
from tests.bus import NO_BUS, private_bus
from tests.desktop import READY, Notification, NotificationServer, notification_server
from tests.system.command import CLOCK
from tests.system.machine import REPO, RUNTIME, missing, shown
from tests.system.rig import KEY, Rig
from tests.system.service_rig import ServiceRig
from tests.system.test_service import emulator, machine
from tests.system.test_service import rig as service

__all__ = ["emulator", "machine", "service"]  # fixtures

_USER_BUS = Path("/usr/lib/systemd/user/dbus.socket")
_NO_MACHINE = missing() or NO_BUS or ("" if _USER_BUS.exists() else "systemd starts no session bus on this machine")
needs_bus = pytest.mark.skipif(bool(NO_BUS), reason=NO_BUS or "all is here")
needs_machine = pytest.mark.skipif(bool(_NO_MACHINE), reason=_NO_MACHINE or "all is here")
# Half a second of failing is long.
SOON_S = 0.5
SOON = {"notifications.after_minutes": SOON_S / 60}
NOT_SYNCED = "work is not synced"
NEEDED = "work needs you"
AGAIN = "work is in sync again"


@pytest.fixture
def notifications(rig: Rig, tmp_path: Path) -> Iterator[NotificationServer]:
    """The notification server of the session that the daemon is started in."""
    with private_bus(f"unix:path={tmp_path}/bus") as address, notification_server(address) as server:
        rig.environ["DBUS_SESSION_BUS_ADDRESS"] = address
        rig.configure(SOON)
        yield server


@needs_bus
def test_failures_and_recoveries(rig: Rig, notifications: NotificationServer) -> None:
    """A server down, then up; a key refused, then replaced: four notifications, each replaces the last."""
    rig.write("a")
    rig.up("--log-level", "debug")
    rig.faults("upload: 503 always")
    rig.write("a", "changed")
    failing_s = CLOCK.monotonic_s()
    first = _nth(1, rig, notifications)
    assert CLOCK.monotonic_s() - failing_s >= SOON_S
    assert first.summary == NOT_SYNCED
    assert "503" in first.body
    rig.emulator.faults.clear()
    assert _nth(2, rig, notifications).summary == AGAIN
    rig.write_key("some-other-key")
    rig.daemons[0].send(signal.SIGHUP)
    rig.write("a", "changed again")
    third = _nth(3, rig, notifications)
    assert third.summary == NEEDED
    assert str(rig.key_file) in third.body
    rig.write_key(KEY)
    assert _nth(4, rig, notifications).summary == AGAIN
    rig.converged()
    rig.in_state("watching")
    assert [seen.replaces for seen in notifications.shown] == [0, *[first.number] * 3]
    for seen in notifications.shown:
        assert not any(secret in seen.body for secret in (KEY, "some-other-key", "://", "X-Goog"))


@needs_bus
def test_both_sides_changed(rig: Rig, notifications: NotificationServer) -> None:
    """What the agent had changed too is saved and overwritten: one notification says so, and none that it works."""
    rig.configure({"sandbox.agent_changes": "save"})  # a failure in passing is not shown
    rig.write("a", "ours")
    rig.write("b", "ours")
    rig.up()
    agent = Agent(rig.sandbox.workspace)
    for path in ("a", "b"):
        agent.write(path, "theirs")
    rig.write("a", "newer")
    seen = _nth(1, rig, notifications)
    assert seen.summary == "work: the agent's work was saved"
    assert seen.body.startswith("Both sides had changed 1 file.")
    rig.ok("flush")
    assert agent.read("a") == b"newer"
    agent.write("a", "theirs again")
    rig.write("a", "newest")
    rig.ok("flush")
    assert (agent.read("a"), agent.read("b")) == (b"newest", b"theirs")
    assert len(notifications.shown) == 1


def _nth(number: int, rig: Rig, notifications: NotificationServer) -> Notification:
    """Wait for that notification, and return it."""
    rig.until(lambda: len(notifications.shown) >= number, f"notification {number}")
    return notifications.shown[number - 1]


@needs_bus
def test_switched_off(rig: Rig, notifications: NotificationServer) -> None:
    """With `notifications.desktop = false` nothing is shown, and nothing fails."""
    rig.configure({**SOON, "notifications.desktop": False})
    rig.write("a")
    rig.up()
    rig.faults("upload: 503 always")
    rig.write("a", "changed")
    rig.until(lambda: rig.count("upload", 503), "the first failure")
    rig.until(_later(CLOCK.monotonic_s() + 2 * SOON_S), "it to last")
    rig.emulator.faults.clear()
    rig.converged()
    assert notifications.shown == []


def _later(than_s: float) -> Callable[[], bool]:
    return lambda: CLOCK.monotonic_s() > than_s


@needs_machine
def test_from_the_hardened_unit(service: ServiceRig) -> None:
    """It reaches the session bus of a real user manager."""
    python, *_ = service.command()
    line = service.machine.line(python, f"{shown(str(REPO))}/tests/desktop.py", f"unix:path={RUNTIME}/bus")
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as notifications:
        assert notifications.stdout is not None
        try:
            assert notifications.stdout.readline().strip() == READY
            service.installed(SOON)
            assert service.shown("ProtectSystem") == "strict"
            service.faults("upload: 503 always")
            service.write("first.txt", "changed")
            assert notifications.stdout.readline().strip() == NOT_SYNCED
            service.emulator.faults.clear()
            assert notifications.stdout.readline().strip() == AGAIN
        finally:
            notifications.kill()
