"""Two work at one workspace: the real command, under the default settings, and an agent in the sandbox."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.agent import Agent
from tests.desktop import Desktop
from tests.system.rig import DEFAULTS, Rig


@pytest.fixture
def agent(rig: Rig) -> Agent:
    """The agent in a sandbox that holds the workspace."""
    rig.configure(DEFAULTS)
    rig.fill(12)
    rig.write("f", "as sent")
    rig.up()
    rig.ok("flush")
    return rig.agent


@pytest.mark.parametrize("command", ["flush", "push"])
def test_what_was_saved_is_named(rig: Rig, agent: Agent, command: str) -> None:
    """By the command that overwrote it, with or without a daemon, some of many; `resolve` counts the versions."""
    assert "saved" not in rig.run("resolve").err
    for turn, names in enumerate((["f"], [f"folder{number}/file{number:03}.txt" for number in range(7)])):
        rig.daemons[-1].stop()
        for name in names:
            agent.write(name, f"the agent's {turn}")
        if turn:
            rig.configure({**DEFAULTS, "sync.debounce_seconds": 100, "sync.max_wait_seconds": 100})
            rig.start()
            rig.in_state("watching", "debouncing")
        for name in names:
            rig.write(name, f"mine {turn}")
        told = rig.ok(command).err
        shown = names if len(names) == 1 else [*names[:5], "and 2 more"]
        assert f"saved: what the sandbox had of {', '.join(shown)}: `syncd saved` lists it\n" in told
        assert told.count("saved: ") == 1
    assert len(rig.saved()) == 2
    listed = rig.run("resolve")
    assert (listed.code, listed.err.splitlines()[-1]) == (
        0,
        "2 versions saved where both changed a path: `syncd saved`",
    )
    assert "saved: " not in rig.ok(command).err


@pytest.mark.parametrize("archive", ["auto", "full"])
def test_what_only_the_agent_changed_stays(rig: Rig, agent: Agent, archive: str) -> None:
    """Through whole archives, a kill, another process and a rescan; what was deleted here as well."""
    rig.configure({**DEFAULTS, "sync.archive": archive})
    agent.write("f", "the agent's")
    agent.write("folder0/file000.txt", "the agent's, too")
    (rig.workspace / "folder0/file000.txt").unlink()
    for content in ("one", "two"):
        rig.restart()
        rig.write("g", content)
        rig.ok("flush")
        assert agent.read("g") == content.encode()
        assert agent.read("f") == b"the agent's"
        assert agent.read("folder0/file000.txt") == b"the agent's, too"
    assert rig.saved() == []


def test_status_tells_of_the_agents_work(rig: Rig, agent: Agent) -> None:
    """After a look of any process, until it is home, overwritten, or gone there; with and without a daemon."""

    def known() -> int:
        found = rig.status()["agent"]
        assert found["looked_at"] is not None
        number: int = found["changed"]
        return number

    for path in ("f", "new", "other"):
        agent.write(path, "the agent's")
    assert rig.run("diff", "--stat", "work/f").code == 1
    assert known() == 3
    shown = rig.ok("status").out
    assert "agent changed 3 files: `syncd diff`" in " ".join(shown.split())
    rig.write("f", "mine")
    rig.ok("flush")
    assert known() == 2  # that one was saved and overwritten; no sync looks at the others
    rig.ok("apply", "--yes", "new")
    assert known() == 1
    rig.ok("apply", "--undo")
    assert known() == 2
    rig.daemons[-1].stop()
    assert known() == 2
    agent.delete("new")
    rig.write("other", "the agent's")
    rig.ok("push")
    assert known() == 1  # the same on both sides; nobody has looked at the other one yet
    rig.ok("diff")
    assert known() == 0
    assert "agent changed" not in rig.ok("status").out


def test_many_held_paths(rig: Rig) -> None:
    """All are counted wherever they are counted; only the first are named; all else is sent, and `push --force` saves
    them before they are overwritten.
    """
    rig.configure({**DEFAULTS, "sandbox.agent_changes": "hold"})
    paths = [f"many/{number:02}" for number in range(60)]
    for path in paths:
        rig.write(path)
    rig.up()
    agent = rig.agent
    for path in paths:
        agent.write(path, "the agent's")
        rig.write(path, "mine")
    rig.write("other")
    flushed = rig.ok("flush").told.splitlines()
    assert (agent.read(paths[0]), agent.exists("other")) == (b"the agent's", True)
    assert (len(flushed), flushed[-1]) == (51, "held: 10 more paths: `syncd resolve` decides")
    status = rig.status()
    assert (status["agent"]["held"], status["agent"]["held_count"]) == (paths[:50], 60)
    assert "10 more paths changed here and in the sandbox" in status["warnings"][-1]
    assert "60 paths held" in rig.ok("status").out
    assert "60 held" in rig.ok("status", "--all").out
    rig.ok("push", "--force")
    rig.converged()
    assert (rig.restored(paths[0]), rig.status()["agent"]["held"]) == ("the agent's", [])


@pytest.mark.parametrize("is_on", [True, False])
def test_the_desktop_is_told(rig: Rig, tmp_path: Path, is_on: bool) -> None:
    """What the agent had changed too is saved and overwritten: one notification says so, if they are on."""
    desktop = Desktop(tmp_path)
    rig.environ["PATH"] = f"{desktop.folder}:{os.environ['PATH']}"
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
    assert summary == "work: the agent's work was saved"
    assert body.startswith("Both sides had changed 1 file.")
