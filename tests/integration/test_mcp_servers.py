"""The MCP servers of the sandbox are known once it holds the workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.core.settings import check_config
from syncd.daemon.build import access_of
from syncd.sandbox.mcp_servers import McpServers
from tests.integration.sync_rig import rigged


def test_a_named_sandbox_is_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After each sync until the API answers."""
    with rigged(tmp_path) as rig:
        rig.write("a", "1")
        rig.keys["sandbox"]["id"] = rig.emulator.create_sandbox("other", ["terminal"]).id
        rig.restart()
        rig.sync()
        config, target = check_config(rig.keys), rig.cycle.target
        assert target is not None
        servers = McpServers(access_of(config, rig.environ, rig.key, rig.client).api)
        rig.emulator.faults.script("get: 500 x1")
        assert [[*servers.of(target, None)] for _ in range(3)] == [[], ["terminal"], ["terminal"]]
        assert (rig.asked().count("get"), "the next sync asks again" in caplog.text) == (2, True)
