"""The account behind an API key: lists, acquires and releases its sandboxes."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from msgspec import Struct

from syncd.core.api_key import ApiKey
from syncd.core.clock import Clock, boot_id
from syncd.core.errors import KeyRefused, SandboxNotFound
from syncd.remote.api import ApiClient, ApiRequest, ErrorMeaning, SandboxInfo, Server
from syncd.remote.failure import ApiStep
from syncd.remote.http_client import HttpClient
from syncd.remote.target import AcquiredSandbox

# A fresh virtual machine takes its time to boot.
_ACQUIRE_S = 120.0
_INVALID = ErrorMeaning(
    "the API takes no such request", "check sandbox.acquire.servers and sandbox.acquire.ttl_seconds"
)
_RELEASE_ONE = "release one (`syncd sandbox list`)"
# 409 and 429 may be answered otherwise later; what else is refused needs a person.
_NOT_ACQUIRED = {
    400: _INVALID,
    402: ErrorMeaning(
        "the account pays for no further sandbox", "check its plan, or release one (`syncd sandbox list`)"
    ),
    404: ErrorMeaning("nothing acquires sandboxes at this address", "check sandbox.base_url"),
    409: ErrorMeaning("the account may have no further sandbox now", _RELEASE_ONE),
    422: _INVALID,
    429: ErrorMeaning("the account has as many sandboxes as it may, or asks too often", _RELEASE_ONE),
}
_OTHERWISE_NOT_ACQUIRED = ErrorMeaning(
    "the API gives no sandbox", "check [sandbox.acquire], and what the account may have"
)
_NOT_LISTED = ErrorMeaning("the API lists no sandboxes", "check sandbox.base_url, and what the account may have")
_UNKNOWN = ErrorMeaning(
    "the API knows no such sandbox", "`syncd sandbox list` shows those that there are", SandboxNotFound
)


class Acquired(Struct):
    """`POST /local-sandbox`."""

    local_sandbox_id: str
    servers: list[Server]


class Listed(Struct):
    """`GET /local-sandbox`."""

    local_sandboxes: list[SandboxInfo]


class Counted(Struct):
    """`GET /local-sandbox`, without the list."""

    total_count: int


class Account:
    """One account at one API."""

    def __init__(self, base_url: str, key: ApiKey, client: HttpClient, clock: Clock) -> None:
        self._api_client = ApiClient(base_url, key, client, clock)
        self._clock = clock
        self._not_acquired = {
            **_NOT_ACQUIRED,
            403: ErrorMeaning(
                f"the key from {key.source} may not acquire a sandbox",
                "check its permissions, and the account's plan",
                KeyRefused,
            ),
        }

    def acquire(self, servers: Sequence[str], ttl_seconds: int) -> AcquiredSandbox:
        """Acquire a sandbox with these MCP servers for so long. Raises `StepFailed`."""
        asked_wall_s, in_boot = self._clock.wall_s(), (boot_id(), self._clock.boottime_s())
        request = ApiRequest(
            ApiStep.UPLOAD_URL,  # the step that a sandbox is acquired for, since a status knows no other
            "POST",
            "",
            _ACQUIRE_S,
            {"server_names": list(servers), "ttl_seconds": ttl_seconds},
            name="the request for a sandbox",
            meanings=self._not_acquired,
            other_refusal=_OTHERWISE_NOT_ACQUIRED,
        )
        answer = self._api_client.send(request)
        got = self._api_client.decode(request, answer, Acquired)
        if got.local_sandbox_id in ("", ".", "..") or not got.local_sandbox_id.isprintable():
            raise self._api_client.unusable(request, answer)
        urls = {server.server_name or server.id: server.mcp_server_url or "" for server in got.servers}
        return AcquiredSandbox(got.local_sandbox_id, asked_wall_s, asked_wall_s + ttl_seconds, urls, in_boot)

    def sandboxes(self) -> list[SandboxInfo]:
        """Return all that the account has now. Raises `StepFailed`."""
        return self._api_client.ask(self._list_request(), Listed).local_sandboxes

    def count(self) -> int:
        """Return how many sandboxes the account has. Raises `StepFailed`."""
        return self._api_client.ask(self._list_request(), Counted).total_count

    def release(self, sandbox_id: str) -> None:
        """Give one back. Raises `StepFailed`, with `SandboxNotFound` where the account has none of that id."""
        request = ApiRequest(
            ApiStep.SANDBOX,
            "DELETE",
            f"/{quote(sandbox_id, safe='')}",
            name="the release",
            success=range(200, 300),  # the API goes on with it by itself
            meanings={404: _UNKNOWN, 410: _UNKNOWN},
        )
        self._api_client.send(request)

    def _list_request(self) -> ApiRequest:
        return ApiRequest(
            ApiStep.SANDBOX, "GET", "", name="the list of the account's sandboxes", other_refusal=_NOT_LISTED
        )
