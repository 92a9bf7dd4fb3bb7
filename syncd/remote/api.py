"""The API: sends its requests with the key, gives failures their meaning, knows the endpoints of sandbox and account.

The key goes into the header of requests to `sandbox.base_url` and nowhere else. Paths and shapes are those of the
public OpenAPI description of the local-sandbox API.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from syncd.core.api_key import KEY_PAGE, ApiKey
from syncd.core.errors import KeyRefused, NeedsPerson, SandboxNotFound, SandboxRefused
from syncd.core.text import one_line, redacted
from syncd.remote.failure import SIGN_IN, ApiLimit, ApiStep, FailureAction, RequestKind, StepFailed, classify_api_status
from syncd.remote.http_client import HttpClient, NoResponse, Response
from syncd.remote.target import AcquiredSandbox, Target
from syncd.remote.upload_url import UploadUrl, upload_url_from

# Extracting a large archive takes the server minutes.
INITIALIZE_S = 180.0
_READ_S = 20.0
_CORRECT_URL = "correct sandbox.base_url with `syncd config edit`"
# Servers take request lines of 8 to 16 KiB; a signed URL has less than one.
_LONGEST_URL = 16 << 10
_LONGEST_DETAIL = 200
# It is in messages, in the status and in each request's path; the API's own have 36 characters.
_LONGEST_ID = 200

# What decoding an answer raises: it is no JSON of that shape, no UTF-8, or nested without end.
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

Shape = TypeVar("Shape")


class ErrorMeaning(Struct, frozen=True):
    """The meaning of an error status for one endpoint, and what a person can do about it."""

    message: str
    hint: str
    refusal: type[NeedsPerson] = SandboxRefused


class ApiRequest(Struct, frozen=True):
    """One request to `path`, below the API's `/local-sandbox`.

    `read_s` replaces the usual limit of the wait for the answer; `name` is what messages call the request, its step if
    empty; `meanings` explain error statuses, and `other_refusal` every other refused one.
    """

    step: ApiStep
    method: str
    path: str
    read_s: float | None = None
    body: Mapping[str, Any] | None = None
    name: str = ""
    success: Collection[int] = (200, 201)
    meanings: Mapping[int, ErrorMeaning] = field(default_factory=dict)
    other_refusal: ErrorMeaning | None = None
    kind: RequestKind = RequestKind.SINGLE

    def __str__(self) -> str:
        return self.name or self.step


# Shorter waits are rounding errors of floating point.
_ROUNDING_S = 1e-6


class ApiClient:
    """One API, reached with one key; without a `limit` of several, its requests have one of their own."""

    def __init__(self, base_url: str, key: ApiKey, client: HttpClient, limit: ApiLimit | None) -> None:
        self._url = f"{base_url.rstrip('/')}/local-sandbox"
        self._key = key
        self._client = client
        self._clock = client.waiter.clock
        self._limit = limit or ApiLimit()
        self._server_ahead_s: float | None = None  # its clock, less this machine's seconds since boot

    def skew_s(self) -> float | None:
        """Return by how much this machine's clock is ahead of the API's own; None until an answer has told."""
        return None if self._server_ahead_s is None else self._clock.wall_s() - self.server_s()

    def server_s(self) -> float:
        """Return the seconds since 1970 by the API's own clock; by this machine's until an answer has told."""
        return self._clock.wall_s() if self._server_ahead_s is None else self._clock.boottime_s() + self._server_ahead_s

    def send(self, request: ApiRequest) -> Response:
        """Return the answer to a request that succeeded, after the wait that the API's limit takes.

        Raises `StepFailed`, `Stop`, `Superseded`.
        """
        headers = {"Authorization": f"Bearer {self._key.reveal()}", "Accept": "application/json"}
        # A POST without a body still needs a length, or front ends answer 411; for empty content httpx sends one.
        content = None if request.method == "GET" else b""
        if request.body is not None:
            headers["Content-Type"] = "application/json"
            content = msgspec.json.encode(request.body)
        url, read_s = f"{self._url}{request.path}", request.read_s or _READ_S
        sent_s, status = self._wait_for_turn(request), None
        try:
            answer = self._client.exchange(request.method, url, headers=headers, read_s=read_s, content=content)
            status = answer.status
            if answer.server_wall_s is not None:
                self._server_ahead_s = answer.server_wall_s - self._clock.boottime_s()
        except NoResponse as failure:
            what = f"Klavis did not answer {request}" if failure.reached else "Klavis cannot be reached"
            message = f"{what} ({failure})"
            hint = "" if failure.reached else "check the network, and sandbox.base_url with `syncd config edit`"
            raise StepFailed(
                request.step, FailureAction.OFFLINE, message, hint, possibly_applied=failure.reached
            ) from None
        finally:
            self._limit.answered(request.kind, status, sent_s, self._clock.monotonic_s())
        if answer.status in request.success:
            return answer
        raise self._failure(request, answer)

    def ask(self, request: ApiRequest, shape: type[Shape]) -> Shape:
        """Return the decoded answer to a request that succeeded. Raises `StepFailed`."""
        return self.decode(request, self.send(request), shape)

    def decode(self, request: ApiRequest, answer: Response, shape: type[Shape]) -> Shape:
        """Return the answer's body as `shape`. Raises `StepFailed`."""
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except _UNDECODABLE:
            raise self.unusable(request, answer) from None

    def unusable(self, request: ApiRequest, answer: Response) -> StepFailed:
        """Return the failure of a request that succeeded with an answer of no use."""
        named = (answer.header(name) or "" for name in ("Content-Type", "Content-Encoding"))
        kind = one_line(", ".join(filter(None, named)) or "no type", 60)
        message = f"Klavis' answer to {request} is invalid ({kind}, {len(answer.body)} bytes)"
        return StepFailed(request.step, FailureAction.RETRY, message, SIGN_IN)

    def printable(self, text: str) -> str:
        """Return the API's own words on one line, without secrets."""
        return one_line(redacted(text, self._key.reveal()), _LONGEST_DETAIL)

    def _wait_for_turn(self, request: ApiRequest) -> float:
        """Wait until the request may be sent, and return the second at which it is."""
        while (wait_s := self._limit.wait_s(request.kind, self._clock.monotonic_s())) > _ROUNDING_S:
            self._client.waiter.sleep(wait_s)
        sent_s = self._clock.monotonic_s()
        self._limit.count(request.kind, sent_s)
        return sent_s

    def _failure(self, request: ApiRequest, answer: Response) -> StepFailed:
        """Return the failure that an error answer means, its status and detail included."""
        status, action = answer.status, classify_api_status(request.step, answer.status)
        answered = f"{status}{self._detail(answer)}"
        meaning = None if action is FailureAction.UPLOAD_AGAIN else request.meanings.get(status)
        if meaning is None and action is FailureAction.REFUSED:
            meaning = self._refusal(request, status)
        if meaning is not None:
            meaning = replace(meaning, message=f"{meaning.message} ({answered})")
        elif 300 <= status < 400:
            message = f"Klavis answers with a redirect ({status}), which is not followed"
            meaning = ErrorMeaning(message, f"sign in to this network, or {_CORRECT_URL}")
        else:
            meaning = ErrorMeaning(f"Klavis answered {request} with {answered}", "")
        return StepFailed(
            request.step,
            action,
            meaning.message,
            meaning.hint,
            retry_after_s=None if action is FailureAction.REFUSED else answer.retry_after_s,
            refusal=meaning.refusal,
            # A gateway's time-out leaves open what was done behind it; "unavailable" does not.
            possibly_applied=status < 300 or (status >= 500 and status != 503),
        )

    def _refusal(self, request: ApiRequest, status: int) -> ErrorMeaning:
        if status in (401, 403):
            return ErrorMeaning(
                f"Klavis refused the key from {self._key.source}",
                f"put a valid one into {self._key.source}, from {KEY_PAGE}",
                KeyRefused,
            )
        if request.other_refusal is not None:
            return request.other_refusal
        hint = f"look at the account, {KEY_PAGE}" if status == 402 else _CORRECT_URL
        return ErrorMeaning(f"Klavis refused {request}", hint)

    def _detail(self, answer: Response) -> str:
        """The text of FastAPI's `{"detail": …}`, on one line."""
        try:
            detail: Any = msgspec.json.decode(answer.body)["detail"]
        except (*_UNDECODABLE, KeyError, TypeError):
            return ""
        if isinstance(detail, list):
            detail = "; ".join(
                f"{'.'.join(map(str, _as_list(item.get('loc'))))}: {item.get('msg', '')}"
                for item in detail
                if isinstance(item, dict)
            )
        return f", {self.printable(str(detail))}" if detail else ""


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


