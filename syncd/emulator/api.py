"""The sandbox API's `/local-sandbox` paths, as in its public description, with FastAPI's error messages."""

from __future__ import annotations

import hmac
import json
import re
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from math import inf
from typing import BinaryIO

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.clock import Clock, stamp
from syncd.emulator.bucket import EmulatedBucket, Key
from syncd.emulator.execution import Execution
from syncd.emulator.extract import ArchiveRefused, Bounds, ExtractedMtimes
from syncd.emulator.faults import Action, Changes
from syncd.emulator.sandbox import KEPT_RUNS, Busy, ExecutionStart, ExistingFiles, Sandbox, Sandboxes
from syncd.emulator.validation import Invalid, Parameters, parsed_body
from syncd.emulator.wire import Readable, Reply, Request

BODY_BYTES = 1024**2
WORKSPACE = "workspace.tar.gz"
ARTIFACTS = "artifacts/"
# The window of the rate limit, which clients are told to wait for.
RATE_WINDOW_S = 1
Servers = list[dict[str, object]]
_ID = r"/local-sandbox/(?P<id>[^/]+)"


class ApiError(Exception):
    """An answer `{"detail": …}` with that status, and a `Retry-After` if that is above 0."""

    def __init__(self, status: int, detail: str, retry_after_s: int = 0) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s


class ApiCall(Struct, frozen=True):
    """A request for one operation. `sandbox_id` is empty where the path has none."""

    sandbox_id: str
    parameters: Parameters
    changes: Changes


class ApiRoute(Struct, frozen=True):
    """One method on one path. With `takes_body`, a JSON body is required."""

    method: str
    path: re.Pattern[str]
    op: str
    handler: Callable[[EmulatedApi, ApiCall], tuple[int, object]]
    takes_body: bool = False


