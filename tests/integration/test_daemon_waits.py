"""The daemon's loop waits during a failure, against the emulator in process."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from syncd.core.clock import Clock, SystemClock
from syncd.core.durable_file import pause_marker
from syncd.core.settings import check_config
from syncd.core.waiter import Interrupt, Waiter
from syncd.daemon import sandbox_loop
from syncd.daemon.build import Role, daemon_of, folders_of
from syncd.daemon.loop import LoopEnd
from syncd.daemon.scheduler import LONG_OUTAGE_S
from syncd.daemon.signals import Signals
from syncd.report.status_publisher import RunTotals
from syncd.sync.sync_cycle import SyncCycle
from syncd.sync.synced_hook import SyncedHooks
from tests.emulator import RequestRecord, When
from tests.integration.sync_rig import Rig, rigged


class DaemonRig:
    """The daemon's loop in this thread, ended by the emulator after so many requests."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        rig.keys["retry"] = {"first_delay_seconds": 0.05, "max_delay_seconds": 0.1}
        rig.keys["sync"]["debounce_seconds"] = 0.01
        self.config = check_config(rig.keys)
        self.environ = {"XDG_STATE_HOME": str(rig.folder / "state"), "XDG_CACHE_HOME": str(rig.folder / "cache")}
        self.environ["KLAVIS_API_KEY"] = rig.key.reveal()
        self.waiter = Waiter(Interrupt(), SystemClock())
        self.signals = Signals(self.waiter.interrupt)
        self.folders = folders_of(self.config, self.environ)

    def use(self, clock: Clock) -> None:
        """Have the loop's time be that of this clock."""
        self.waiter = Waiter(self.waiter.interrupt, clock)

    def end_after(self, requests: int, op: str) -> None:
        """End the loop at that request, by a SIGHUP."""
        left = iter(range(requests - 1, -1, -1))

        def hook(entry: RequestRecord) -> None:
            if next(left, 0) == 0:
                self.send(signal.SIGHUP)

        self.rig.emulator.faults.on(op, When.BEFORE, hook)

    def send(self, number: signal.Signals) -> None:
        """Send the daemon a signal, within `signals.installed`."""
        os.kill(os.getpid(), number)

    def run(self, start_wait_s: float = 0.0) -> None:
        with daemon_of(
            self.config,
            Role.DAEMON,
            keys=dict.fromkeys(self.config.sandboxes, self.rig.key),
            environ=self.environ,
            waiter=self.waiter,
            signals=self.signals,
            totals=RunTotals(),
            synced_hooks=SyncedHooks(self.environ, self.waiter.clock),
            reread=lambda: self.config,
            start_wait_s=start_wait_s,
        ) as daemon:
            assert daemon.run() is LoopEnd.RELOAD


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[DaemonRig]:
    """A daemon for a workspace with one file, and an emulator for it."""
    with rigged(tmp_path) as rig:
        rig.write()
        loop = DaemonRig(rig)
        with loop.signals.installed():
            yield loop


def _snapshots(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.getMessage().startswith("packaging") for record in caplog.records)


def test_a_request_while_paused_keeps_its_backoff(loop: DaemonRig, caplog: pytest.LogCaptureFixture) -> None:
    """A push during a pause with the server down waits like any other."""
    caplog.set_level(logging.INFO, "syncd")
    pause_marker(loop.folders.state).create()
    loop.send(signal.SIGUSR1)
    loop.rig.emulator.faults.script("upload-url: 503 always")
    loop.end_after(4, "upload-url")
    loop.run()
    assert _snapshots(caplog) == 1


def test_a_start_waits_for_its_turn(loop: DaemonRig) -> None:
    """The first request of a service comes after its random wait."""
    rig = loop.rig
    loop.use(rig.clock)
    began_s, seen = rig.clock.monotonic, []

    def hook(_: RequestRecord) -> None:
        seen.append(rig.clock.monotonic - began_s)

    rig.emulator.faults.on("upload-url", When.BEFORE, hook)
    loop.end_after(1, "upload-url")
    loop.run(start_wait_s=1.5)
    assert seen[0] >= 1.5
    assert sum(rig.clock.slept) == pytest.approx(1.5)


def test_a_removal_that_failed_is_tried_again(loop: DaemonRig) -> None:
    """Though nothing changes, and long before the next rescan."""
    rig = loop.rig
    rig.keys["sandbox"]["deletions"] = "mirror"
    loop.config = check_config(rig.keys)
    rig.wait_for_programs()
    rig.write("z")
    rig.sync()
    rig.restart()
    (rig.workspace / "z").unlink()
    loop.use(rig.clock)
    rig.emulator.faults.script("execute: failed x2")
    began_s, sleep = rig.clock.monotonic, rig.clock.sleep

    def pass_time(seconds: float) -> None:
        sleep(seconds)
        if rig.clock.monotonic - began_s > 60:
            loop.send(signal.SIGHUP)

    rig.clock.sleep = pass_time  # type: ignore[method-assign]
    loop.run()
    assert sorted(rig.arrived()) == ["a.txt"]


