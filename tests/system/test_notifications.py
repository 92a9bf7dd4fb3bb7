"""Desktop notifications by the real daemon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.desktop import Desktop
from tests.system.rig import Rig

SAVED = "work: the agent's work was saved"


@pytest.fixture
def desktop(rig: Rig, tmp_path: Path) -> Desktop:
    """The desktop of the session that the daemon is started in."""
    desktop = Desktop(tmp_path)
    rig.environ["PATH"] = f"{desktop.folder}:{os.environ['PATH']}"
    return desktop


@pytest.mark.parametrize("is_on", [True, False])
def test_both_sides_changed(rig: Rig, desktop: Desktop, is_on: bool) -> None:
    """What the agent had changed too is saved and overwritten: one notification says so, if they are on."""
    rig.configure({"sandbox.agent_changes": "save", "notifications.desktop": is_on})
    rig.write("a", "ours")
    rig.write("b", "ours")
    rig.up()
    agent = rig.agent
    for path in ("a", "b"):
        agent.write(path, "theirs")
    rig.write("a", "newer")
    rig.ok("flush")
    assert agent.read("a") == b"newer"
    agent.write("a", "theirs again")
    rig.write("a", "newest")
    rig.ok("flush")
    assert (agent.read("a"), agent.read("b")) == (b"newest", b"theirs")
    if not is_on:
        assert desktop.shown() == []
        return
    ((summary, body),) = desktop.shown()
    assert summary == SAVED
    assert body.startswith("Both sides had changed 1 file.")