class EmulatedApi:
    """Answers the requests of the API's origin.

    `url_lifetime_s` may be changed at any time, for the next URL, and `rate_limit` for the next request: the requests
    with the right key that are answered in any second, 0: no limit.
    """

    def __init__(
        self, sandboxes: Sandboxes, bucket: EmulatedBucket, clock: Clock, key: str, url_lifetime_s: int
    ) -> None:
        self._sandboxes = sandboxes
        self._bucket = bucket
        self._clock = clock
        self._key = key
        self.url_lifetime_s = url_lifetime_s
        self.rate_limit = 0
        self.bounds = Bounds()
        self.base_url = ""
        self._answered_s: deque[float] = deque()
        self._rate_lock = threading.Lock()
        self._export_lock = threading.Lock()

    # The origin's side

    def identify(self, request: Request) -> tuple[str, str | None]:
        """The operation of the method and path (`other` if the API has none) and the sandbox."""
        for route in ROUTES:
            if route.method == request.method and (match := route.path.fullmatch(request.decoded_path)):
                return route.op, match.groupdict().get("id")
        return "other", None

    def answer(self, op: str, request: Request, body: Readable, changes: Changes) -> Reply:
        """Check and handle a request in the service's order: length, path, key, rate, parameters, sandbox."""
        retry_after_s = 0
        try:
            status, answer = self._handle(op, request, body, changes)
        except Invalid as error:
            status, answer = 422, {"detail": error.errors}
        except ApiError as error:
            status, answer, retry_after_s = error.status, {"detail": error.detail}, error.retry_after_s
        reply = _json(status, answer)
        if retry_after_s:
            reply = replace(reply, headers=(*reply.headers, ("Retry-After", str(retry_after_s))))
        if status == 405:
            reply = Reply(405, (*reply.headers, ("Allow", ", ".join(_methods(request)))), reply.body)
        return reply

    def error_reply(self, status: int, code: str) -> Reply:
        """An answer `{"detail": …}` with `code`, or with the status's phrase."""
        try:
            detail = code or HTTPStatus(status).phrase
        except ValueError:
            detail = f"Status {status}"
        return _json(status, {"detail": detail})

    def delete_sandbox(self, sandbox: str) -> None:
        """Release the sandbox, and delete its files and objects."""
        self._sandboxes.release(sandbox)
        self._bucket.delete_sandbox(sandbox)

    def _handle(self, op: str, request: Request, body: Readable, changes: Changes) -> tuple[int, object]:
        if request.chunked or (request.method == "POST" and not request.announces_length):
            raise ApiError(411, "Length Required")
        route = next((route for route in ROUTES if route.op == op), None)
        if route is None:
            raise ApiError(405, "Method Not Allowed") if _methods(request) else ApiError(404, "Not Found")
        self._check_key(request)
        self._check_rate()
        data = _read_all(body)
        match = route.path.fullmatch(request.decoded_path)
        sandbox_id = match.groupdict().get("id", "") if match else ""
        parameters = Parameters(dict(request.query), parsed_body(data) if route.takes_body else None)
        return route.handler(self, ApiCall(sandbox_id, parameters, changes))

    def _check_key(self, request: Request) -> None:
        scheme, _, given = (request.header("Authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise ApiError(403, "Not authenticated")
        if not hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._key.encode()):
            raise ApiError(401, "Invalid API key")

    def _check_rate(self) -> None:
        if not self.rate_limit:
            return
        now_s = self._clock.monotonic_s()
        with self._rate_lock:
            while self._answered_s and self._answered_s[0] <= now_s - RATE_WINDOW_S:
                self._answered_s.popleft()
            if len(self._answered_s) >= self.rate_limit:
                detail = f"Rate limit exceeded: {self.rate_limit} per {RATE_WINDOW_S} second"
                raise ApiError(429, detail, RATE_WINDOW_S)
            self._answered_s.append(now_s)

    # Operations

    def list(self, call: ApiCall) -> tuple[int, object]:
        call.parameters.finish()
        sandboxes = [self._info(sandbox) for sandbox in self._sandboxes.all()]
        return 200, {"local_sandboxes": sandboxes, "total_count": len(sandboxes)}

    def acquire(self, call: ApiCall) -> tuple[int, object]:
        names, ttl_s, benchmark = call.parameters.server_names(), call.parameters.ttl_s(), call.parameters.benchmark()
        call.parameters.finish()
        sandbox = self._sandboxes.create(servers=names, ttl_s=ttl_s, benchmark=benchmark)
        info = self._info(sandbox)
        del info["created_at"]
        return 201, info | {"message": "Local sandbox acquired"}

    def get(self, call: ApiCall) -> tuple[int, object]:
        call.parameters.finish()
        return 200, self._info(self._sandbox(call.sandbox_id))

    def release(self, call: ApiCall) -> tuple[int, object]:
        call.parameters.is_ttl()
        call.parameters.finish()
        self.delete_sandbox(self._sandbox(call.sandbox_id).id)
        return 200, {"message": f"Local sandbox {call.sandbox_id} is being released"}

    def reset(self, call: ApiCall) -> tuple[int, object]:
        call.parameters.finish()
        sandbox = self._sandbox(call.sandbox_id)
        sandbox.reset()
        return 200, {"local_sandbox_id": sandbox.id, "status": sandbox.status, "message": "Local sandbox reset"}

    def upload_url(self, call: ApiCall) -> tuple[int, object]:
        region = call.parameters.region()
        call.parameters.finish()
        return 200, self._signed_url("upload_url", "PUT", Key(region, self._sandbox(call.sandbox_id).id, WORKSPACE))

    def initialize(self, call: ApiCall) -> tuple[int, object]:
        region = call.parameters.region()
        call.parameters.finish()
        sandbox = self._sandbox(call.sandbox_id)
        with self._open_upload(Key(region, sandbox.id, WORKSPACE)) as packed:
            try:
                _initialize_of(sandbox, call.changes)(packed, self.bounds)
            except ArchiveRefused as error:
                raise ApiError(500, f"Failed to initialize the sandbox: {error}") from error
            except OSError as error:
                raise ApiError(500, f"Failed to initialize the sandbox: {error.strerror}") from error
        message = "Extracted archive from GCS to workspace"
        return 200, {"sandbox_id": sandbox.id, "status": sandbox.status, "message": message}

    def dump(self, call: ApiCall) -> tuple[int, object]:
        region = call.parameters.region()
        call.parameters.finish()
        sandbox = self._sandbox(call.sandbox_id)
        return 200, self._download_url(Key(region, sandbox.id, "dump.tar.gz"), sandbox.dump)

    def execution_upload_url(self, call: ApiCall) -> tuple[int, object]:
        region, name = call.parameters.region(), call.parameters.execution_name("body")
        call.parameters.finish()
        return 200, self._signed_url("upload_url", "PUT", _execution_key(region, self._sandbox(call.sandbox_id), name))

    def execute(self, call: ApiCall) -> tuple[int, object]:
        region, name = call.parameters.region(), call.parameters.execution_name("body")
        call.parameters.finish()
        sandbox = self._sandbox(call.sandbox_id)
        with self._open_upload(_execution_key(region, sandbox, name)) as packed:
            try:
                _execute_of(sandbox, call.changes)(name, packed, self.bounds)
            except Busy as error:
                raise ApiError(409, f"Execution {name} is still running") from error
            except (ArchiveRefused, OSError) as error:
                raise ApiError(500, f"Failed to unpack execution {name}: {error}") from error
        return 200, {"message": "Execution started", "execution_name": name}

    def execution_status(self, call: ApiCall) -> tuple[int, object]:
        name = call.parameters.execution_name("query")
        call.parameters.finish()
        return 200, {"status": self._execution(call.sandbox_id, name).status.value}

    def execution_logs(self, call: ApiCall) -> tuple[int, object]:
        name, cursor = call.parameters.execution_name("query"), call.parameters.cursor()
        call.parameters.finish()
        execution = self._execution(call.sandbox_id, name)
        # The status is read first, so that the next poll finds text that is written after it.
        status = execution.status.value
        logs, after = execution.logs(cursor)
        return 200, {"status": status, "logs": logs, "cursor": after}

    def export_artifacts(self, call: ApiCall) -> tuple[int, object]:
        region, name = call.parameters.region(), call.parameters.execution_name("body")
        call.parameters.finish()
        sandbox, execution = self._sandbox(call.sandbox_id), self._execution(call.sandbox_id, name)
        if not execution.ended:
            raise ApiError(409, f"Execution {name} has not ended yet")
        key = Key(region, sandbox.id, f"{ARTIFACTS}{name}.tar.gz")
        # An export at the same time may otherwise delete the folder that this one writes into.
        with self._export_lock:
            try:
                answer = self._download_url(key, lambda file: sandbox.export(execution, file))
            except LookupError as error:
                raise ApiError(404, f"Execution {name} has no artifacts any more") from error
            self._bucket.keep_newest(region, sandbox.id, ARTIFACTS, KEPT_RUNS)
        return 200, answer

    def _sandbox(self, sandbox_id: str) -> Sandbox:
        sandbox = self._sandboxes.find(sandbox_id)
        if sandbox is None:
            raise ApiError(404, "Local sandbox not found")
        return sandbox

    def _execution(self, sandbox_id: str, name: str) -> Execution:
        execution = self._sandbox(sandbox_id).execution(name)
        if execution is None:
            raise ApiError(404, f"Execution {name} not found")
        return execution

    def _open_upload(self, key: Key) -> BinaryIO:
        opened = self._bucket.open(key)
        if opened is None:
            raise ApiError(400, f"No archive was uploaded in region '{key.region}'")
        return opened[1]

    def _signed_url(self, field: str, method: str, key: Key) -> dict[str, object]:
        lifetime_s = self.url_lifetime_s
        return {field: self._bucket.url(method, key, lifetime_s), "expires_in_minutes": max(1, lifetime_s // 60)}

    def _download_url(self, key: Key, write: Callable[[BinaryIO], None]) -> dict[str, object]:
        with tempfile.TemporaryFile() as file:
            try:
                write(file)
            except OSError as error:
                raise ApiError(500, f"Failed to pack {key.name}: {error}") from error
            size_bytes = file.tell()
            file.seek(0)
            self._bucket.store(key, _FileContent(file, size_bytes))
        return self._signed_url("download_url", "GET", key)

    def _info(self, sandbox: Sandbox) -> dict[str, object]:
        record = sandbox.record
        servers: Servers = [
            {
                "server_name": name,
                "id": f"{sandbox.id}-{name}",
                "mcp_server_url": f"{self.base_url}/mcp/{sandbox.id}/{name}",
                "status": record.status,
                "benchmark": record.benchmark,
                "updated_at": stamp(record.created_at_s),
                "metadata": {},
                "auth_data": None,
                "tags": None,
            }
            for name in record.servers
        ]
        return {
            "local_sandbox_id": sandbox.id,
            "created_at": stamp(record.created_at_s),
            "status": record.status,
            "benchmark": record.benchmark,
            "servers": servers,
        }


class _FileContent(Struct, frozen=True):
    """A local file, as content to be stored in the bucket."""

    file: BinaryIO
    length: int

    def read(self, limit: int = 256 * 1024) -> bytes:
        return self.file.read(limit)


ROUTES = (
    ApiRoute("GET", re.compile("/local-sandbox"), "list", EmulatedApi.list),
    ApiRoute("POST", re.compile("/local-sandbox"), "acquire", EmulatedApi.acquire, takes_body=True),
    ApiRoute("GET", re.compile(_ID), "get", EmulatedApi.get),
    ApiRoute("DELETE", re.compile(_ID), "release", EmulatedApi.release),
    ApiRoute("POST", re.compile(f"{_ID}/reset"), "reset", EmulatedApi.reset),
    ApiRoute("POST", re.compile(f"{_ID}/upload-url"), "upload-url", EmulatedApi.upload_url),
    ApiRoute("POST", re.compile(f"{_ID}/initialize"), "initialize", EmulatedApi.initialize),
    ApiRoute("GET", re.compile(f"{_ID}/dump"), "dump", EmulatedApi.dump),
    ApiRoute(
        "POST",
        re.compile(f"{_ID}/execution-upload-url"),
        "execution-upload-url",
        EmulatedApi.execution_upload_url,
        takes_body=True,
    ),
    ApiRoute("POST", re.compile(f"{_ID}/execute"), "execute", EmulatedApi.execute, takes_body=True),
    ApiRoute("GET", re.compile(f"{_ID}/execution-status"), "execution-status", EmulatedApi.execution_status),
    ApiRoute("GET", re.compile(f"{_ID}/execution-logs"), "execution-logs", EmulatedApi.execution_logs),
    ApiRoute(
        "POST", re.compile(f"{_ID}/export-artifacts"), "export-artifacts", EmulatedApi.export_artifacts, takes_body=True
    ),
)


def _methods(request: Request) -> list[str]:
    return [route.method for route in ROUTES if route.path.fullmatch(request.decoded_path)]


def _read_all(body: Readable) -> bytes:
    if body.length > BODY_BYTES:
        raise ApiError(413, "Request body too large")
    data = b""
    while chunk := body.read():
        data += chunk
    return data


def _execution_key(region: str, sandbox: Sandbox, name: str) -> Key:
    return Key(region, sandbox.id, f"executions/{name}.tar.gz")


def _initialize_of(sandbox: Sandbox, changes: Changes) -> Callable[[BinaryIO, Bounds], int]:
    """The sandbox's `initialize`, as the faults change it."""
    if not changes:
        return sandbox.initialize
    mtimes = ExtractedMtimes.OF_EXTRACTION if Action.NEW_MTIMES in changes else ExtractedMtimes.OF_ARCHIVE
    existing = ExistingFiles.IS_REMOVED if Action.REPLACE in changes else ExistingFiles.STAYS
    return partial(sandbox.initialize, mtimes=mtimes, existing=existing)


def _execute_of(sandbox: Sandbox, changes: Changes) -> Callable[[str, BinaryIO, Bounds], None]:
    """The sandbox's `execute`, as the faults change it."""
    if not changes:
        return sandbox.execute
    start = ExecutionStart.FAILS if Action.FAILED in changes else ExecutionStart.RUNS
    late = changes.get(Action.LATE)
    delay_s = inf if Action.PENDING in changes else 0.0 if late is None else late.amount
    return partial(sandbox.execute, start=start, delay_s=delay_s)


def _json(status: int, answer: object) -> Reply:
    body = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    return Reply(status, (("Content-Type", "application/json"), ("Server", "uvicorn")), body)