class UploadUrlAnswer(Struct):
    """`POST …/upload-url`."""

    upload_url: str
    expires_in_minutes: int


class Initialized(Struct):
    """`POST …/initialize`: `error`, or another word where it succeeded, such as `occupied`."""

    sandbox_id: str
    status: str
    message: str


class DownloadUrl(Struct):
    """`GET …/dump` and `POST …/export-artifacts`."""

    download_url: str
    expires_in_minutes: int


class ExecutionLogs(Struct):
    """`GET …/execution-logs`: the status is pending, running, completed or failed.

    The output is that from the cursor on, which is in bytes.
    """

    status: str
    logs: str = ""
    cursor: int = 0


class Executed(Struct):
    """`POST …/execute`."""

    execution_name: str


class Server(Struct):
    """One MCP server of a sandbox."""

    id: str
    server_name: str | None = None
    mcp_server_url: str | None = None

    @property
    def name(self) -> str:
        return self.server_name or self.id


def urls_by_name(servers: Iterable[Server]) -> dict[str, str]:
    """Return the servers' URLs, empty where the API gives none."""
    return {server.name: server.mcp_server_url or "" for server in servers}


class SandboxInfo(Struct):
    """`GET …/{id}`."""

    local_sandbox_id: str
    created_at: str
    servers: list[Server]
    status: str | None = None


