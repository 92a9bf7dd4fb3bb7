"""A daemon and a command that start at the same moment: each waits for the other, and none is refused."""

from __future__ import annotations

import pytest

from tests.system.rig import Rig


@pytest.mark.parametrize("command", ["flush", "push"])
def test_a_command_typed_right_after_the_daemon(rig: Rig, command: str) -> None:
    """Whichever has the lock first, the command succeeds and the daemon stays."""
    rig.fill(3)
    daemon = rig.start()
    rig.ok(command)
    rig.until(lambda: rig.status()["state"] == "watching", "the daemon to watch")
    assert rig.status()["pid"] == daemon.pid
    rig.converged()


def test_a_daemon_that_begins_while_a_command_syncs(rig: Rig) -> None:
    """It waits for the command's end."""
    rig.fill(3)
    rig.faults("upload: delay 1.5")
    push = rig.background("push")
    rig.until(lambda: rig.count("upload"), "the push's upload")
    daemon = rig.start()
    assert push.wait() == 0
    rig.until(lambda: rig.status()["pid"] == daemon.pid, "the daemon to run")
    rig.converged()
