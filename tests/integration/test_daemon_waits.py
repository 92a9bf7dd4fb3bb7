"""The daemon's loop waits, during a failure or for a shared disk, against the emulator in process."""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from pathlib import Path
from select import poll
from typing import Any

import pytest

from syncd.core.clock import Clock, SystemClock
from syncd.core.durable_file import PauseMarker
from syncd.core.settings import check_config
from syncd.core.signals import Interrupt, Signals
from syncd.core.waiter import Waiter
from syncd.daemon import loop as daemon_loop
from syncd.daemon.build import daemon_of, folders_of
from syncd.daemon.loop import Daemon
from syncd.daemon.sync_run import SyncRun
from syncd.report.logs import sandbox_in_logs
from syncd.report.status_publisher import RunFacts, StatusPublisher
from syncd.sync.outcome import SyncReason
from syncd.sync.status_document import State
from syncd.sync.synced_hook import SyncedHook
from syncd.watch.changes import Changes
from syncd.watch.inotify_watch import InotifyWatch
from tests.clock import ScriptedClock
from tests.emulator import RequestRecord, When
from tests.integration.sync_rig import Rig


@dataclass
class ActingClock(ScriptedClock):
    """A clock that acts as time goes by, so many seconds after the beginning."""

    acts: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    began: float = 1_000.0

    @property
    def passed_s(self) -> float:
        return self.monotonic - self.began

    def poll(self, poll: poll, seconds: float | None) -> list[tuple[int, int]]:
        next_s = self.acts[0][0] - self.passed_s if self.acts else inf
        found = super().poll(poll, next_s if seconds is None else min(seconds, next_s))
        while self.acts and self.passed_s >= self.acts[0][0]:
            self.acts.pop(0)[1]()
        return found


class DaemonRig:
    """The daemon's loop in this thread, ended by the emulator after so many requests."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        rig.keys["retry"] = {"first_delay_seconds": 0.05, "max_delay_seconds": 0.1}
        rig.keys["sync"]["debounce_seconds"] = 0.01
        self.config = check_config(rig.keys)
        self.environ = {**rig.environ, "KLAVIS_API_KEY": rig.key.reveal()}
        self.waiter = Waiter(Interrupt(), SystemClock())
        self.signals = Signals(self.waiter.interrupt)
        self.folders = folders_of(self.config, self.environ)
        self.clock = ActingClock()

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
        self.signals.reload = False

    def at(self, seconds: float, act: Callable[[], object]) -> None:
        """Act so many seconds after the loop began, in `run_for`; these are given in their order."""
        self.clock.acts.append((seconds, act))

    def run_for(self, seconds: float) -> None:
        """Run the loop for so long, in scripted time."""
        self.at(seconds, lambda: self.send(signal.SIGHUP))
        self.use(self.clock)
        self.run()


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
        pools = daemon.clients[0]._transport.pools
        daemon.loops[0]._sync(SyncReason.RESCAN)
        assert len(pools) == 2
        loop.rig.clock.suspend(3600)
        daemon.handle(set())
        assert not pools


def test_what_changed_before_a_request_is_not_pending_after_it(
    loop: DaemonRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though both come right after the changes were read."""
    loop.use(loop.rig.clock)
    take = InotifyWatch.take

    def take_too_early(watch: InotifyWatch) -> Changes:
        changes = take(watch)
        if not (loop.rig.workspace / "late").exists():
            loop.rig.write("late")
            loop.send(signal.SIGUSR1)
        return changes

    with loop.daemon() as daemon:
        agenda = daemon.loops[0].agenda
        daemon.loops[0]._sync(SyncReason.RESCAN)
        monkeypatch.setattr(InotifyWatch, "take", take_too_early)
        while not agenda.requests.has_fresh:
            daemon.handle(set())
        daemon.loops[0]._sync(SyncReason.ORDER)
        daemon.handle(set())
        assert agenda.due.burst is None


