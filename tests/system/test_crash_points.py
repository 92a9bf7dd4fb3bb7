"""The next daemon after a daemon was killed."""

from __future__ import annotations

from tests.system.rig import Rig


def test_an_uncertain_sandbox_is_pending(rig: Rig) -> None:
    """A paused daemon reports changes as pending that a killed one may have sent."""
    rig.write("a", "first")
    first = rig.up()
    killed = rig.once("initialize", "after", first.kill)
    rig.write("a", "other")
    assert killed.wait(60), rig.report()
    rig.write("a", "first")
    rig.ok("pause")
    rig.start()
    assert rig.status_in("paused")["pending"] is True
    rig.ok("resume")
    rig.converged()
    rig.ok("flush")
    assert rig.status()["pending"] is False
