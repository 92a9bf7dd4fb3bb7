"""The MCP servers of the sandbox are known once it holds the workspace."""

from __future__ import annotations

from pathlib import Path

from syncd.core.settings import check_config
from syncd.daemon.build import workspace_of
from syncd.sandbox.mcp_servers import McpServers
from tests.integration.sync_rig import Rig, rigged


def _servers(rig: Rig) -> McpServers:
    """Those of a new process, with the configuration of now."""
    rig.restart()
    config = check_config(rig.keys)
    return McpServers(config, workspace_of(config, rig.environ, rig.key, rig.client).api)


def _sync(rig: Rig, servers: McpServers) -> None:
    rig.sync()
    servers.arrived(rig.cycle.target, rig.cycle.provider.acquired_sandbox)


def test_a_named_sandbox_is_asked(tmp_path: Path) -> None:
    """Once a process, after a sync that is told of; three times at most if that fails, and then with a warning."""
    with rigged(tmp_path) as rig:
        rig.write("a", "1")
        rig.keys["sandbox"]["id"] = rig.emulator.create_sandbox("other", ["terminal"]).id
        _sync(rig, _servers(rig))
        assert "get" not in rig.asked()
        rig.keys["sync"] = {**rig.keys.get("sync", {}), "on_synced": ["true"]}
        rig.emulator.faults.script("get: 500 x5")
        for named, asked in (([], 3), (["terminal"], 6)):
            servers = _servers(rig)
            for _ in range(4):
                _sync(rig, servers)
                if not named:
                    assert "did not name" in str(servers.warnings[0])
            assert ([*servers.by_name], rig.asked().count("get")) == (named, asked)
        assert servers.warnings == []
