"""Suspends, clock changes, and stops at odd moments, for the real daemon.

No test may set the machine's clock or suspend it, so `shifted_clocks.py` starts the daemon with shifted clocks in place
of the real ones and a pipe in place of the timer that the kernel cancels when the clock jumps. All else is real, the
waits too.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.core.clock import SystemClock, stamp
from tests.emulator import Emulator
from tests.repositories import committed
from tests.system import shifted_clocks
from tests.system.command import Running, works
from tests.system.rig import DEFAULTS, KEY, Rig
from tests.system.service_manager import ServiceManager
from tests.system.shifted_clocks import SHIFTS, Shifts

CLOCK = SystemClock()
HOUR_S, YEAR_S = 3600.0, 365 * 86400.0


class ShiftedClock(SystemClock):
    """The machine's clocks, shifted."""

    def __init__(self, shifts: Shifts) -> None:
        self._shifts = shifts

    def boottime_s(self) -> float:
        return super().boottime_s() + self._shifts.boottime

    def wall_s(self) -> float:
        return super().wall_s() + self._shifts.wall


class ShiftedRig(Rig):
    """A rig whose daemon and emulator have shifted clocks."""

    def __init__(self, folder: Path, emulator: Emulator, shifts: Shifts, shifts_file: Path) -> None:
        super().__init__(folder, emulator)
        self.shifts = shifts
        self.alarm = folder / "alarm"
        os.mkfifo(self.alarm)
        self._alarm = os.open(self.alarm, os.O_RDWR | os.O_NONBLOCK)
        self.by_its_clocks = (sys.executable, shifted_clocks.__file__, str(shifts_file), str(self.alarm))

    def sleep(self, seconds: float) -> None:
        """Suspend the machine for that long: the daemon is stopped; the emulator goes on."""
        self._jump(seconds, seconds)

    def set_clock(self, seconds: float) -> None:
        """Move the wall clock."""
        self._jump(0.0, seconds)

    def _jump(self, boottime_s: float, wall_s: float) -> None:
        daemon = self.daemons[-1]
        daemon.send(signal.SIGSTOP)
        self.until(lambda: b"\nState:\tT" in Path(f"/proc/{daemon.pid}/status").read_bytes(), "the daemon to stop")
        self.shifts.set(self.shifts.boottime + boottime_s, self.shifts.wall + wall_s)
        os.write(self._alarm, b"canceled")
        daemon.send(signal.SIGCONT)

    def awake(self) -> Running:
        """Start the daemon with its clocks, and wait for its first sync."""
        return self.up(prefix=self.by_its_clocks)

    def close(self) -> None:
        super().close()
        os.close(self._alarm)


class _ServerClock(ShiftedClock):
    """The servers' clock: it is never set, and goes on during a suspend, like boottime."""

    def wall_s(self) -> float:
        return SystemClock.wall_s(self) + self._shifts.boottime


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ShiftedRig]:
    """A rig with shifted clocks; no secret was shown."""
    shifts_file = tmp_path / "shifts"
    shifts_file.write_bytes(SHIFTS.pack(0.0, 0.0))
    shifts = Shifts(str(shifts_file))
    with Emulator(tmp_path / "cloud", api_key=KEY, clock=_ServerClock(shifts)) as emulator:
        laptop = ShiftedRig(tmp_path, emulator, shifts, shifts_file)
        try:
            yield laptop
        finally:
            laptop.close()
        leaks = laptop.leaks()
        assert not leaks, "\n".join(leaks)


def _refused(rig: ShiftedRig) -> int:
    """Return the requests that were answered with an error."""
    return sum((entry.status or 0) >= 400 for entry in rig.emulator.request_log.entries())


def test_a_long_suspend(rig: ShiftedRig) -> None:
    """Changes without events are found at once, an unchanged workspace is not sent, and an expired URL not used."""
    rig.write("a")
    outside = rig.home / "outside"
    outside.write_text("before\n")
    os.link(outside, rig.workspace / "linked")
    daemon = rig.awake()
    rig.sleep(1800)
    rig.until(lambda: "slept for 1800 s" in daemon.err, "the sleep to be noticed")
    rig.ok("flush")
    assert rig.count("upload") == 1
    outside.write_text("after the first night\n")  # by another name: no event of the workspace tells
    rig.sleep(8 * HOUR_S)
    rig.converged()
    assert (rig.count("upload-url"), rig.count("upload"), _refused(rig)) == (2, 2, 0)
    assert daemon.err.count("slept for") == 2


@pytest.mark.parametrize(("seconds", "urls"), [(5.0, 1), (8 * HOUR_S, 2)], ids=["a nap", "a night"])
def test_a_suspend_during_an_upload(rig: ShiftedRig, seconds: float, urls: int) -> None:
    """It starts again at once, with the present workspace, and does not count as a failure."""
    rig.write("random", os.urandom(8_000_000))
    rig.configure({"sync.upload_limit_kib_per_second": 2000})
    daemon = rig.start(prefix=rig.by_its_clocks)
    rig.until(lambda: rig.shown()["state"] == "uploading" and rig.shown().get("progress"), "the upload to go on")
    rig.write("new", "saved before the lid was closed")
    rig.sleep(seconds)
    rig.converged()
    rig.in_state("watching")
    status = rig.status()
    assert (status["failures"], status["last_error"]) == (0, None)
    assert " warning " not in daemon.err
    assert (rig.count("upload-url"), rig.count("upload"), rig.count("upload", 200)) == (urls, 2, 1)


