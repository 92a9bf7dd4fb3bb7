"""The information for an agent, from any server's text, and the attempts of the hook."""

from __future__ import annotations

import json
import subprocess

import pytest
from msgspec import structs

from syncd.sandbox.agent_info import AgentInfo, callable_servers, hook_variables, mcp_json, shell_lines
from syncd.sandbox.hook_rules import MOST_ATTEMPTS, HookRun, next_attempt

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
    found = hook_variables(AgentInfo("id\0x\n", "", HOSTILE), "/w", "")
    assert not any("\0" in value or "\n" in value for value in found.values())


def test_the_shell_file_only_sets_variables() -> None:
    """The shell lines set variables and do nothing else."""
    script = "\n".join(shell_lines(AgentInfo("box; exit 3", "", HOSTILE)))
    script += '\nprintf "%s\\n" "$SYNCD_SANDBOX_ID" "$SYNCD_MCP_GIT" "$SYNCD_MCP_A_B_C"'
    ran = subprocess.run(["/bin/sh", "-ec", script], capture_output=True, text=True, env={}, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == ["box; exit 3", HOSTILE["git"], "http://host/x"]


HERE = HookRun("here", ("tell",), 1)


@pytest.mark.parametrize(
    ("reported", "attempts"),
    [
        (None, 1),
        (structs.replace(HERE, place="there", done=True), 1),
        (structs.replace(HERE, done=True), None),
        (structs.replace(HERE, done=True, command=("other",)), None),
        (HERE, 2),
        (structs.replace(HERE, attempts=MOST_ATTEMPTS - 1, failure="x"), MOST_ATTEMPTS),
        (structs.replace(HERE, attempts=MOST_ATTEMPTS, failure="x"), None),
        (structs.replace(HERE, attempts=MOST_ATTEMPTS, failure="x", command=("other",)), 1),
    ],
)
def test_how_often_the_hook_runs(reported: HookRun | None, attempts: int | None) -> None:
    """The hook runs once a sandbox, three times if it fails; a changed command starts anew only after a failure."""
    attempt = next_attempt(reported, "here", ("tell",))
    assert (None if attempt is None else attempt.attempts) == attempts