def test_what_comes_is_logged_of_no_sandbox(loop: DaemonRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever task receives it, of a suspend say."""
    loop.use(loop.rig.clock)
    named: list[str] = []
    monkeypatch.setattr(daemon_loop._log, "info", lambda *_: named.append(sandbox_in_logs.get()))
    with loop.daemon() as daemon:
        loop.rig.clock.suspend(3600)
        before = sandbox_in_logs.set("blue")
        daemon.handle(set())
        assert (named, sandbox_in_logs.get()) == ([""], "blue")
        sandbox_in_logs.reset(before)


def test_a_removal_that_failed_is_tried_again(loop: DaemonRig) -> None:
    """Though nothing changes, and long before the next rescan."""
    rig = loop.rig
    rig.keys["sandbox"]["deletions"] = "mirror"
    loop.config = check_config(rig.keys)
    rig.wait_for_programs()
    rig.send({"z": "hello"})
    rig.restart()
    rig.delete("z")
    rig.emulator.faults.script("execute: failed x2")
    loop.run_for(60)
    assert sorted(rig.arrived()) == ["a.txt"]


def _outage(loop: DaemonRig, fault: str, lasts_s: float) -> list[float]:
    """Run the daemon through an outage, and return the seconds at which it tried."""
    rig, tried = loop.rig, list[float]()
    rig.keys["retry"] = {"first_delay_seconds": 1, "max_delay_seconds": 60, "give_up_after_seconds": 300}
    loop.config = check_config(rig.keys)
    rig.emulator.faults.script(f"upload-url: {fault} always")
    rig.emulator.faults.on("upload-url", When.BEFORE, lambda _: tried.append(loop.clock.passed_s))
    loop.run_for(lasts_s)
    return tried


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_a_request_ends_a_wait(loop: DaemonRig, fault: str) -> None:
    """A person who asks in an outage gets an attempt at once; else there is one a minute at least, however long."""
    loop.at(520, lambda: loop.send(signal.SIGUSR1))
    tried = _outage(loop, fault, 1000)
    assert min(time_s for time_s in tried if time_s >= 520) == pytest.approx(520, abs=0.01)
    assert max(later - earlier for earlier, later in pairwise(tried)) <= 60.1


@pytest.mark.parametrize("fault", ["503", "reset"])
@pytest.mark.parametrize("after_s", [100, 520])
def test_a_suspend_ends_a_wait(loop: DaemonRig, fault: str, after_s: int) -> None:
    """It is tried at once, and soon again, as the network of a machine that woke up takes some seconds."""
    loop.at(after_s, lambda: loop.clock.suspend(3600))
    tried = _outage(loop, fault, after_s + 100)
    since_woken = [time_s - after_s for time_s in tried if time_s >= after_s]
    assert since_woken[0] <= 1.1
    assert since_woken[4] <= 16


# -- a shared disk is looked at again each half minute: from a made-up list of mounts


class Shared:
    """A daemon whose workspace reports nothing, with one part or all of it on NFS."""

    def __init__(self, loop: DaemonRig, mounts: Path) -> None:
        self.loop = loop
        self._mounts = mounts
        self.scans: list[tuple[float, Any]] = []
        self.states: list[State] = []

    def mount(self, *points: Path) -> None:
        lines = [f"{90 + at} 22 0:{50 + at} / {point} rw - nfs4 server:/ rw\n" for at, point in enumerate(points)]
        self._mounts.write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + "".join(lines))


@pytest.fixture
def shared(bare: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:
    """A workspace with a local file and a folder that may be shared."""
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr("syncd.watch.mounts._LIST", str(mounts))
    monkeypatch.setattr(InotifyWatch, "_changes", lambda *_: Changes())
    (bare.workspace / "data/deep").mkdir(parents=True)
    for path in ("here", "data/there", "data/deep/one"):
        (bare.workspace / path).write_text("old")
    loop = DaemonRig(bare)
    shared = Shared(loop, mounts)
    to_scan, enter = SyncRun.to_scan, StatusPublisher.enter

    def recorded_scan(run: SyncRun) -> Any:
        only = to_scan(run)
        shared.scans.append((loop.clock.passed_s, only))
        return only

    def recorded_state(publisher: StatusPublisher, state: State, retry_s: float = inf) -> None:
        shared.states.append(state)
        enter(publisher, state, retry_s)

    monkeypatch.setattr(SyncRun, "to_scan", recorded_scan)
    monkeypatch.setattr(StatusPublisher, "enter", recorded_state)
    with loop.signals.installed():
        yield shared


@pytest.mark.parametrize("part", ["data", "."])
def test_a_shared_disk(shared: Shared, part: str) -> None:
    """All is scanned each half minute, and `status` shows no work where nothing changed."""
    workspace = shared.loop.rig.workspace
    shared.mount(workspace / part)
    shared.loop.at(40, lambda: (workspace / "data/deep/one").write_text("new!"))
    shared.loop.run_for(100)
    assert shared.loop.rig.there("data/deep/one") == "new!"
    assert [at for at, _ in shared.scans] == pytest.approx([0, 30, 60, 90], abs=0.5)
    assert shared.states.count(State.UPLOADING) == 2
    assert shared.states.count(State.SNAPSHOTTING) == 2


def test_a_local_disk(shared: Shared) -> None:
    """It waits for its events, and so does one with a shared disk at an excluded place."""
    (shared.loop.rig.workspace / "node_modules").mkdir()
    shared.mount(shared.loop.rig.workspace / "node_modules")
    shared.loop.run_for(100)
    assert len(shared.scans) == 1


def test_a_directory_beyond_the_limit(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a scan of some directories could not watch is scanned each half minute from then on."""
    made = shared.loop.rig.workspace / "made/file"

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def make() -> None:
        monkeypatch.setattr(InotifyWatch, "_add", refuse)
        monkeypatch.setattr(InotifyWatch, "_changes", lambda _, events: Changes(frozenset([""] if events else [])))
        made.parent.mkdir()
        made.write_text("old")

    shared.loop.at(10, make)
    shared.loop.at(20, lambda: made.write_text("new!"))
    shared.loop.run_for(60)
    assert shared.loop.rig.there("made/file") == "new!"
    assert any(scanned for _, scanned in shared.scans), "not all scans were full"
