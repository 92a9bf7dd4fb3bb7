"""The information for an agent, from any server's text."""

from __future__ import annotations

import json
import subprocess

from syncd.cli.sandbox import shell_lines
from syncd.sandbox.mcp_servers import callable_servers, mcp_json

HOSTILE = {
    "git": "https://host/$(touch${IFS}x)?t='\"`id`",
    "GIT": "https://host/second",
    "a;b\nc": "http://host/x",
    "blank": "https://host/a b",
    "line": "https://host/\nexport PATH=",
    "other": "javascript:alert(1)",
    "none": "",
    "": "https://host/nameless",
}


def test_only_a_usable_address_is_passed_on() -> None:
    """A callable server has a name and a valid http address."""
    assert set(callable_servers(HOSTILE)) == {"git", "GIT", "a;b\nc"}
    assert set(json.loads(mcp_json(HOSTILE))["mcpServers"]) == {"git", "GIT", "a;b\nc"}


def test_the_shell_file_only_sets_variables() -> None:
    """The shell lines set variables and do nothing else."""
    script = "\n".join(shell_lines("box; exit 3", "", callable_servers(HOSTILE)))
    script += '\nprintf "%s\\n" "$SYNCD_SANDBOX_ID" "$SYNCD_MCP_GIT" "$SYNCD_MCP_A_B_C"'
    ran = subprocess.run(["/bin/sh", "-ec", script], capture_output=True, text=True, env={}, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == ["box; exit 3", HOSTILE["git"], "http://host/x"]
