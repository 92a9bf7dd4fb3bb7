"""Knows the MCP servers of the sandbox, for `sync.on_synced`.

Nothing here fails a sync, and the loop waits for nothing but one request, for a sandbox that syncd did not acquire.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping

from syncd.core.errors import SyncWarning
from syncd.core.settings import Config
from syncd.remote.api import Api, urls_by_name
from syncd.remote.failure import StepFailed
from syncd.remote.target import AcquiredSandbox, Target

_URL = re.compile(r"https?://[!-~]+")


def callable_servers(servers: Mapping[str, str]) -> dict[str, str]:
    """Return the servers whose URL a client can call; other text from the API is not passed on."""
    return {name: url for name, url in servers.items() if name and _URL.fullmatch(url)}


_log = logging.getLogger("syncd.agent")
# After so many failed requests `sync.on_synced` runs without them.
_MOST_REQUESTS = 3


class McpServers:
    """Those of one sandbox of a workspace; `api_of` returns the API for it."""

    def __init__(self, config: Config, api_of: Callable[[Target], Api]) -> None:
        self._is_wanted = bool(config.sync.on_synced)
        self._api_of = api_of
        self._target: Target | None = None
        self._requests = 0
        self._known: Mapping[str, str] | None = None

    @property
    def by_name(self) -> Mapping[str, str]:
        """Their URLs by name, as far as they are known."""
        return self._known or {}

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warnings about what the agent could not be told."""
        if not self._requests or self._known is not None:
            return []
        what = "the API did not name the sandbox's MCP servers"
        return [SyncWarning("agent:servers", what, "nothing to do; the next sync asks again")]

    def arrived(self, target: Target | None, acquired_sandbox: AcquiredSandbox | None) -> None:
        """Learn the servers of the sandbox that holds the workspace, if they are wanted."""
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
