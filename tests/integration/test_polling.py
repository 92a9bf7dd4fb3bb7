"""The daemon polls what brings no event: a shared file system, from a made-up list of mounts, under the real loop."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from select import poll
from typing import Any

import pytest

from syncd.archive.snapshotter import EVERYTHING, ScanPlan
from syncd.model.entry import Stamp
from syncd.report.status_publisher import StatusPublisher
from syncd.sync.status_document import State
from syncd.sync.sync_cycle import SyncCycle
from syncd.watch.changes import Changes
from syncd.watch.inotify_watch import InotifyWatch
from tests.clock import ScriptedClock
from tests.integration.sync_rig import rigged
from tests.integration.test_daemon_waits import DaemonRig


@dataclass
class ActingClock(ScriptedClock):
    """A clock that acts as time goes by, so many seconds after the beginning."""

    acts: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    began: float = 1_000.0

    def poll(self, poll: poll, seconds: float | None) -> list[tuple[int, int]]:
        found = super().poll(poll, seconds)
        while self.acts and self.monotonic - self.began >= self.acts[0][0]:
            self.acts.pop(0)[1]()
        return found


class Shared:
    """A daemon whose workspace reports nothing, with one part or all of it on NFS."""

    def __init__(self, loop: DaemonRig, clock: ActingClock, mounts: Path) -> None:
        self.loop = loop
        self.clock = clock
        self._mounts = mounts
        self.scans: list[tuple[float, Any]] = []
        self.states: list[State] = []

    def mount(self, *points: Path) -> None:
        lines = [f"{90 + at} 22 0:{50 + at} / {point} rw - nfs4 server:/ rw\n" for at, point in enumerate(points)]
        self._mounts.write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + "".join(lines))

    def at(self, seconds: float, act: Callable[[], object]) -> None:
        self.clock.acts.append((seconds, act))

    def run(self, seconds: float) -> None:
        """Run the daemon for so long."""
        self.at(seconds, self._end)
        self.loop.run()

    def _end(self) -> None:
        self.loop.send(signal.SIGHUP)

    def sent(self, path: str) -> str:
        return (self.loop.rig.sandbox.workspace / path).read_text()


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:
    """A workspace with a local file and a folder that may be shared."""
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr("syncd.watch.mounts._LIST", str(mounts))
    monkeypatch.setattr(InotifyWatch, "_changes", lambda *_: Changes())
    with rigged(tmp_path) as rig:
        (rig.workspace / "data/deep").mkdir(parents=True)
        for path in ("here", "data/there", "data/deep/one"):
            (rig.workspace / path).write_text("old")
        loop = DaemonRig(rig)
        clock = ActingClock()
        loop.use(clock)
        shared = Shared(loop, clock, mounts)
        scan, enter = SyncCycle.run, StatusPublisher.enter

        def recorded_scan(cycle: SyncCycle, mode: Any, observer: Any, scan_plan: Any = EVERYTHING) -> Any:
            def recorded() -> Any:
                changed = scan_plan.to_scan()
                shared.scans.append((clock.monotonic - clock.began, changed))
                return changed

            return scan(cycle, mode, observer, ScanPlan(recorded, scan_plan.before))

        def recorded_state(publisher: StatusPublisher, state: State) -> None:
            shared.states.append(state)
            enter(publisher, state)

        monkeypatch.setattr(SyncCycle, "run", recorded_scan)
        monkeypatch.setattr(StatusPublisher, "enter", recorded_state)
        with loop.signals.installed():
            yield shared


def test_a_shared_mount_in_a_local_workspace(shared: Shared) -> None:
    """Its directories alone are scanned every two seconds; the local part waits for its events."""
    workspace = shared.loop.rig.workspace
    shared.mount(workspace / "data")
    shared.at(3, lambda: (workspace / "data/deep/one").write_text("new!"))
    shared.run(9)
    assert shared.sent("data/deep/one") == "new!"
    assert [changed for _, changed in shared.scans[1:]] == [{"data", "data/deep"}] * 4
    assert [at for at, _ in shared.scans[1:]] == pytest.approx([2, 4, 6, 8], abs=0.5)


def test_coarse_times_of_a_slow_clock(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second write that leaves size and times as they were when the first one was read is found by a later poll."""
    _coarse_times(monkeypatch)
    workspace = shared.loop.rig.workspace
    shared.mount(workspace / "data")
    shared.at(1, lambda: (workspace / "data/there").write_text("longer, so that it is noticed"))
    shared.at(3, lambda: (workspace / "data/there").write_text("longer, so THAT it is noticed"))
    shared.run(9)
    assert shared.sent("data/there") == "longer, so THAT it is noticed"
    assert len(shared.scans) == 5


def _coarse_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def stamp(status: os.stat_result) -> Stamp:
        return Stamp(0, 0, status.st_ino, status.st_dev)

    monkeypatch.setattr("syncd.scan.file_reader.stamp_of", stamp)
