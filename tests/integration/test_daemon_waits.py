"""The daemon's loop waits during a failure, against the emulator in process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
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

    def run(self) -> None:
        with daemon_of(
            self.config,
            key=self.rig.key,
            context=self.context,
            signals=self.signals,
            wakeup=self.wakeup,
            totals=RunTotals(),
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
