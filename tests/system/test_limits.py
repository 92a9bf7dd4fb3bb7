"""Limits of the machine are worked around, with a warning until they are raised."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.system.rig import Rig

# Root reads everything unless this right is taken away.
AS_ANYONE = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    if os.geteuid() == 0
    else ()
)

needs_setpriv = pytest.mark.skipif(
    bool(AS_ANYONE) and shutil.which("setpriv") is None, reason="root without setpriv(1) can read everything"
)


@needs_setpriv
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


def test_every_state_file_cut_in_half(rig: Rig) -> None:
    """The daemon does not crash, as after a crash of the machine, and converges."""
    rig.fill(5)
    rig.up()
    rig.kill()
    for path in rig.state_folder.iterdir():
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    rig.status()
    rig.write("more")
    rig.up()
    rig.converged()
