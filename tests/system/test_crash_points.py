"""The next daemon after a daemon was killed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.component.test_state_files import fifo, full_folder, link_nowhere
from tests.system.rig import Rig


def test_an_uncertain_sandbox_is_pending(rig: Rig) -> None:
    """A paused daemon reports changes as pending that a killed one may have sent."""
    rig.write("a", "first")
    first = rig.up()
    killed = rig.once("initialize", "after", first.kill)
    rig.write("a", "other")
    assert killed.wait(20), rig.report()
    rig.write("a", "first")
    rig.ok("pause")
    rig.start()
    assert rig.status_in("paused")["pending"] is True
    rig.ok("resume")
    rig.converged()
    rig.ok("flush")
    assert rig.status()["pending"] is False


def _empty(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize("first", [0, *(pytest.param(number, marks=pytest.mark.long) for number in (1, 2, 3))])
def test_other_files_in_the_place_of_records(rig: Rig, first: int) -> None:
    """The daemon starts, reports them, sends everything once, and recovers."""
    rig.fill(5)
    rig.up().stop()
    kinds = (fifo, full_folder, link_nowhere, _empty)
    for number, name in enumerate(("state.db", "mounts", "workspace", "status.json"), first):
        path = rig.state_folder / name
        path.unlink(missing_ok=True)
        kinds[number % len(kinds)](path)
    shutil.rmtree(rig.sandbox.workspace)
    rig.sandbox.workspace.mkdir()
    daemon = rig.start()
    rig.converged()
    rig.in_state("watching")
    rig.ok("flush")
    assert "the state file 'state.db'" in daemon.err
    assert rig.status()["warnings"] == []
    daemon.stop()
    before = rig.count("upload")
    rig.start()
    rig.in_state("watching")
    rig.ok("flush")
    assert rig.count("upload") == before
