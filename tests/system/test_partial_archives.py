"""Partial archives with a daemon that ends before the sandbox has proved that they work."""

from __future__ import annotations

import signal

import pytest

from tests.system.rig import Rig


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_killed_during_a_proof(rig: Rig, number: signal.Signals) -> None:
    """The sandbox was replaced by the partial archive: the next daemon is uncertain, and sends everything."""
    rig.configure({"sync.archive": "changes"})
    rig.fill(10)
    rig.up()
    rig.faults("initialize: replace always", "download: hang 60")
    rig.write("folder1/file001.txt", "changed")
    rig.until(lambda: rig.count("dump", 200), "the proof to begin")
    daemon = rig.daemons[-1]
    assert daemon.stop(number) == (0 if number is signal.SIGTERM else -number)
    assert rig.status()["pending"] is True
    assert len([what for what in rig.there().values() if what]) < 10
    rig.up()
    rig.converged()
    assert rig.status()["pending"] is False


def test_a_proof_that_fails(rig: Rig) -> None:
    """It is not repeated during the sync: everything follows at once."""
    rig.configure({"sync.archive": "changes", "retry.first_delay_seconds": 30, "retry.max_delay_seconds": 30})
    rig.fill(10)
    rig.up()
    rig.faults("initialize: replace always", "dump: 503 always")
    rig.write("folder1/file001.txt", "changed")
    rig.ok("flush")
    rig.converged()
    assert rig.count("dump") == 1
    assert rig.status()["failures"] == 0
