"""The agent finds the MCP servers of its sandbox in a file, which is never one that a person wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.core.settings import check_config
from syncd.daemon.build import mcp_servers_of, workspace_of
from syncd.sandbox.mcp_servers import McpServers
from tests.integration.sync_rig import Rig, rigged


class ServersRig:
    """The workspace, in sandboxes that are acquired, and the file for their agent."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.file = rig.folder / "agent.json"
        rig.keys["sandbox"] |= {"mcp_file": str(self.file), "acquire": {"servers": ["filesystem", "git"]}}
        del rig.keys["sandbox"]["id"]
        self.restart()

    def restart(self) -> None:
        """Begin a process, with the configuration of now."""
        self.rig.restart()
        self._servers: McpServers | None = None

    @property
    def servers(self) -> McpServers:
        """Return those of the present process."""
        if self._servers is None:
            config, rig = check_config(self.rig.keys), self.rig
            self._servers = mcp_servers_of(workspace_of(config, rig.environ, rig.key, rig.client))
        return self._servers

    def sync(self) -> None:
        """Sync once, and tell the agent."""
        self.rig.sync()
        self.servers.arrived(self.rig.cycle.target, self.rig.cycle.provider.acquired_sandbox)

    def next_sandbox(self) -> None:
        """Sync once the sandbox has ended."""
        self.rig.clock.go_on(7200)
        self.sync()

    def warnings(self) -> str:
        """Return the warnings in `status`."""
        return "\n".join(map(str, self.servers.warnings))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ServersRig]:
    with rigged(tmp_path) as rig:
        rig.write("a", "1")
        yield ServersRig(rig)


def test_a_named_sandbox_is_asked(rig: ServersRig) -> None:
    """Once a process, after a sync; three times at most if that fails, and the file is not written before."""
    sandbox = rig.rig.keys["sandbox"]
    del sandbox["acquire"]
    sandbox["id"] = rig.rig.emulator.create_sandbox("other", ["terminal"]).id
    rig.rig.emulator.faults.script("get: 500 x5")
    rig.restart()
    for _ in range(4):
        rig.sync()
        assert (rig.file.exists(), "did not name" in rig.warnings()) == (False, True)
    assert rig.rig.asked().count("get") == 3
    rig.restart()
    for _ in range(4):
        rig.sync()
    assert list(json.loads(rig.file.read_text())["mcpServers"]) == ["terminal"]
    assert (rig.rig.asked().count("get"), rig.warnings()) == (6, "")


def test_a_persons_file_is_not_overwritten(rig: ServersRig) -> None:
    """An existing file, or one edited since, stays; syncd recognises its own, also after a restart."""
    rig.file.write_text("mine")
    rig.sync()
    assert rig.file.read_text() == "mine"
    assert "syncd did not write" in rig.warnings()
    rig.file.unlink()
    rig.sync()
    first = rig.file.read_text()
    rig.restart()
    rig.next_sandbox()
    assert (rig.file.read_text() != first, rig.warnings()) == (True, "")
    rig.file.write_text(f"{first} ")
    rig.next_sandbox()
    assert rig.file.read_text() == f"{first} "


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "no parent"])
def test_another_kind_of_file_is_not_overwritten(rig: ServersRig, kind: str) -> None:
    """It causes a warning, not a failure, and nothing is written elsewhere."""
    match kind:
        case "link":
            rig.file.symlink_to(rig.rig.folder / "elsewhere")
        case "folder":
            rig.file.mkdir()
        case "fifo":
            os.mkfifo(rig.file)
        case _:
            rig.rig.keys["sandbox"]["mcp_file"] = str(rig.rig.folder / "none" / "agent.json")
            rig.restart()
    rig.rig.sync()
    before = set(rig.rig.folder.iterdir())
    rig.sync()
    assert "cannot be written" in rig.warnings()
    assert set(rig.rig.folder.iterdir()) == before
    assert not (rig.rig.folder / "elsewhere").exists()