def _outage(
    loop: DaemonRig, fault: str, lasts_s: float, at_request: Callable[[float], None] | None = None
) -> list[float]:
    """Run the daemon in scripted time through an outage, and return the seconds at which it tried."""
    rig, tried = loop.rig, []
    rig.keys["retry"] = {"first_delay_seconds": 1, "max_delay_seconds": 60, "give_up_after_seconds": 300}
    loop.config = check_config(rig.keys)
    loop.use(rig.clock)
    began_s = rig.clock.monotonic
    rig.emulator.faults.script(f"upload-url: {fault} always")

    def hook(_: RequestRecord) -> None:
        tried.append(rig.clock.monotonic - began_s)
        if at_request is not None:
            at_request(tried[-1])
        if tried[-1] > lasts_s:
            loop.send(signal.SIGHUP)

    rig.emulator.faults.on("upload-url", When.BEFORE, hook)
    loop.run()
    return tried


def _gaps(times: list[float], since_s: float, until_s: float) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times) if since_s <= earlier < until_s]


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_a_request_ends_a_long_wait(loop: DaemonRig, fault: str) -> None:
    """A person who asks in a long outage gets an attempt at once, and while that sync lasts one a minute at least."""
    rig, asked_s = loop.rig, []
    sleep = rig.clock.sleep

    def ask(seconds: float) -> None:
        sleep(seconds)
        if not asked_s and rig.clock.monotonic - began_s > LONG_OUTAGE_S + 400:
            asked_s.append(rig.clock.monotonic - began_s)
            loop.send(signal.SIGUSR1)

    began_s = rig.clock.monotonic
    rig.clock.sleep = ask  # type: ignore[method-assign]
    tried = _outage(loop, fault, LONG_OUTAGE_S + 550)
    since_asked = [time_s for time_s in tried if time_s >= asked_s[0]]
    assert since_asked[0] == pytest.approx(asked_s[0], abs=0.01)
    assert max(_gaps(since_asked, 0, tried[-1])) <= 60.1


@pytest.mark.parametrize("fault", ["503", "reset"])
@pytest.mark.parametrize("back_s", [100.0, 300.2, LONG_OUTAGE_S + 400, LONG_OUTAGE_S + 700])
def test_the_return_of_the_network_ends_a_wait(
    loop: DaemonRig, monkeypatch: pytest.MonkeyPatch, fault: str, back_s: float
) -> None:
    """It is noticed within seconds and tried again a moment later, in the middle of a sync and between two.

    A server that has answered did so over some network, so its short wait stays as it is.
    """
    clock = loop.rig.clock
    began_s = clock.monotonic

    def addresses() -> tuple[str, ...]:
        return ("192.0.2.7",) if clock.monotonic - began_s >= back_s else ()

    monkeypatch.setattr(sandbox_loop, "default_addresses", addresses)
    tried = _outage(loop, fault, back_s)
    soon_s = sandbox_loop.NETWORK_POLL_S + (1.1 if fault == "reset" else 60.0)
    assert back_s < tried[-1] <= back_s + soon_s


@pytest.mark.parametrize("asked", [False, True], ids=["nobody waits", "a person waits"])
def test_the_repository_follows_after_the_files(
    loop: DaemonRig, monkeypatch: pytest.MonkeyPatch, *, asked: bool
) -> None:
    """After an outage it does so a minute later or more, by a look at everything, or at once if a command waits."""
    clock, followed, synced = loop.rig.clock, list[float](), list[float]()

    def follow(_: SyncCycle) -> None:
        followed.append(clock.monotonic)
        loop.send(signal.SIGHUP)

    def request(entry: RequestRecord) -> None:
        if clock.monotonic - began_s > 100:
            loop.rig.emulator.faults.clear()
        if entry.op == "initialize":
            synced.append(clock.monotonic)

    monkeypatch.setattr(SyncCycle, "follow_in_repository", follow)
    loop.rig.keys["retry"] = {}
    loop.config = check_config(loop.rig.keys)
    loop.use(clock)
    began_s = clock.monotonic
    loop.signals.sync_now = asked
    loop.rig.emulator.faults.script("upload-url: 503 always")
    loop.rig.emulator.faults.on("any", When.BEFORE, request)
    loop.run()
    least_s, most_s = (0, 1) if asked else (60, 181)
    assert least_s <= followed[0] - synced[0] <= most_s
