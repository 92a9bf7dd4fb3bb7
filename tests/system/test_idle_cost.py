"""An idle daemon uses no CPU, and a large file no memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.system.command import CLOCK, Running
from tests.system.rig import Rig
from tests.system.service_manager import ServiceManager

IDLE_S = 10.0
LARGE_MIB = 256
# What the same work may differ by from run to run, in KiB.
SLACK_KIB = 6 << 10


@pytest.fixture
def manager(rig: Rig) -> Iterator[ServiceManager]:
    """A service manager that asks for a ping every two seconds."""
    manager = ServiceManager(rig.home / "notify")
    rig.environ |= {"NOTIFY_SOCKET": str(rig.home / "notify"), "WATCHDOG_USEC": "4000000"}
    yield manager
    manager.close()


def _idle(rig: Rig, daemon: Running) -> tuple[float, int]:
    """Return the CPU time and the wake-ups of ten seconds without changes."""
    rig.ok("flush")
    rig.in_state("watching")
    started_s = CLOCK.monotonic_s()
    cpu_s, wakeups = daemon.cpu_s(), daemon.wakeups()
    rig.until(lambda: CLOCK.monotonic_s() > started_s + IDLE_S, "time to go by")
    return daemon.cpu_s() - cpu_s, daemon.wakeups() - wakeups


@pytest.mark.slow
def test_an_idle_daemon_sleeps(rig: Rig) -> None:
    """Within ten seconds no thread wakes up, and no CPU time is used."""
    rig.fill(100)
    cpu_s, wakeups = _idle(rig, rig.up())
    assert wakeups == 0
    assert cpu_s == 0


@pytest.mark.slow
def test_an_idle_service_only_pings(rig: Rig, manager: ServiceManager) -> None:
    """With a watchdog it wakes up for its pings alone."""
    rig.fill(100)
    daemon = rig.up()
    rig.ok("flush")
    before = len(manager.said("WATCHDOG"))
    cpu_s, wakeups = _idle(rig, daemon)
    pings = len(manager.said("WATCHDOG")) - before
    assert wakeups <= pings + 2
    assert cpu_s < 0.05


def _peak_kib(rig: Rig, size_bytes: int) -> int:
    """Return a daemon's peak memory for syncing one file of this size."""
    rig.write("file", b"")
    os.truncate(rig.workspace / "file", size_bytes)
    # Extracting it over there is another program's work.
    rig.faults('initialize: json {"sandbox_id": "box", "status": "idle", "message": "done"}')
    daemon = rig.start()
    uploads = rig.count("upload")
    rig.until(lambda: rig.count("upload", 200) > uploads, "the upload", timeout_s=60)
    rig.in_state("watching")
    assert f"{len(rig.archived())} files" in daemon.err
    peak_kib = daemon.peak_kib()
    daemon.stop()
    return peak_kib


@pytest.mark.slow
def test_a_large_file_takes_no_more_memory_than_a_small_one(rig: Rig) -> None:
    """Packing and sending 256 MiB takes as much as 64 MiB, of which all that is under way at once is a part."""
    small_kib = _peak_kib(rig, 64 << 20)
    large_kib = _peak_kib(rig, LARGE_MIB << 20)
    assert large_kib < small_kib + SLACK_KIB, f"{small_kib} KiB for 64 MiB, {large_kib} KiB for {LARGE_MIB} MiB"