class Api(ApiClient):
    """One sandbox behind one base URL; `table` is the one of the configuration that names it.

    `if_unknown` is what to do where the API knows no such sandbox.
    """

    def __init__(
        self,
        target: Target,
        key: ApiKey,
        client: HttpClient,
        table: str = "sandbox",
        limit: ApiLimit | None = None,
        *,
        if_unknown: str = "",
    ) -> None:
        super().__init__(target.base_url, key, client, limit)
        self._region = target.region
        self._path = f"/{quote(target.sandbox_id, safe='')}"
        unknown = ErrorMeaning(
            f"Klavis knows no sandbox {one_line(target.sandbox_id)!r}",
            f"it may have expired; {if_unknown or f'set {table}.id to a living one with `syncd config edit`'}",
            SandboxNotFound,
        )
        invalid = ErrorMeaning(
            f"Klavis refused the request for region '{target.region}'",
            f"correct {table}.region or {table}.id with `syncd config edit`",
        )
        self._meanings = {400: invalid, 404: unknown, 410: unknown, 422: invalid}

    def upload_url(self) -> UploadUrl:
        """Return a fresh signed URL. Raises `StepFailed`."""
        request = self._request(ApiStep.UPLOAD_URL, "POST", f"/upload-url?region={self._region}")
        answer = self.send(request)
        answered_s, wall_s = self._clock.boottime_s(), self._clock.wall_s()
        got = self.decode(request, answer, UploadUrlAnswer)
        if len(got.upload_url) > _LONGEST_URL:
            raise self.unusable(request, answer)
        return upload_url_from(got.upload_url, got.expires_in_minutes, answer.server_wall_s, answered_s, wall_s)

    def initialize(self) -> None:
        """Extract the uploaded archive. Raises `StepFailed`, also where the answer's status is `error`."""
        path = f"/initialize?region={self._region}"
        got = self.ask(self._request(ApiStep.INITIALIZE, "POST", path, read_s=INITIALIZE_S), Initialized)
        if got.status == "error":
            message = f"the sandbox could not take the archive ({self.printable(got.message)})"
            raise StepFailed(ApiStep.INITIALIZE, FailureAction.RETRY, message)

    def dump(self) -> str:
        """Return a signed URL of an archive of the sandbox's workspace as it is now. Raises `StepFailed`."""
        # Packing a large workspace takes the server as long as extracting it.
        request = self._request(ApiStep.DUMP, "GET", f"/dump?region={self._region}", read_s=INITIALIZE_S)
        return self.ask(request, DownloadUrl).download_url

    def execution_upload_url(self, name: str) -> str:
        """Return a signed URL for the archive of an execution. Raises `StepFailed`."""
        path = f"/execution-upload-url?region={self._region}"
        return self.ask(self._of_execution(path, name), UploadUrlAnswer).upload_url

    def execute(self, name: str) -> None:
        """Start the execution whose archive was uploaded. Raises `StepFailed`."""
        self.ask(self._of_execution(f"/execute?region={self._region}", name), Executed)

    def execution_logs(self, name: str, cursor: int) -> ExecutionLogs:
        """Return an execution's status, and its output from byte `cursor` on. Raises `StepFailed`."""
        path = f"/execution-logs?execution_name={quote(name, safe='')}&cursor={cursor}"
        return self.ask(self._request(ApiStep.EXECUTION, "GET", path, kind=RequestKind.POLL), ExecutionLogs)

    def export_artifacts(self, name: str) -> str:
        """Return a signed URL of an archive of the directory of an execution, as it is now. Raises `StepFailed`."""
        request = self._of_execution(f"/export-artifacts?region={self._region}", name)
        return self.ask(replace(request, read_s=INITIALIZE_S), DownloadUrl).download_url

    def sandbox(self) -> SandboxInfo:
        """Return the API's description of the sandbox. Raises `StepFailed`."""
        return self.ask(self._request(ApiStep.SANDBOX, "GET", "", name="the request for the sandbox"), SandboxInfo)

    def _request(self, step: ApiStep, method: str, path: str, **more: Any) -> ApiRequest:
        return ApiRequest(step, method, self._path + path, meanings=self._meanings, **more)

    def _of_execution(self, path: str, name: str) -> ApiRequest:
        return self._request(ApiStep.EXECUTION, "POST", path, body={"execution_name": name})


