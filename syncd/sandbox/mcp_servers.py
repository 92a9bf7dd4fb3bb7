"""Knows the MCP servers of the sandbox, and writes them to a file for the agent once the sandbox holds the workspace.

A person's file is never overwritten: a file is replaced only while it is, byte for byte, what syncd wrote there.
Nothing here fails a sync, and the loop waits for nothing but one request, for a sandbox that syncd did not acquire.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from msgspec import field

from syncd.core.durable_file import StateFile, Versioned, read_file, rewrite
from syncd.core.errors import SyncWarning
from syncd.core.settings import MAIN, Config
from syncd.remote.api import Api, urls_by_name
from syncd.remote.failure import StepFailed
from syncd.remote.target import AcquiredSandbox, Target

_URL = re.compile(r"https?://[!-~]+")


def callable_servers(servers: Mapping[str, str]) -> dict[str, str]:
    """Return the servers whose URL a client can call; other text from the API is not passed on."""
    return {name: url for name, url in servers.items() if name and _URL.fullmatch(url)}


def mcp_json(servers: Mapping[str, str]) -> str:
    """Return the JSON that MCP clients read (`.mcp.json`): `mcpServers`, each with `type` and `url`."""
    return _mcp_json(_entries(servers))


def _entries(servers: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"type": "http", "url": url} for name, url in callable_servers(servers).items()}


def _mcp_json(entries: Mapping[str, Any]) -> str:
    return json.dumps({"mcpServers": entries}, indent=2) + "\n"


def _owner(server: str, names: Collection[str]) -> str:
    """Return the name of the sandbox that a server in the file is of: those of a further one begin with its name."""
    found = [name for name in names if name != MAIN and server.startswith(f"{name}-")]
    return max(found, key=len, default=MAIN)


_log = logging.getLogger("syncd.agent")
_LARGEST = 1 << 20
# After so many failed requests `sync.on_synced` runs without them.
_MOST_REQUESTS = 3


class AgentRecord(Versioned, frozen=True, kw_only=True):
    """The sandbox that `sync.on_synced` was told of, and the digests of what the file got, over restarts."""

    told: str = ""
    digests: list[str] = field(default_factory=list)


def agent_state(state_folder: str, name: str = MAIN) -> StateFile[AgentRecord]:
    """Return the file of the record of the sandbox that has this name in the configuration."""
    cost = "the agent is told of its sandbox once more"
    return StateFile(state_folder, "agent" if name == MAIN else f"agent-{name}", AgentRecord, cost)


class McpServers:
    """Those of one sandbox of a workspace.

    `api_of` returns the API for it, `names` those of all sandboxes now; `state` is that of the workspace's file.
    """

    def __init__(
        self,
        config: Config,
        state: StateFile[AgentRecord],
        api_of: Callable[[Target], Api],
        names: Callable[[], Collection[str]],
    ) -> None:
        self._name, self._names_now = config.sandbox_name, names
        self._file = config.sandbox.mcp_file
        self._is_wanted = bool(self._file or config.sync.on_synced)
        self._state = state
        self._api_of = api_of
        self._target: Target | None = None
        self._requests = 0
        self._known: Mapping[str, str] | None = None
        self._file_warning: SyncWarning | None = None

    @property
    def by_name(self) -> Mapping[str, str]:
        """Their URLs by name, as far as they are known."""
        return self._known or {}

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warnings about what the agent could not be told."""
        found = [] if self._file_warning is None else [self._file_warning]
        if self._requests and self._known is None:
            what = "the API did not name the sandbox's MCP servers"
            found.append(SyncWarning("agent:servers", what, "nothing to do; the next sync asks again"))
        return found

    def arrived(self, target: Target | None, acquired_sandbox: AcquiredSandbox | None) -> None:
        """Learn the servers of the sandbox that holds the workspace, if they are wanted, and write the file."""
        if target is None or not self._is_wanted:
            return
        if target != self._target:
            self._target, self._requests, self._known = target, 0, None
        if acquired_sandbox is not None:
            self._known = acquired_sandbox.servers
        elif self._known is None and self._requests < _MOST_REQUESTS:
            self._requests += 1
            try:
                self._known = urls_by_name(self._api_of(target).sandbox().servers)
            except StepFailed as failure:
                _log.info("the sandbox's MCP servers are not known: %s", failure)
        if self._file and self._known is not None:
            self._file_warning = self._write(self._known)

    def _next_content(self, servers: Mapping[str, str], current: bytes | None) -> bytes:
        """Return what the file is to hold: these servers, and those of the other sandboxes as they are there."""
        names = [*self._names_now()]
        prefix = "" if self._name == MAIN else f"{self._name}-"
        entries = _entries({f"{prefix}{name}": url for name, url in servers.items()})
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            found = json.loads(current or b"")["mcpServers"].items()
            entries |= {name: each for name, each in found if _owner(name, names) != self._name}
        in_order = sorted(entries.items(), key=lambda entry: names.index(_owner(entry[0], names)))
        return _mcp_json(dict(in_order)).encode()

    def _write(self, servers: Mapping[str, str]) -> SyncWarning | None:
        record = self._state.load() or AgentRecord()
        try:
            current = _content(self._file)
            content = self._next_content(servers, current if len(self._names_now()) > 1 else None)
            if current == content:
                return None
            if current is not None and _digest(current) not in record.digests:
                what = f"{self._file} is left as it is: syncd did not write what it holds"
                return SyncWarning("agent:file", what, "move it away, or name another file in sandbox.mcp_file")
            # Before the file: after a crash between the two, the next process must know the file as syncd's.
            digests = [*([] if current is None else [_digest(current)]), _digest(content)]
            self._state.save(AgentRecord(told=record.told, digests=digests))
            rewrite(self._file, content)
        except OSError as failure:
            what = f"the MCP servers cannot be written to {self._file} ({failure.strerror or failure})"
            remedy = "name a file in a folder that syncd may write to; for a service, in its state folder"
            return SyncWarning("agent:file", what, remedy)
        _log.info("wrote the MCP servers to %s", self._file)
        return None


def _content(path: str) -> bytes | None:
    try:
        return read_file(path, _LARGEST)
    except FileNotFoundError:
        os.stat(os.path.dirname(path))
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