def test_the_time_of_the_next_attempt(rig: ShiftedRig) -> None:
    """It is shown by the present clock, however often that is set, and comes nearer in a suspend."""
    rig.configure({"retry.give_up_after_seconds": 3600})
    rig.write("a")
    rig.faults("upload-url: 503 retry-after=1200")
    daemon = rig.start(prefix=rig.by_its_clocks)
    rig.in_state("retrying")
    moves = ((3 * HOUR_S, 1200, rig.set_clock), (-YEAR_S, 1200, rig.set_clock), (720.0, 480, rig.sleep))
    for by_s, left_s, move in moves:
        move(by_s)

        def reported(left_s: float = left_s) -> bool:
            now_s = CLOCK.wall_s() + rig.shifts.wall
            return stamp(now_s) <= (rig.shown()["retry_at"] or "") <= stamp(now_s + left_s)

        rig.until(reported, "the time of the next attempt")
    assert daemon.code is None
    assert rig.count("upload-url") == 1


def test_the_watchdog_is_pinged_at_once_after_a_suspend(rig: ShiftedRig, manager: ServiceManager) -> None:
    """It does not matter which clock it uses, and when the next ping was due."""
    rig.environ["WATCHDOG_USEC"] = "60000000"
    rig.write("a")
    daemon = rig.awake()
    assert manager.said("WATCHDOG") == []
    rig.sleep(HOUR_S)
    rig.until(lambda: manager.said("WATCHDOG"), "the ping")
    rig.until(lambda: "slept" in daemon.err, "the sleep to be noticed")
    assert manager.said("WATCHDOG") == ["1"]
    assert daemon.stop() == 0


@pytest.mark.parametrize("by_s", [3 * HOUR_S, -YEAR_S])
def test_a_clock_that_is_set(rig: ShiftedRig, by_s: float) -> None:
    """It is no suspend and causes no upload; shown times follow it. A restart trusts no older URL."""
    rig.write("a")
    daemon = rig.awake()
    rig.ok("flush")  # every file has been read since it was young, or will be
    rig.set_clock(by_s)
    rig.ok("flush")
    rig.in_state("watching")
    assert rig.count("upload") == 1
    rig.write("a", "saved in another time")
    rig.converged()
    rig.until(lambda: rig.status()["syncs"] == 2, "the second sync to be told")
    at, now_s = rig.status()["last_sync"]["finished_at"], CLOCK.wall_s() + rig.shifts.wall
    assert stamp(now_s - 60) < at <= stamp(now_s)
    assert (rig.count("upload-url"), rig.count("upload"), _refused(rig)) == (1, 2, 0)
    assert "slept" not in daemon.err
    assert daemon.stop() == 0
    rig.write("b")
    rig.start(prefix=rig.by_its_clocks)
    rig.converged()
    assert (rig.count("upload-url"), rig.count("upload"), _refused(rig)) == (2, 3, 0)


ELSEWHEN = ("unshare", "--time", "--boottime", "36000", "--monotonic", "7200", "--fork", "--kill-child")


@pytest.mark.skipif(not works(*ELSEWHEN), reason="time namespaces are not allowed here")
@pytest.mark.parametrize("year", [1960, 2150])
def test_a_clock_of_another_century(rig: ShiftedRig, year: int) -> None:
    """Before 1970 and after 2106, where gzip and git know no time of their own, all works."""
    rig.configure(DEFAULTS)
    rig.shifts.set(0.0, (year - 2026) * YEAR_S)
    committed(rig.workspace)
    rig.write("a", "as sent")
    rig.up(prefix=rig.by_its_clocks)
    rig.sandbox.workspace.joinpath("a").write_text("the agent's")
    rig.sandbox.workspace.joinpath("b").write_text("the agent's")
    for words in (("flush",), ("status",), ("history",), ("apply", "--branch", "agent"), ("apply", "--yes")):
        done = rig.run(*words, prefix=rig.by_its_clocks)
        assert done.code == 0, done
    assert (rig.workspace / "a").read_text() == "the agent's"


def test_two_boots(rig: ShiftedRig) -> None:
    """A process of another boot takes over state and URL, and sees no suspend."""
    rig.write("a")
    rig.up(prefix=ELSEWHEN)
    rig.kill()
    rig.write("a", "between two boots")
    daemon = rig.up()
    rig.kill()
    rig.write("a", "and back")
    again = rig.up(prefix=ELSEWHEN)
    rig.converged()
    assert (rig.count("upload-url"), rig.count("upload"), _refused(rig)) == (1, 3, 0)
    assert "slept" not in daemon.err + again.err
