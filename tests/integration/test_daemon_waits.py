"""The daemon's loop waits during a failure, against the emulator in process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from syncd.core.clock import SystemClock
from syncd.core.interrupt import Interrupt
from syncd.core.settings import check_config
from syncd.daemon.build import RuntimeContext, daemon_of, folders_of
from syncd.daemon.loop import LoopEnd
from syncd.daemon.pause_file import PauseFile
from syncd.daemon.signals import Signals
from syncd.daemon.wakeup import Wakeup
from syncd.emulator import RequestRecord, When
from syncd.remote.sandbox_lifetime import AcquiredSandbox
from syncd.report.status_publisher import RunTotals
from syncd.sandbox.provider import AcquiredSandboxStore
from tests.integration.sync_rig import Rig, rigged


class DaemonRig:
    """The daemon's loop in this thread, ended by the emulator after so many requests."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        rig.keys["retry"] = {"first_delay_seconds": 0.05, "max_delay_seconds": 0.1}
        rig.keys["sync"]["debounce_seconds"] = 0.01
        self.config = check_config(rig.keys)
        environ = {"XDG_STATE_HOME": str(rig.folder / "state"), "XDG_CACHE_HOME": str(rig.folder / "cache")}
        self.context = RuntimeContext(SystemClock(), environ, Interrupt())
        self.wakeup = Wakeup()
        self.signals = Signals(self.context.interrupt, self.wakeup)
        self.folders = folders_of(self.config, environ)

    def end_after(self, requests: int, op: str) -> None:
        """End the loop at that request, as a SIGHUP would."""
        left = iter(range(requests - 1, -1, -1))

        def hook(entry: RequestRecord) -> None:
            if next(left, 0) == 0:
                self.signals.reload = True
                self.wakeup.wake()

        self.rig.emulator.faults.on(op, When.BEFORE, hook)

    def run(self, start_wait_s: float = 0.0) -> None:
        with daemon_of(
            self.config,
            key=self.rig.key,
            context=self.context,
            signals=self.signals,
            wakeup=self.wakeup,
            totals=RunTotals(),
            start_wait_s=start_wait_s,
        ) as daemon:
            assert daemon.run() is LoopEnd.RELOAD


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[DaemonRig]:
    """A daemon for a workspace with one file, and an emulator for it."""
    with rigged(tmp_path) as rig:
        rig.write()
        loop = DaemonRig(rig)
        try:
            yield loop
        finally:
            loop.wakeup.close()


def _snapshots(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.getMessage().startswith("packaging") for record in caplog.records)


def test_a_request_while_paused_keeps_its_backoff(loop: DaemonRig, caplog: pytest.LogCaptureFixture) -> None:
    """A push during a pause with the server down waits like any other."""
    caplog.set_level(logging.INFO, "syncd")
    PauseFile(loop.folders.state).set(paused=True)
    loop.signals.sync_now = True
    loop.wakeup.wake()
    loop.rig.emulator.faults.script("upload-url: 503 always")
    loop.end_after(4, "upload-url")
    loop.run()
    assert _snapshots(caplog) == 1


def test_an_idle_daemon_moves_when_its_sandbox_is_about_to_end(loop: DaemonRig) -> None:
    """The expiry of an acquired sandbox wakes it without a change or a periodic scan."""
    rig, wall_s = loop.rig, SystemClock().wall_s()
    del rig.keys["sandbox"]["id"]
    rig.keys["sandbox"]["acquire"] = {}
    loop.config = check_config(rig.keys)
    ours = AcquiredSandbox("box", wall_s - 60, wall_s + 7.2, {})  # of its life a tenth is given away
    AcquiredSandboxStore(loop.folders.state, rig.emulator.base_url).save(ours, [])
    loop.end_after(2, "initialize")
    loop.run()
    assert rig.asked().count("acquire") == 1
    assert rig.asked()[-1] == "initialize"


def test_a_start_waits_for_its_turn(loop: DaemonRig) -> None:
    """The first request of a service comes after its random wait."""
    rig = loop.rig
    loop.context = replace(loop.context, clock=rig.clock)
    began_s, seen = rig.clock.monotonic, []

    def hook(_: RequestRecord) -> None:
        seen.append(rig.clock.monotonic - began_s)

    rig.emulator.faults.on("upload-url", When.BEFORE, hook)
    loop.end_after(1, "upload-url")
    loop.run(start_wait_s=1.5)
    assert seen[0] >= 1.5
    assert sum(rig.clock.slept) == pytest.approx(1.5)


def test_a_request_does_not_wait_for_a_start(loop: DaemonRig) -> None:
    """A person who asks for a sync right after a start gets it at once."""
    loop.context = replace(loop.context, clock=loop.rig.clock)
    loop.signals.sync_now = True
    loop.wakeup.wake()
    loop.end_after(1, "upload-url")
    loop.run(start_wait_s=1.5)
    assert loop.rig.clock.slept == []
