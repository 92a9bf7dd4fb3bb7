"""Renders sandboxes for people and scripts.

Text from a server is not trusted: none of it reaches a terminal unescaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from syncd.core.clock import stamp
from syncd.core.formatting import ago, duration, seconds_of
from syncd.core.text import one_line
from syncd.remote.api import SandboxInfo
from syncd.remote.target import AcquiredSandbox
from syncd.sandbox.agent_info import AgentInfo, callable_servers, mcp_json, shell_lines

_LABEL = 9


def row_of(info: SandboxInfo, ours: str | None, ends_at: str | None) -> dict[str, Any]:
    """Return a sandbox of the account as `list --json` shows it."""
    in_use = info.local_sandbox_id == ours
    return {
        "id": info.local_sandbox_id,
        "state": info.status,
        "created_at": info.created_at,
        "servers": [server.server_name or server.id for server in info.servers],
        "in_use": in_use,
        "expires_at": ends_at if in_use else None,
    }


def list_lines(rows: list[dict[str, Any]], now_s: float) -> Iterator[str]:
    """Yield the list for people."""
    if not rows:
        yield "the account has no sandbox"
    width = max((len(one_line(row["id"], 80)) for row in rows), default=0)
    for row in rows:
        mark = "*" if row["in_use"] else " "
        created = _created(row["created_at"], now_s)
        ends = _ends(row["expires_at"], now_s)
        about = ", ".join(filter(None, (created, ends, ", ".join(row["servers"]) or "no servers")))
        yield f"{mark} {one_line(row['id'], 80):{width}}  {one_line(row['state'] or 'there', 20):8}  {one_line(about)}"


def shown(info: SandboxInfo, ends_at: str | None, form: str, now_s: float) -> str:
    """Return one sandbox in that form, with a final newline."""
    urls = {server.server_name or server.id: server.mcp_server_url or "" for server in info.servers}
    usable = callable_servers(urls)
    if form == "mcp":
        return mcp_json(usable)
    if form == "env":
        agent_info = AgentInfo(info.local_sandbox_id, ends_at or "", usable)
        return "".join(f"{line}\n" for line in shell_lines(agent_info))
    if form == "json":
        document = {
            "id": info.local_sandbox_id,
            "state": info.status,
            "created_at": info.created_at,
            "expires_at": ends_at,
            "servers": usable,
        }
        return json.dumps(document) + "\n"
    lines = [
        ("id", one_line(info.local_sandbox_id)),
        ("state", one_line(info.status or "there")),
        *([("", created)] if (created := _created(info.created_at, now_s)) else []),
        ("ends", f"{ends_at}, {_ends(ends_at, now_s)}" if ends_at else "the API does not tell"),
        *(("", f"{one_line(name, 60)}: {usable.get(name, 'no URL')}") for name in urls),
    ]
    return "".join(f"{label:{_LABEL}}{text}\n" for label, text in lines)


def acquired_row(acquired_sandbox: AcquiredSandbox, *, new: bool) -> dict[str, Any]:
    """Return the acquired sandbox as `acquire --json` shows it."""
    ends_at = None if acquired_sandbox.ends_wall_s is None else stamp(acquired_sandbox.ends_wall_s)
    servers = callable_servers(acquired_sandbox.servers)
    return {"id": acquired_sandbox.sandbox_id, "expires_at": ends_at, "servers": servers, "new": new}


def acquired_lines(row: dict[str, Any], now_s: float, *, fixed: bool) -> Iterator[str]:
    """Yield the acquired sandbox for people, with the next step."""
    ends = _ends(row["expires_at"], now_s)
    yield f"{'acquired' if row['new'] else 'nothing to do: there is'} {one_line(row['id'])}{ends and f', {ends}'}"
    for name, url in row["servers"].items():
        yield f"  {one_line(name, 60)}: {url}"
    if fixed:
        yield f'to use it here, set sandbox.id = "{one_line(row["id"])}"'
    elif row["new"]:
        yield "the next sync fills it: `syncd push`"


def _created(text: str, now_s: float) -> str:
    """Return how long ago that was, empty for an invalid time; one without a zone is UTC, as elsewhere in the API."""
    at_s = seconds_of(text if text.endswith("Z") or "+" in text else f"{text}Z")
    return "" if at_s is None else f"created {ago(now_s - at_s)}"


def _ends(ends_at: str | None, now_s: float) -> str:
    ends_s = seconds_of(ends_at)
    if ends_s is None:
        return ""
    return f"ends in {duration(ends_s - now_s)}" if ends_s > now_s else f"ended {ago(now_s - ends_s)}"
