"""The account behind an API key: acquiring sandboxes, and giving them back."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from syncd.base.apikey import ApiKey
from syncd.base.clock import Clock
from syncd.base.errors import SandboxRefused
from syncd.effects.api import Api, Server
from syncd.effects.failure import StepFailed
from syncd.effects.http import Exchanger
from syncd.policy.target import Target
from syncd.policy.tenancy import Tenancy
from syncd.policy.verdict import Step, Verdict

# A fresh virtual machine takes its time to boot.
_ACQUIRE_S = 120.0


class Acquired(Struct):
    """`POST /local-sandbox`."""

    local_sandbox_id: str
    servers: list[Server]


class Account(Api):
    """One account at one API."""

    def __init__(self, base_url: str, region: str, key: ApiKey, exchanger: Exchanger, clock: Clock) -> None:
        super().__init__(Target(base_url, "", region), key, exchanger, clock)
        self._all = f"{base_url.rstrip('/')}/local-sandbox"

    def acquire(self, servers: Sequence[str], ttl_seconds: int) -> Tenancy:
        """A new sandbox with these MCP servers for so long. Raises `StepFailed`."""
        asked_wall_s = self._clock.wall_s()
        body = {"server_names": list(servers), "ttl_seconds": ttl_seconds}
        # The step that a sandbox is acquired on the way to, since a status knows no other.
        answer = self._ask(Step.UPLOAD_URL, "POST", self._all, _ACQUIRE_S, body)
        got = self._understood(Step.UPLOAD_URL, answer, Acquired)
        if not got.local_sandbox_id:
            raise self._senseless(Step.UPLOAD_URL, answer)
        urls = {server.server_name or server.id: server.mcp_server_url or "" for server in got.servers}
        return Tenancy(got.local_sandbox_id, asked_wall_s, asked_wall_s + ttl_seconds, urls)

    def _refused(self, step: Step, status: int, said: str) -> StepFailed:
        if status in (401, 403):
            return super()._refused(step, status, said)
        message = f"the API gives no sandbox ({said})"
        hint = "check [sandbox.acquire], and what the account may have"
        return StepFailed(step, Verdict.REFUSED, message, hint, refusal=SandboxRefused)
