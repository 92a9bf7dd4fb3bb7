"""The messages to systemd: ready, status, pings, reload and the end (sd_notify(3))."""

from __future__ import annotations

import signal

import pytest

from tests.emulator import When
from tests.system.command import CLOCK
from tests.system.rig import DEFAULTS, Rig
from tests.system.service_manager import ServiceManager

PING_S = 0.5


@pytest.fixture(autouse=True)
def _pings(rig: Rig) -> None:
    """Pings are asked for at least once a second."""
    rig.environ["WATCHDOG_USEC"] = str(int(2 * PING_S * 1e6))


def test_messages_in_order(rig: Rig, manager: ServiceManager) -> None:
    """READY, at SIGHUP RELOADING with its time and READY again, STOPPING; and its state as STATUS."""
    rig.write("a")
    daemon = rig.up()
    daemon.send(signal.SIGHUP)
    rig.until(lambda: len(manager.said("READY")) == 2, "READY after the reload")
    assert daemon.stop() == 0
    rig.until(lambda: manager.said("STOPPING"), "STOPPING to be read")
    assert manager.order("READY", "RELOADING", "STOPPING") == ["READY", "RELOADING", "READY", "STOPPING"]
    (reloading,) = (message for message in manager.received if "RELOADING" in message.fields)
    assert 0 <= reloading.at_s - int(reloading.fields["MONOTONIC_USEC"]) / 1e6 < 60
    assert any(line.startswith("in sync, 1 sync") for line in manager.said("STATUS"))


def test_ready_does_not_wait_for_the_first_sync(rig: Rig, manager: ServiceManager) -> None:
    """A service without a network at boot has started all the same, and its status says what it waits for."""
    rig.write("a")
    rig.faults("upload-url: 503 always")
    rig.start()
    rig.until(lambda: manager.said("READY"), "READY")
    rig.until(lambda: any("retrying" in line and "503" in line for line in manager.said("STATUS")), "its trouble")


def test_an_idle_loop_pings(rig: Rig, manager: ServiceManager) -> None:
    """Pings come at half of the watchdog's time, and no more often, however late they are read."""
    began_s = CLOCK.monotonic_s()
    rig.write("a")
    rig.up()
    first = len(manager.said("WATCHDOG"))
    rig.until(lambda: len(manager.said("WATCHDOG")) >= first + 5, "five pings")
    pings, took_s = len(manager.said("WATCHDOG")), CLOCK.monotonic_s() - began_s
    assert pings <= 1 + took_s / (0.9 * PING_S)


@pytest.mark.parametrize(
    "fault",
    [
        "initialize: hang 4",
        "dump: 503 always",
        *(pytest.param(f"{op}: hang 4", marks=pytest.mark.long) for op in ("upload-url", "dump")),
    ],
)
def test_a_server_that_hangs_or_fails_for_longer_than_the_watchdog_waits(
    rig: Rig, manager: ServiceManager, fault: str
) -> None:
    """Waiting for an answer, and for the next attempt, counts as progress, too."""
    rig.configure({**DEFAULTS, "retry.give_up_after_seconds": 120})
    rig.faults("execute: 404 always")  # so that each sync looks by a dump
    rig.fill(5)
    rig.up()
    rig.ok("flush")
    if fault.startswith("upload-url"):
        rig.faults("upload: expired")
    rig.faults(fault)
    op = fault.partition(":")[0]
    came = rig.once(op, When.BEFORE, lambda: None)
    rig.write("a")
    assert came.wait(60)
    first = len(manager.said("WATCHDOG"))
    rig.until(lambda: len(manager.said("WATCHDOG")) >= first + 5, "five pings")


def test_pings_meant_for_another_process_are_not_sent(rig: Rig, manager: ServiceManager) -> None:
    """`$WATCHDOG_PID` of another process: no pings, all else as usual."""
    rig.environ["WATCHDOG_PID"] = "1"
    rig.write("a")
    rig.up()
    rig.daemons[0].stop()
    rig.until(lambda: manager.said("STOPPING"), "STOPPING to be read")
    assert manager.said("WATCHDOG") == []
