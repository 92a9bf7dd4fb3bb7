"""The account behind an API key: which sandboxes it has, acquiring one, and giving one back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from syncd.core.api_key import ApiKey
from syncd.core.clock import Clock
from syncd.core.errors import KeyRefused, SandboxNotFound, SandboxRefused
from syncd.core.text import one_line
from syncd.remote.acquired_sandbox import AcquiredSandbox
from syncd.remote.api import Api, SandboxInfo, Server
from syncd.remote.failure import SIGN_IN, StepFailed
from syncd.remote.failure_action import ApiStep, FailureAction, classify_api_status
from syncd.remote.http_client import HttpClient, NoResponse, Response
from syncd.remote.retry import retry_after_s
from syncd.remote.target import Target

# A fresh virtual machine takes its time to boot.
_ACQUIRE_S = 120.0
_READ_S = 20.0

# What a person can do about an acquisition that was refused with this status, and what it means.
_REFUSALS = {
    400: ("the API takes no such request", "check sandbox.acquire.servers and sandbox.acquire.ttl_seconds"),
    401: ("the API refused the key from {key}", "put a valid key there"),
    402: ("the account pays for no further sandbox", "look at its plan, or release one (`syncd sandbox list`)"),
    403: ("the key from {key} may not acquire a sandbox", "look at what it may do, and at the account's plan"),
    404: ("nothing acquires sandboxes at this address", "check sandbox.base_url"),
    422: ("the API takes no such request", "check sandbox.acquire.servers and sandbox.acquire.ttl_seconds"),
}
_OTHERWISE = ("the API gives no sandbox", "check [sandbox.acquire], and what the account may have")
# And where it may be given later.
_LATER = {
    409: ("the account may have no further sandbox now", "release one (`syncd sandbox list`)"),
    429: ("the account has as many sandboxes as it may, or asks too often", "release one (`syncd sandbox list`)"),
}


class NotAcquired(StepFailed):
    """The server, if it was reached, surely gave no sandbox; after other failures one may live that nobody hears of."""


class Acquired(Struct):
    """`POST /local-sandbox`."""

    local_sandbox_id: str
    servers: list[Server]


class Listed(Struct):
    """`GET /local-sandbox`."""

    local_sandboxes: list[SandboxInfo]


class Account(Api):
    """One account at one API."""

    def __init__(self, base_url: str, region: str, key: ApiKey, client: HttpClient, clock: Clock) -> None:
        super().__init__(Target(base_url, "", region), key, client, clock)
        self._all = f"{base_url.rstrip('/')}/local-sandbox"

    def acquire(self, servers: Sequence[str], ttl_seconds: int) -> AcquiredSandbox:
        """A new sandbox with these MCP servers for so long. Raises `StepFailed`, or `NotAcquired`: surely none."""
        asked_wall_s = self._clock.wall_s()
        body = {"server_names": list(servers), "ttl_seconds": ttl_seconds}
        # The step that a sandbox is acquired on the way to, since a status knows no other.
        answer = self._ask(ApiStep.UPLOAD_URL, "POST", self._all, _ACQUIRE_S, body)
        got = self._understood(ApiStep.UPLOAD_URL, answer, Acquired)
        if got.local_sandbox_id in ("", ".", "..") or not got.local_sandbox_id.isprintable():
            raise self._senseless(ApiStep.UPLOAD_URL, answer)
        urls = {server.server_name or server.id: server.mcp_server_url or "" for server in got.servers}
        return AcquiredSandbox(got.local_sandbox_id, asked_wall_s, asked_wall_s + ttl_seconds, urls)

    def sandboxes(self) -> list[SandboxInfo]:
        """All that the account has now. Raises `StepFailed`."""
        answer = self._ask(ApiStep.SANDBOX, "GET", self._all, _READ_S)
        return self._understood(ApiStep.SANDBOX, answer, Listed).local_sandboxes

    def release(self, sandbox_id: str) -> None:
        """Release a sandbox. Raises `StepFailed`, with `SandboxNotFound` if the API does not know it."""
        self._ask(ApiStep.SANDBOX, "DELETE", f"{self._all}/{quote(sandbox_id, safe='')}", _READ_S)

    def _ask(
        self, step: ApiStep, method: str, url: str, read_s: float, body: Mapping[str, Any] | None = None
    ) -> Response:
        headers = {"Authorization": f"Bearer {self._key.reveal()}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        content = None if method == "GET" else b"" if body is None else msgspec.json.encode(body)
        try:
            answer = self._client.exchange(method, url, headers=headers, read_s=read_s, content=content)
        except NoResponse as failure:
            if not failure.reached:
                raise NotAcquired(step, FailureAction.OFFLINE, f"the API cannot be reached ({failure})") from None
            message = f"the API did not answer {_asked_for(step)} ({failure})"
            raise StepFailed(step, FailureAction.OFFLINE, message) from None
        if answer.status // 100 == 2:
            return answer
        raise self._failed(step, answer)

    def _failed(self, step: ApiStep, answer: Response) -> StepFailed:
        status, said = answer.status, f"{answer.status}{self._detail(answer)}"
        action = classify_api_status(step, status)
        if action is FailureAction.REFUSED:
            return self._refused(step, status, said)
        asked_s = retry_after_s(answer.headers.get("Retry-After"), answer.server_wall_s or self._clock.wall_s())
        if 300 <= status < 400:
            message = f"the API answers with a redirect ({status}), which is not followed"
            return NotAcquired(step, action, message, "sign in to this network, or correct sandbox.base_url")
        if step is ApiStep.UPLOAD_URL and status in _LATER:
            what, hint = _LATER[status]
            return NotAcquired(step, action, f"{what} ({said})", hint, retry_after_s=asked_s)
        # A gateway's time-out says nothing of what was done behind it; "unavailable" does.
        kind = NotAcquired if status < 500 or status == 503 else StepFailed
        return kind(step, action, f"the API answered {_asked_for(step)} with {said}", retry_after_s=asked_s)

    def _refused(self, step: ApiStep, status: int, said: str) -> StepFailed:
        if step is not ApiStep.UPLOAD_URL:
            if status in (404, 410):
                return StepFailed(
                    step, FailureAction.REFUSED, f"the API knows no such sandbox ({said})", refusal=SandboxNotFound
                )
            if status not in (401, 403):
                message = f"the API refused {_asked_for(step)} ({said})"
                return StepFailed(step, FailureAction.REFUSED, message, "check sandbox.base_url")
            return super()._refused(step, status, said)
        what, hint = _REFUSALS.get(status, _OTHERWISE)
        refusal = KeyRefused if status in (401, 403) else SandboxRefused
        message = f"{what.format(key=self._key.source)} ({said})"
        return NotAcquired(step, FailureAction.REFUSED, message, hint, refusal=refusal)

    def _senseless(self, step: ApiStep, answer: Response) -> StepFailed:
        kind = one_line(answer.headers.get("Content-Type", "") or "no type", 60)
        message = f"the API's answer to {_asked_for(step)} makes no sense ({kind}, {len(answer.body)} bytes)"
        return StepFailed(step, FailureAction.RETRY, message, SIGN_IN)


def _asked_for(step: ApiStep) -> str:
    return "the request for a sandbox" if step is ApiStep.UPLOAD_URL else "the question about the account's sandboxes"
