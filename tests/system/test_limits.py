"""What cannot be read, was cut, or may have been sent: a warning, and no harm."""

from __future__ import annotations

from tests.system.command import AS_ANYONE, as_anyone
from tests.system.rig import Rig


@as_anyone
def test_an_unreadable_file(rig: Rig) -> None:
    """The others are sent, a warning names it, and it does not count as deleted; readable again it is sent."""
    rig.write("a", "readable")
    rig.write("closed", "at first readable")
    rig.up(prefix=AS_ANYONE)
    rig.write("closed", "changed, and not to be read")
    closed = rig.workspace / "closed"
    closed.chmod(0)
    rig.write("b", "readable")
    rig.until(lambda: "b" in rig.there(), "the others")
    rig.until(lambda: any("'closed'" in warning for warning in rig.status()["warnings"]), "the warning")
    rig.in_state("watching")
    closed.chmod(0o600)
    rig.converged()
    rig.until(lambda: rig.status()["warnings"] == [], "the end of the warning")
    rig.ok("flush")


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
