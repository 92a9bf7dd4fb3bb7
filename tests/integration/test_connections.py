"""Connections kept open between two syncs, as the kernel's table shows them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from syncd.daemon.build import Role, daemon_of
from syncd.daemon.loop import Daemon
from syncd.report.status_publisher import RunTotals
from syncd.sync.outcome import SyncReason
from syncd.sync.synced_hook import SyncedHook
from tests.integration.sync_rig import Rig, rigged
from tests.integration.test_daemon_waits import DaemonRig

_ESTABLISHED = "01"
_TABLE = Path("/proc/self/net/tcp")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A workspace with one file, and its sandbox."""
    if not _TABLE.exists():
        pytest.skip("no table of connections here")
    with rigged(tmp_path) as rig:
        rig.write()
        yield rig


def connections(rig: Rig) -> set[tuple[str, int]]:
    """Return the open connections to the emulator, by origin and local port."""
    names = rig.emulator.ports()
    found = set()
    for line in _TABLE.read_text().splitlines()[1:]:
        _, here, there, state, *_ = line.split()
        port = int(there.rpartition(":")[2], 16)
        if state == _ESTABLISHED and port in names:
            found.add((names[port], int(here.rpartition(":")[2], 16)))
    return found


@contextmanager
def running(rig: Rig) -> Iterator[tuple[Daemon, DaemonRig]]:
    """Give a daemon after its first sync, in scripted time."""
    loop = DaemonRig(rig)
    loop.use(rig.clock)
    with loop.signals.installed():
        with daemon_of(
            loop.config,
            Role.DAEMON,
            keys={"main": rig.key},
            environ=loop.environ,
            waiter=loop.waiter,
            signals=loop.signals,
            totals=RunTotals(),
            synced_hook=SyncedHook(loop.environ, loop.waiter.clock),
        ) as daemon:
            daemon._loops["main"]._sync(SyncReason.RESCAN)
            assert len(connections(rig)) == 2
            yield daemon, loop
        assert connections(rig) == set()


def test_a_daemon_closes_them_after_a_suspend(rig: Rig) -> None:
    """They look open and are dead."""
    with running(rig) as (daemon, _):
        rig.clock.suspend(3600)
        daemon.handle(set())
        assert connections(rig) == set()
