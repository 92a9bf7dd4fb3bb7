"""An idle daemon uses no CPU, and a large file no memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.system.command import CLOCK, Running
from tests.system.rig import Rig
from tests.system.service_manager import ServiceManager

IDLE_S = 10.0
WINDOWS = 4
LARGE_MIB = 256
# What the same work may differ by from run to run, in KiB.
SLACK_KIB = 6 << 10


def _windows(rig: Rig, daemon: Running) -> Iterator[tuple[float, int]]:
    """Yield the CPU time and the wake-ups of some ten seconds without changes: a busy machine adds some of its own."""
    rig.ok("flush")
    rig.in_state("watching")
    for _ in range(WINDOWS):
        started_s = CLOCK.monotonic_s()
        cpu_s, wakeups = daemon.cpu_s(), daemon.wakeups()
        rig.until(lambda until_s=started_s + IDLE_S: CLOCK.monotonic_s() > until_s, "time to go by")
        yield daemon.cpu_s() - cpu_s, daemon.wakeups() - wakeups


@pytest.mark.slow
def test_an_idle_daemon_sleeps(rig: Rig) -> None:
    """Within ten seconds no thread wakes up, and no CPU time is used."""
    rig.fill(100)
    found = []
    for window in _windows(rig, rig.up()):
        found.append(window)
        if window == (0.0, 0):
            return
    pytest.fail(f"CPU time and wake-ups of each ten seconds: {found}")


@pytest.mark.slow
def test_an_idle_service_only_pings(rig: Rig, manager: ServiceManager) -> None:
    """With a watchdog it wakes up for its pings alone."""
    rig.environ["WATCHDOG_USEC"] = "4000000"
    rig.fill(100)
    daemon = rig.up()
    rig.ok("flush")
    found = []
    before = len(manager.said("WATCHDOG"))
    for cpu_s, wakeups in _windows(rig, daemon):
        pings = len(manager.said("WATCHDOG")) - before
        before += pings
        found.append((cpu_s, wakeups, pings))
        if cpu_s < 0.05 and wakeups <= pings + 2:
            return
    pytest.fail(f"CPU time, wake-ups and pings of each ten seconds: {found}")


def _peak_kib(rig: Rig, size_bytes: int) -> int:
    """Return a daemon's peak memory for syncing one file of this size."""
    rig.write("file", b"")
    os.truncate(rig.workspace / "file", size_bytes)
    # Extracting it over there is another program's work.
    rig.faults('initialize: json {"sandbox_id": "box", "status": "idle", "message": "done"}')
    daemon = rig.start()
    uploads = rig.count("upload")
    rig.until(lambda: rig.count("upload", 200) > uploads, "the upload")
    rig.in_state("watching")
    assert rig.archived() == ["file"]
    assert "synced 1 file," in daemon.err
    peak_kib = daemon.peak_kib()
    daemon.stop()
    return peak_kib


@pytest.mark.slow
def test_a_large_file_takes_no_more_memory_than_a_small_one(rig: Rig) -> None:
    """Packing and sending 256 MiB takes as much as 64 MiB, of which all that is under way at once is a part."""
    small_kib = _peak_kib(rig, 64 << 20)
    large_kib = _peak_kib(rig, LARGE_MIB << 20)
    assert large_kib < small_kib + SLACK_KIB, f"{small_kib} KiB for 64 MiB, {large_kib} KiB for {LARGE_MIB} MiB"
