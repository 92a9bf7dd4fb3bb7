"""Describes a sandbox to its agent: id, end and MCP servers, in the forms that agents and scripts read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from msgspec import Struct, field

from syncd.core.text import one_line

_URL = re.compile(r"https?://[!-~]+")


class AgentInfo(Struct, frozen=True):
    """One sandbox. `expires_at` is a UTC stamp, empty if not known; `servers` are MCP servers' URLs by name."""

    sandbox_id: str
    expires_at: str = ""
    servers: Mapping[str, str] = field(default_factory=dict)


def callable_servers(servers: Mapping[str, str]) -> dict[str, str]:
    """Return the servers whose URL a client can call; other text from the API is not passed on."""
    return {name: url for name, url in servers.items() if name and _URL.fullmatch(url)}


def mcp_json(servers: Mapping[str, str]) -> str:
    """Return the JSON that MCP clients read (`.mcp.json`): `mcpServers`, each with `type` and `url`."""
    entries = {name: {"type": "http", "url": url} for name, url in callable_servers(servers).items()}
    return json.dumps({"mcpServers": entries}, indent=2) + "\n"


def shell_lines(agent_info: AgentInfo) -> Iterator[str]:
    """Yield `export` lines for a shell's `eval`: id, end, and `SYNCD_MCP_NAME` for each server's URL."""
    import shlex  # noqa: PLC0415 - the daemon, which imports this module too, does not need it

    values = {"SYNCD_SANDBOX_ID": one_line(agent_info.sandbox_id), "SYNCD_SANDBOX_EXPIRES_AT": agent_info.expires_at}
    for name, url in callable_servers(agent_info.servers).items():
        variable = "SYNCD_MCP_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
        values.setdefault(variable, url)  # of two names with one variable the first has it
    for variable, value in values.items():
        yield f"export {variable}={shlex.quote(value)}"
