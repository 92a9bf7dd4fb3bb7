"""A shared disk is looked at again each half minute: from a made-up list of mounts, under the real loop."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from select import poll
from typing import Any

import pytest

from syncd.daemon.sandbox_loop import SandboxLoop
from syncd.report.status_publisher import StatusPublisher
from syncd.sync.status_document import State
from syncd.watch.changes import Changes
from syncd.watch.inotify_watch import InotifyWatch
from tests.clock import ScriptedClock
from tests.integration.sync_rig import Rig
from tests.integration.test_daemon_waits import DaemonRig


@dataclass
class ActingClock(ScriptedClock):
    """A clock that acts as time goes by, so many seconds after the beginning."""

    acts: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    began: float = 1_000.0

    def poll(self, poll: poll, seconds: float | None) -> list[tuple[int, int]]:
        next_s = self.acts[0][0] + self.began - self.monotonic if self.acts else inf
        found = super().poll(poll, next_s if seconds is None else min(seconds, next_s))
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
def shared(bare: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:
    """A workspace with a local file and a folder that may be shared."""
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr("syncd.watch.mounts._LIST", str(mounts))
    monkeypatch.setattr(InotifyWatch, "_changes", lambda *_: Changes())
    (bare.workspace / "data/deep").mkdir(parents=True)
    for path in ("here", "data/there", "data/deep/one"):
        (bare.workspace / path).write_text("old")
    loop = DaemonRig(bare)
    clock = ActingClock()
    loop.use(clock)
    shared = Shared(loop, clock, mounts)
    to_scan, enter = SandboxLoop.to_scan, StatusPublisher.enter

    def recorded_scan(loop: SandboxLoop) -> Any:
        only = to_scan(loop)
        shared.scans.append((clock.monotonic - clock.began, only))
        return only

    def recorded_state(publisher: StatusPublisher, state: State, **changes: Any) -> None:
        shared.states.append(state)
        enter(publisher, state, **changes)

    monkeypatch.setattr(SandboxLoop, "to_scan", recorded_scan)
    monkeypatch.setattr(StatusPublisher, "enter", recorded_state)
    with loop.signals.installed():
        yield shared


@pytest.mark.parametrize("part", ["data", "."])
def test_a_shared_disk(shared: Shared, part: str) -> None:
    """All is scanned each half minute, and `status` shows no work where nothing changed."""
    workspace = shared.loop.rig.workspace
    shared.mount(workspace / part)
    shared.at(40, lambda: (workspace / "data/deep/one").write_text("new!"))
    shared.run(100)
    assert shared.sent("data/deep/one") == "new!"
    assert [at for at, _ in shared.scans] == pytest.approx([0, 30, 60, 90], abs=0.5)
    assert shared.states.count(State.UPLOADING) == 2
    assert shared.states.count(State.SNAPSHOTTING) == 2


def test_a_local_disk(shared: Shared) -> None:
    """It waits for its events, and so does one with a shared disk at an excluded place."""
    (shared.loop.rig.workspace / "node_modules").mkdir()
    shared.mount(shared.loop.rig.workspace / "node_modules")
    shared.run(100)
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

    shared.at(10, make)
    shared.at(20, lambda: made.write_text("new!"))
    shared.run(60)
    assert shared.sent("made/file") == "new!"
    assert any(scanned for _, scanned in shared.scans), "not all scans were full"
