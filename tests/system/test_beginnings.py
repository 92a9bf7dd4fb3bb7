"""A daemon and a command that begin at the same moment: each waits for the other, and neither is turned away."""

from __future__ import annotations

import pytest
from rig import Rig


@pytest.mark.parametrize("command", ["flush", "push"])
def test_a_command_typed_right_after_the_daemon(rig: Rig, command: str) -> None:
    """Whichever has the workspace first, the command ends well and the daemon stays."""
    rig.fill(3)
    daemon = rig.start()
    rig.ok(command)
    rig.until(lambda: rig.status()["state"] == "watching", "the daemon to watch")
    assert rig.status()["pid"] == daemon.pid
    rig.converged()
