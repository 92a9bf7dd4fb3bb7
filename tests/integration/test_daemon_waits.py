"""The daemon's loop waits during a failure, against the emulator in process."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from syncd.core.clock import Clock, SystemClock
from syncd.core.durable_file import PauseMarker
from syncd.core.settings import check_config
from syncd.core.signals import Interrupt, Signals
from syncd.core.waiter import Waiter
from syncd.daemon.build import daemon_of, folders_of
from syncd.daemon.loop import Daemon
from syncd.report.status_publisher import RunFacts
from syncd.sync.outcome import SyncReason
from syncd.sync.synced_hook import SyncedHook
from tests.emulator import RequestRecord, When
from tests.integration.sync_rig import Rig


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

    @contextmanager
    def daemon(self) -> Iterator[Daemon]:
        """Give a daemon of this configuration."""
        with daemon_of(
            self.config,
            RunFacts(os.getpid()),
            keys=dict.fromkeys(self.config.sandboxes, self.rig.key),
            environ=self.environ,
            waiter=self.waiter,
            signals=self.signals,
            synced_hook=SyncedHook(self.environ, self.waiter.clock),
        ) as daemon:
            yield daemon

    def run(self) -> None:
        with self.daemon() as daemon:
            assert daemon.run()  # it was to read another configuration


@pytest.fixture
def loop(rig: Rig) -> Iterator[DaemonRig]:
    """A daemon for a workspace with one file, and an emulator for it."""
    loop = DaemonRig(rig)
    with loop.signals.installed():
        yield loop


def test_a_request_while_paused_keeps_its_backoff(loop: DaemonRig, caplog: pytest.LogCaptureFixture) -> None:
    """A push during a pause with the server down waits like any other."""
    caplog.set_level(logging.INFO, "syncd")
    PauseMarker(loop.folders.state).create()
    loop.send(signal.SIGUSR1)
    loop.rig.emulator.faults.script("upload-url: 503 always")
    loop.end_after(4, "upload-url")
    loop.run()
    assert sum(record.getMessage().startswith("packing") for record in caplog.records) == 1


def test_a_suspend_ends_all_connections(loop: DaemonRig) -> None:
    """They look open and are dead."""
    loop.use(loop.rig.clock)
    with loop.daemon() as daemon:
        pools = daemon._clients[0]._transport.pools
        daemon._loops[0]._sync(SyncReason.RESCAN)
        assert len(pools) == 2
        loop.rig.clock.suspend(3600)
        daemon.handle(set())
        assert not pools


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
    _once_after(rig, 60, lambda: loop.send(signal.SIGHUP))
    loop.run()
    assert sorted(rig.arrived()) == ["a.txt"]


def _outage(loop: DaemonRig, fault: str, lasts_s: float) -> list[float]:
    """Run the daemon in scripted time through an outage, and return the seconds at which it tried."""
    rig, tried = loop.rig, []
    rig.keys["retry"] = {"first_delay_seconds": 1, "max_delay_seconds": 60, "give_up_after_seconds": 300}
    loop.config = check_config(rig.keys)
    loop.use(rig.clock)
    began_s = rig.clock.monotonic
    rig.emulator.faults.script(f"upload-url: {fault} always")

    def hook(_: RequestRecord) -> None:
        tried.append(rig.clock.monotonic - began_s)
        if tried[-1] > lasts_s:
            loop.send(signal.SIGHUP)

    rig.emulator.faults.on("upload-url", When.BEFORE, hook)
    loop.run()
    return tried


def _once_after(rig: Rig, seconds: float, act: Callable[[], None]) -> list[float]:
    """Act once so much time has passed, and return when that was, once it was."""
    began_s, sleep, acted = rig.clock.monotonic, rig.clock.sleep, list[float]()

    def sleep_and_act(slept_s: float) -> None:
        sleep(slept_s)
        if not acted and rig.clock.monotonic - began_s > seconds:
            acted.append(rig.clock.monotonic - began_s)
            act()

    rig.clock.sleep = sleep_and_act  # type: ignore[method-assign]
    return acted


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_a_request_ends_a_wait(loop: DaemonRig, fault: str) -> None:
    """A person who asks in an outage gets an attempt at once; else there is one a minute at least, however long."""
    asked_s = _once_after(loop.rig, 520, lambda: loop.send(signal.SIGUSR1))
    tried = _outage(loop, fault, 1000)
    since_asked = [time_s for time_s in tried if time_s >= asked_s[0]]
    assert since_asked[0] == pytest.approx(asked_s[0], abs=0.01)
    assert max(later - earlier for earlier, later in pairwise(tried)) <= 60.1


@pytest.mark.parametrize("fault", ["503", "reset"])
@pytest.mark.parametrize("after_s", [100, 520])
def test_a_suspend_ends_a_wait(loop: DaemonRig, fault: str, after_s: int) -> None:
    """It is tried at once, and soon again, as the network of a machine that woke up takes some seconds."""
    woke_s = _once_after(loop.rig, after_s, lambda: loop.rig.clock.suspend(3600))
    tried = _outage(loop, fault, after_s + 100)
    since_woken = [time_s - woke_s[0] for time_s in tried if time_s >= woke_s[0]]
    assert since_woken[0] <= 1.1
    assert since_woken[4] <= 16
