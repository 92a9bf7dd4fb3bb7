"""Knows the MCP servers of a sandbox, for `sync.on_synced`. Nothing here fails a sync."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping

from syncd.remote.api import Api, urls_by_name
from syncd.remote.failure import StepFailed
from syncd.remote.target import AcquiredSandbox, Target

_log = logging.getLogger("syncd.agent")
_URL = re.compile(r"https?://[!-~]+")


def callable_servers(servers: Mapping[str, str]) -> dict[str, str]:
    """Return the servers whose URL a client can call; other text from the API is not passed on."""
    return {name: url for name, url in servers.items() if name and _URL.fullmatch(url)}


class McpServers:
    """Those of one sandbox of a workspace; `api_of` returns the API for it."""

    def __init__(self, api_of: Callable[[Target], Api]) -> None:
        self._api_of = api_of
        self._known: dict[Target, Mapping[str, str]] = {}

    def of(self, target: Target, acquired_sandbox: AcquiredSandbox | None) -> Mapping[str, str]:
        """Return their URLs by name. One that syncd did not acquire is asked about them, until the API answers."""
        if acquired_sandbox is not None:
            return callable_servers(acquired_sandbox.servers)
        if target not in self._known:
            try:
                self._known = {target: callable_servers(urls_by_name(self._api_of(target).sandbox().servers))}
            except StepFailed as failure:
                _log.warning("the sandbox's MCP servers are not known: %s; the next sync asks again", failure)
        return self._known.get(target, {})
