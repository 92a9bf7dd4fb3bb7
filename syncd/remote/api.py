"""The endpoints of one sandbox that syncd uses.

Paths and shapes are those of the public OpenAPI description of the local-sandbox API.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.api_key import ApiKey
from syncd.core.clock import Clock
from syncd.core.errors import SandboxNotFound
from syncd.core.text import one_line
from syncd.remote.api_client import ApiClient, ApiRequest, ErrorMeaning
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.remote.http_client import HttpClient
from syncd.remote.pacing import RequestKind
from syncd.remote.target import Target
from syncd.remote.upload_url import UploadUrl, upload_url_from

# Extracting a large archive takes the server minutes.
INITIALIZE_S = 180.0
# Servers take request lines of 8 to 16 KiB; a signed URL has less than one.
_LONGEST_URL = 16 << 10


class UploadUrlAnswer(Struct):
    """`POST …/upload-url`."""

    upload_url: str
    expires_in_minutes: int


class Initialized(Struct):
    """`POST …/initialize`."""

    sandbox_id: str
    status: Literal["idle", "occupied", "error"]
    message: str


class DownloadUrl(Struct):
    """`GET …/dump` and `POST …/export-artifacts`."""

    download_url: str
    expires_in_minutes: int


class ExecutionLogs(Struct):
    """`GET …/execution-logs`: the output from the cursor on, which is in bytes."""

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
        self._api_client = ApiClient(target.base_url, key, client, clock)
        self._region = target.region
        self._clock = clock
        self._path = f"/{quote(target.sandbox_id, safe='')}"
        unknown = ErrorMeaning(
            f"the API knows no sandbox {one_line(target.sandbox_id)!r}",
            "it may have expired; set sandbox.id to a living one",
            SandboxNotFound,
        )
        invalid = ErrorMeaning(
            f"the API refused the request for region '{target.region}'", "check sandbox.region and sandbox.id"
        )
        self._meanings = {400: invalid, 404: unknown, 410: unknown, 422: invalid}

    def upload_url(self) -> UploadUrl:
        """Return a fresh signed URL. Raises `StepFailed`."""
        request = self._request(ApiStep.UPLOAD_URL, "POST", f"/upload-url?region={self._region}")
        answer = self._api_client.send(request)
        answered_s, wall_s = self._clock.boottime_s(), self._clock.wall_s()
        got = self._api_client.decode(request, answer, UploadUrlAnswer)
        if len(got.upload_url) > _LONGEST_URL:
            raise self._api_client.unusable(request, answer)
        return upload_url_from(got.upload_url, got.expires_in_minutes, answer.server_wall_s, answered_s, wall_s)

    def initialize(self) -> Initialized:
        """Extract the uploaded archive. Raises `StepFailed`, also where the answer's status is `error`."""
        request = self._request(ApiStep.INITIALIZE, "POST", f"/initialize?region={self._region}", INITIALIZE_S)
        got = self._api_client.ask(request, Initialized)
        if got.status == "error":
            message = f"the sandbox could not take the archive ({self._api_client.printable(got.message)})"
            raise StepFailed(ApiStep.INITIALIZE, FailureAction.RETRY, message)
        return got

    def dump(self) -> str:
        """Return a signed URL of an archive of the sandbox's workspace as it is now. Raises `StepFailed`."""
        # Packing a large workspace takes the server as long as extracting it.
        request = self._request(ApiStep.DUMP, "GET", f"/dump?region={self._region}", INITIALIZE_S)
        return self._api_client.ask(request, DownloadUrl).download_url

    def execution_upload_url(self, name: str, region: str = "") -> str:
        """Return a signed URL for the archive of an execution, in `region` if one is named. Raises `StepFailed`."""
        path = f"/execution-upload-url?region={region or self._region}"
        return self._api_client.ask(self._execution_request("POST", path, name), UploadUrlAnswer).upload_url

    def execute(self, name: str) -> None:
        """Start the execution whose archive was uploaded. Raises `StepFailed`."""
        request = self._execution_request("POST", f"/execute?region={self._region}", name)
        self._api_client.ask(request, Executed)

    def execution_status(self, name: str) -> str:
        """Return an execution's status. Raises `StepFailed`; `SandboxNotFound`: none of that name was started."""
        path = f"/execution-status?execution_name={quote(name, safe='')}"
        return self._api_client.ask(self._poll_request(path), ExecutionStatus).status

    def execution_logs(self, name: str, cursor: int) -> ExecutionLogs:
        """Return an execution's status, and its output from byte `cursor` on. Raises `StepFailed`."""
        path = f"/execution-logs?execution_name={quote(name, safe='')}&cursor={cursor}"
        return self._api_client.ask(self._poll_request(path), ExecutionLogs)

    def export_artifacts(self, name: str) -> str:
        """Return a signed URL of an archive of the directory of an execution, as it is now. Raises `StepFailed`."""
        path = f"/export-artifacts?region={self._region}"
        request = replace(self._execution_request("POST", path, name), read_s=INITIALIZE_S)
        return self._api_client.ask(request, DownloadUrl).download_url

    def reset(self) -> None:
        """Set the sandbox back to its initial state, the agent's work in it included. Raises `StepFailed`."""
        request = self._request(ApiStep.DELETE, "POST", "/reset", INITIALIZE_S)
        answer = self._api_client.send(request)
        if answer.body:  # its content is not documented, but a page is some network's, and nothing was reset
            self._api_client.decode(request, answer, object)

    def sandbox(self) -> SandboxInfo:
        """Return the API's description of the sandbox. Raises `StepFailed`."""
        return self._api_client.ask(
            replace(self._request(ApiStep.SANDBOX, "GET", ""), name="the request for the sandbox"), SandboxInfo
        )

    def _request(self, step: ApiStep, method: str, path: str, read_s: float | None = None) -> ApiRequest:
        return ApiRequest(step, method, self._path + path, read_s, meanings=self._meanings)

    def _execution_request(self, method: str, path: str, name: str = "") -> ApiRequest:
        body = {"execution_name": name} if name else None
        return replace(self._request(ApiStep.EXECUTION, method, path), body=body)

    def _poll_request(self, path: str) -> ApiRequest:
        return replace(self._execution_request("GET", path), kind=RequestKind.POLL)
