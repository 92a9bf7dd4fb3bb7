"""A daemon and a command that start at the same moment: each waits for the other, and none is refused."""

from __future__ import annotations

import pytest

from syncd.cli.progress import ProgressDisplay
from syncd.cli.push import sync_now
from syncd.core.config_file import load_config
from syncd.core.errors import Locked
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


def test_a_daemon_that_begins_while_a_command_does(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command found no daemon, then one has the lock: the command asks it."""
    answers = iter([None, {"outcome": "unchanged"}])

    def alone(*_: object) -> dict[str, object]:
        raise Locked("another syncd has this workspace")

    monkeypatch.setattr("syncd.cli.push.ask_daemon", lambda *_: next(answers, None))
    monkeypatch.setattr("syncd.cli.own_loop.sync_alone", alone)
    config, view = load_config(str(rig.config_file)), ProgressDisplay()
    assert sync_now(config, {"do": "push"}, view) == {"outcome": "unchanged"}
    monkeypatch.setattr("syncd.cli.push.STARTS_S", 0.0)
    with pytest.raises(Locked):
        sync_now(config, {"do": "push"}, view)
