"""Partial archives with a daemon that ends before the sandbox has proved that they work."""

from __future__ import annotations

import signal

import pytest

from tests.system.rig import Rig


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_killed_during_a_proof(rig: Rig, number: signal.Signals) -> None:
    """The sandbox was replaced by the partial archive: the next daemon is uncertain, and sends everything."""
    rig.configure({"sync.archive": "auto"})
    rig.fill(10)
    rig.faults("execute: 404 always", "initialize: replace always", "download: hang 60")
    began = rig.once("download", "before", lambda: None)
    daemon = rig.start()
    assert began.wait(20), rig.report()
    assert daemon.stop(number) == (0 if number is signal.SIGTERM else -number)
    assert rig.status()["pending"] is True
    assert len([what for what in rig.there().values() if what]) < 10
    rig.up()
    rig.converged()
    rig.ok("flush")
    assert rig.status()["pending"] is False


def test_a_proof_that_fails(rig: Rig) -> None:
    """It is not repeated during the sync: everything follows at once, and so it does with the next change."""
    rig.configure({"sync.archive": "auto", "retry.first_delay_seconds": 30, "retry.max_delay_seconds": 30})
    rig.fill(10)
    rig.faults("execute: 404 always", "initialize: replace always", "dump: 404 always")
    rig.up()
    rig.ok("flush")
    rig.converged()
    assert rig.count("dump") == 1
    rig.write("folder1/file001.txt", "changed")
    rig.ok("flush")
    rig.converged()
    assert rig.count("dump") == 1
    assert rig.status()["failures"] == 0


def test_a_sandbox_that_replaces_gets_whole_archives(rig: Rig) -> None:
    """The proof finds it before `flush` returns, and a warning says so from then on, in the next process too."""
    rig.configure({"sync.archive": "auto"})
    rig.fill(10)
    rig.faults("initialize: replace always")
    rig.up()
    rig.ok("flush")
    rig.converged()
    for _ in range(2):
        rig.write("folder1/file001.txt", "changed")
        rig.ok("flush")
        rig.converged()
        assert any("whole archives are sent" in warning for warning in rig.status()["warnings"])
        rig.restart()