# A fresh virtual machine takes its time to boot.
_ACQUIRE_S = 120.0
_INVALID = ErrorMeaning("Klavis takes no such request", "correct [sandbox.acquire] with `syncd config edit`")
_RELEASE_ONE = "release one (`syncd sandbox list`)"
# 409 and 429 may be answered otherwise later; what else is refused needs a person.
_NOT_ACQUIRED = {
    400: _INVALID,
    402: ErrorMeaning(
        "the account pays for no further sandbox", "check its plan, or release one (`syncd sandbox list`)"
    ),
    404: ErrorMeaning("nothing acquires sandboxes at this address", _CORRECT_URL),
    409: ErrorMeaning("the account may have no further sandbox now", _RELEASE_ONE),
    422: _INVALID,
    429: ErrorMeaning("the account has as many sandboxes as it may, or asks too often", _RELEASE_ONE),
}
_OTHERWISE_NOT_ACQUIRED = ErrorMeaning(
    "Klavis gives no sandbox", f"correct [sandbox.acquire] with `syncd config edit`, or look at {KEY_PAGE}"
)
_NOT_LISTED = ErrorMeaning("Klavis lists no sandboxes", f"{_CORRECT_URL}, or look at {KEY_PAGE}")
_UNKNOWN = ErrorMeaning(
    "Klavis knows no such sandbox", "`syncd sandbox list` shows those that there are", SandboxNotFound
)


class Acquired(Struct):
    """`POST /local-sandbox`."""

    local_sandbox_id: str
    servers: list[Server]


class Listed(Struct):
    """`GET /local-sandbox`."""

    local_sandboxes: list[SandboxInfo]


class Account(ApiClient):
    """One account at one API."""

    def __init__(self, base_url: str, key: ApiKey, client: HttpClient, limit: ApiLimit | None = None) -> None:
        super().__init__(base_url, key, client, limit)
        self._not_acquired = {
            **_NOT_ACQUIRED,
            403: ErrorMeaning(
                f"the key from {key.source} may not acquire a sandbox",
                f"look at its permissions and the plan, {KEY_PAGE}",
                KeyRefused,
            ),
        }

    def acquire(self, servers: Sequence[str], ttl_seconds: int) -> AcquiredSandbox:
        """Acquire a sandbox with these MCP servers for so long. Raises `StepFailed`."""
        asked_wall_s = self._clock.wall_s()
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
        answer = self.send(request)
        got = self.decode(request, answer, Acquired)
        name = got.local_sandbox_id
        if name in ("", ".", "..") or not name.isprintable() or len(name) > _LONGEST_ID:
            raise self.unusable(request, answer)
        ends_wall_s, urls = asked_wall_s + ttl_seconds, urls_by_name(got.servers)
        return AcquiredSandbox(got.local_sandbox_id, asked_wall_s, ends_wall_s, urls)

    def sandboxes(self) -> list[SandboxInfo]:
        """Return all that the account has now. Raises `StepFailed`."""
        name = "the list of the account's sandboxes"
        request = ApiRequest(ApiStep.SANDBOX, "GET", "", name=name, other_refusal=_NOT_LISTED)
        return self.ask(request, Listed).local_sandboxes

    def release(self, sandbox_id: str) -> None:
        """Give one back. Raises `StepFailed`, with `SandboxNotFound` where the account has none of that id.

        The API documents no shape for the answer, but JSON: a sign-in's page has released nothing.
        """
        request = ApiRequest(
            ApiStep.SANDBOX,
            "DELETE",
            f"/{quote(sandbox_id, safe='')}",
            name="the release",
            success=range(200, 300),  # the API goes on with it by itself
            meanings={404: _UNKNOWN, 410: _UNKNOWN},
        )
        answer = self.send(request)
        if answer.body:
            self.decode(request, answer, msgspec.Raw)
