"""The sandbox API's endpoints that syncd uses, each answer checked, each failure given its meaning.

Paths and shapes are those of the public OpenAPI description of the local-sandbox API. The key goes into the header of
requests to `sandbox.base_url` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct

from syncd.core.api_key import ApiKey
from syncd.core.clock import Clock
from syncd.core.errors import KeyRefused, SandboxNotFound
from syncd.core.text import one_line, redacted
from syncd.remote.failure import SIGN_IN, StepFailed
from syncd.remote.failure_action import ApiStep, FailureAction, classify_api_status
from syncd.remote.http_client import HttpClient, NoResponse, Response
from syncd.remote.retry import retry_after_s
from syncd.remote.target import Target
from syncd.remote.upload_url import UploadUrl, upload_url_from

_READ_S = 20.0
# Extracting a large archive takes the server minutes.
INITIALIZE_S = 180.0
_LONGEST_DETAIL = 200
# Servers take request lines of 8 to 16 KiB; a signed URL has less than one.
_LONGEST_URL = 16 << 10

# What decoding an answer raises: it is no JSON of that shape, no UTF-8, or nested without end.
_SENSELESS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

Shape = TypeVar("Shape")


class UploadUrlAnswer(Struct):
    """`POST …/upload-url`."""

    upload_url: str
    expires_in_minutes: int


class Initialized(Struct):
    """`POST …/initialize`."""

    sandbox_id: str
    status: Literal["idle", "occupied", "error"]
    message: str


class DumpUrl(Struct):
    """`GET …/dump`."""

    download_url: str
    expires_in_minutes: int


class ExecutionLogs(Struct):
    """`GET …/execution-logs`: what was printed since the cursor, which is in bytes."""

    status: str
    logs: str = ""
    cursor: int = 0


class Executed(Struct):
    """`POST …/execute`."""

    execution_name: str


class ExecutionStatus(Struct):
    """`GET …/execution-status`: pending, running, completed or failed."""

    status: str


class Server(Struct):
    """One MCP server of a sandbox."""

    id: str
    server_name: str | None = None
    mcp_server_url: str | None = None


class SandboxInfo(Struct):
    """`GET …/{id}`."""

    local_sandbox_id: str
    created_at: str
    servers: list[Server]
    status: str | None = None


class Api:
    """One sandbox behind one base URL."""

    def __init__(self, target: Target, key: ApiKey, client: HttpClient, clock: Clock) -> None:
        self._sandbox = f"{target.base_url.rstrip('/')}/local-sandbox/{quote(target.sandbox_id, safe='')}"
        self._sandbox_id = target.sandbox_id
        self._key = key
        self._region = target.region
        self._client = client
        self._clock = clock

    def upload_url(self) -> UploadUrl:
        """A fresh signed URL. Raises `StepFailed`."""
        answer = self._ask(ApiStep.UPLOAD_URL, "POST", f"{self._sandbox}/upload-url?region={self._region}", _READ_S)
        answered_s, wall_s = self._clock.boottime_s(), self._clock.wall_s()
        got = self._understood(ApiStep.UPLOAD_URL, answer, UploadUrlAnswer)
        if len(got.upload_url) > _LONGEST_URL:
            raise self._senseless(ApiStep.UPLOAD_URL, answer)
        return upload_url_from(got.upload_url, got.expires_in_minutes, answer.server_wall_s, answered_s, wall_s)

    def initialize(self) -> Initialized:
        """Extract what was uploaded. Raises `StepFailed`, also where the answer's status is `error`."""
        url = f"{self._sandbox}/initialize?region={self._region}"
        answer = self._ask(ApiStep.INITIALIZE, "POST", url, INITIALIZE_S)
        got = self._understood(ApiStep.INITIALIZE, answer, Initialized)
        if got.status == "error":
            raise StepFailed(
                ApiStep.INITIALIZE,
                FailureAction.RETRY,
                f"the sandbox could not take the archive: {self._clean(got.message)}",
            )
        return got

    def dump(self) -> str:
        """A signed URL of an archive of the sandbox's workspace as it is now. Raises `StepFailed`."""
        # Packing a large workspace takes the server as long as extracting it.
        answer = self._ask(ApiStep.DUMP, "GET", f"{self._sandbox}/dump?region={self._region}", INITIALIZE_S)
        return self._understood(ApiStep.DUMP, answer, DumpUrl).download_url

    def execution_upload_url(self, name: str, region: str = "") -> str:
        """A signed URL for the archive of an execution of that name; of another `region`'s, if one is named.

        Raises `StepFailed`.
        """
        url = f"{self._sandbox}/execution-upload-url?region={region or self._region}"
        answer = self._ask(ApiStep.EXECUTION, "POST", url, _READ_S, {"execution_name": name})
        return self._understood(ApiStep.EXECUTION, answer, UploadUrlAnswer).upload_url

    def execute(self, name: str) -> None:
        """Start what was uploaded for that execution. Raises `StepFailed`."""
        url = f"{self._sandbox}/execute?region={self._region}"
        answer = self._ask(ApiStep.EXECUTION, "POST", url, _READ_S, {"execution_name": name})
        self._understood(ApiStep.EXECUTION, answer, Executed)

    def execution_status(self, name: str) -> str:
        """How the execution is. Raises `StepFailed`, where no such one was ever started one with `SandboxNotFound`."""
        url = f"{self._sandbox}/execution-status?execution_name={quote(name, safe='')}"
        return self._understood(
            ApiStep.EXECUTION, self._ask(ApiStep.EXECUTION, "GET", url, _READ_S), ExecutionStatus
        ).status

    def execution_logs(self, name: str, cursor: int) -> ExecutionLogs:
        """How the execution is, and what it printed from byte `cursor` on. Raises `StepFailed`."""
        url = f"{self._sandbox}/execution-logs?execution_name={quote(name, safe='')}&cursor={cursor}"
        return self._understood(ApiStep.EXECUTION, self._ask(ApiStep.EXECUTION, "GET", url, _READ_S), ExecutionLogs)

    def reset(self) -> None:
        """Set the sandbox back to its initial state, the agent's work in it included. Raises `StepFailed`."""
        answer = self._ask(ApiStep.DELETE, "POST", f"{self._sandbox}/reset", INITIALIZE_S)
        if answer.body:  # nothing says what it holds, but a page is some network's, and nothing was reset
            self._understood(ApiStep.DELETE, answer, object)

    def sandbox(self) -> SandboxInfo:
        """What the API says of the sandbox. Raises `StepFailed`."""
        return self._understood(ApiStep.SANDBOX, self._ask(ApiStep.SANDBOX, "GET", self._sandbox, _READ_S), SandboxInfo)

    def _ask(
        self, step: ApiStep, method: str, url: str, read_s: float, body: Mapping[str, Any] | None = None
    ) -> Response:
        headers = {"Authorization": f"Bearer {self._key.reveal()}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        # A POST without a body still needs a length, or front ends answer 411; for empty content httpx sends one.
        try:
            answer = self._client.exchange(
                method,
                url,
                headers=headers,
                read_s=read_s,
                content=None if method == "GET" else msgspec.json.encode(body) if body is not None else b"",
            )
        except NoResponse as failure:
            what = f"the API did not answer {step}" if failure.reached else "the API cannot be reached"
            raise StepFailed(step, FailureAction.OFFLINE, f"{what} ({failure})") from None
        if answer.status in (200, 201):
            return answer
        raise self._failed(step, answer)

    def _failed(self, step: ApiStep, answer: Response) -> StepFailed:
        said = f"{answer.status}{self._detail(answer)}"
        action = classify_api_status(step, answer.status)
        asked_s = retry_after_s(answer.headers.get("Retry-After"), answer.server_wall_s or self._clock.wall_s())
        if action is FailureAction.REFUSED:
            return self._refused(step, answer.status, said)
        if 300 <= answer.status < 400:
            message = f"the API answers with a redirect ({answer.status}), which is not followed"
            return StepFailed(step, action, message, "sign in to this network, or correct sandbox.base_url")
        return StepFailed(step, action, f"the API answered {step} with {said}", retry_after_s=asked_s)

    def _refused(self, step: ApiStep, status: int, said: str) -> StepFailed:
        if status in (401, 403):
            message = f"the API refused the key from {self._key.source} ({said})"
            return StepFailed(step, FailureAction.REFUSED, message, "put a valid key there", refusal=KeyRefused)
        if status in (404, 410):
            message = f"the API knows no sandbox {one_line(self._sandbox_id)!r} ({said})"
            hint = "it may have expired: set sandbox.id to a living one"
            return StepFailed(step, FailureAction.REFUSED, message, hint, refusal=SandboxNotFound)
        if status in (400, 422):
            message = f"the API refused the request for region {self._region!r} ({said})"
            return StepFailed(step, FailureAction.REFUSED, message, "check sandbox.region and sandbox.id")
        hint = "look at the account that the key belongs to" if status == 402 else "check sandbox.base_url"
        return StepFailed(step, FailureAction.REFUSED, f"the API refused {step} ({said})", hint)

    def _understood(self, step: ApiStep, answer: Response, shape: type[Shape]) -> Shape:
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except _SENSELESS:
            raise self._senseless(step, answer) from None

    def _senseless(self, step: ApiStep, answer: Response) -> StepFailed:
        named = (answer.headers.get(name, "") for name in ("Content-Type", "Content-Encoding"))
        kind = one_line(", ".join(filter(None, named)) or "no type", 60)
        message = f"the API's answer to {step} makes no sense ({kind}, {len(answer.body)} bytes)"
        return StepFailed(step, FailureAction.RETRY, message, SIGN_IN)

    def _detail(self, answer: Response) -> str:
        """What FastAPI's `{"detail": …}` says, on one line."""
        try:
            detail: Any = msgspec.json.decode(answer.body)["detail"]
        except (*_SENSELESS, KeyError, TypeError):
            return ""
        if isinstance(detail, list):
            detail = "; ".join(
                f"{'.'.join(map(str, _listed(item.get('loc'))))}: {item.get('msg', '')}"
                for item in detail
                if isinstance(item, dict)
            )
        return f", {self._clean(str(detail))}" if detail else ""

    def _clean(self, text: str) -> str:
        return one_line(redacted(text, self._key.reveal()), _LONGEST_DETAIL)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
