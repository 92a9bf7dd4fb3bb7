"""The sandbox API's `/local-sandbox` paths, as in its public description.

Requests are validated as FastAPI does, with its 422: clients read `detail`, whose form is the service's.
"""

from __future__ import annotations

import hmac
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
from msgspec import Meta, Struct, structs

from syncd.core.clock import stamp
from syncd.emulator.bucket import REGIONS, EmulatedBucket, Key
from syncd.emulator.extract import ArchiveRefused
from syncd.emulator.sandbox import KEPT_RUNS, NAME, Busy, EmulatedSandbox, Execution, Sandboxes
from syncd.emulator.server import Reply, Request

BODY_BYTES = 1024**2
WORKSPACE = "workspace.tar.gz"
# Of msgspec's errors: where a value is wrong, and the name of one that is missing.
_WHERE, _MISSING = re.compile(r"[.\[](\w+)"), re.compile(r"required field `(\w+)`")
_PATH = re.compile("/local-sandbox(?:/([^/]+)(/[^/]+)?)?")
SERVERS = (
    "filesystem",
    "git",
    "terminal",
    "desktop-commander",
    "arxiv",
    "excel",
    "word",
    "powerpoint",
    "code-executor",
    "code-runner",
    "pdf-tools",
    "google_cloud",
    "poste_email_toolathlon",
    "canvas",
    "localmemory",
    "playwright",
)
BENCHMARKS = ("MCP_Atlas", "Toolathlon", "MCP_Mark")
DEFAULT_TTL_S = 7200


class ApiError(Exception):
    """An answer `{"detail": …}` with that status."""

    def __init__(self, status: int, detail: object) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class InRegion(Struct):
    """The query of most operations."""

    region: Literal[REGIONS] = "us"  # type: ignore[valid-type]


class OfExecution(Struct):
    """The query, or the body, of what is done with an execution. Its name is a plain one, as it names a folder."""

    execution_name: Annotated[str, Meta(pattern=rf"^{NAME.pattern}\Z")]


class FromCursor(OfExecution):
    """The query for an execution's output."""

    cursor: Annotated[int, Meta(ge=0)] = 0


class AtRelease(Struct):
    """The query of a release: without effect, but the service's own clean-up sends it."""

    is_ttl: bool = False


class WithServers(Struct):
    """The body of the request for a new sandbox."""

    server_names: list[Literal[SERVERS]] | Literal["ALL"]  # type: ignore[valid-type]
    ttl_seconds: Annotated[int, Meta(ge=60, le=86_400)] | None = DEFAULT_TTL_S
    benchmark: Literal[BENCHMARKS] | None = None  # type: ignore[valid-type]


def _values(place: str, given: Mapping[str, str] | bytes, shape: type[Struct]) -> dict[str, Any]:
    """Return the values of a query or body. Raises ApiError, whose 422 names the first that is wrong."""
    try:  # all of a query is text
        if isinstance(given, bytes):
            return structs.asdict(msgspec.json.decode(given, type=shape))
        return structs.asdict(msgspec.convert(given, shape, strict=False))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as failure:
        message, _, where = str(failure).partition(" - at ")
        names = _WHERE.findall(where) or _MISSING.findall(message)
        location = (place, *(int(name) if name.isdigit() else name for name in names))
        raise ApiError(422, [{"type": "value_error", "loc": location, "msg": message}]) from None


class EmulatedApi:
    """Answers the requests of the API. `url_lifetime_s` may be changed at any time, for the next URL."""

    def __init__(self, sandboxes: Sandboxes, bucket: EmulatedBucket, url_lifetime_s: int) -> None:
        self._sandboxes = sandboxes
        self._bucket = bucket
        self.url_lifetime_s = url_lifetime_s
        # Both are known once its port is open.
        self.key = ""
        self.base_url = ""
        self._export_lock = threading.Lock()

    # The service

    def identify(self, request: Request) -> tuple[str, str | None]:
        """The operation of the method and path (`other` if the API has none) and the sandbox."""
        template, sandbox_id = _template(request)
        operation, *_ = ROUTES.get((request.method, template), (None,))
        return operation.__name__.replace("_", "-") if operation else "other", sandbox_id or None

    def answer(self, _op: str, request: Request) -> Reply:
        """Check and handle a request in the service's order: length, path, key, parameters, sandbox."""
        try:
            return json_reply(*self._handle(request))
        except ApiError as error:
            allowed = (("Allow", ", ".join(_methods(request))),) if error.status == 405 else ()
            return json_reply(error.status, {"detail": error.detail}, allowed)

    def delete_sandbox(self, sandbox: str) -> None:
        self._sandboxes.release(sandbox)
        self._bucket.delete_sandbox(sandbox)

    def _handle(self, request: Request) -> tuple[int, object]:
        if request.chunked or (request.method == "POST" and not request.announces_length):
            raise ApiError(411, "Length Required")
        template, sandbox_id = _template(request)
        operation, query, body = ROUTES.get((request.method, template), (None, None, None))
        if operation is None:
            raise ApiError(405, "Method Not Allowed") if _methods(request) else ApiError(404, "Not Found")
        self._check_key(request)
        if request.body.length > BODY_BYTES:
            raise ApiError(413, "Request body too large")
        sent = b"".join(iter(request.body.read, b""))
        values = {} if query is None else _values("query", dict(request.query), query)
        values |= {} if body is None else _values("body", sent, body)
        return operation(self, *([self._sandbox(sandbox_id)] if sandbox_id else []), **values)

    def _check_key(self, request: Request) -> None:
        scheme, _, given = (request.header("Authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise ApiError(403, "Not authenticated")
        if not hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.key.encode()):
            raise ApiError(401, "Invalid API key")

    # Operations

    def list(self) -> tuple[int, object]:
        sandboxes = [self._info(sandbox) for sandbox in self._sandboxes.all()]
        return 200, {"local_sandboxes": sandboxes, "total_count": len(sandboxes)}

    def acquire(
        self, server_names: Sequence[str], ttl_seconds: int | None, benchmark: str | None
    ) -> tuple[int, object]:
        names = SERVERS if server_names == "ALL" else server_names
        info = self._info(self._sandboxes.create(servers=names, ttl_s=ttl_seconds, benchmark=benchmark))
        del info["created_at"]
        return 201, info | {"message": "Local sandbox acquired"}

    def get(self, sandbox: EmulatedSandbox) -> tuple[int, object]:
        return 200, self._info(sandbox)

    def release(self, sandbox: EmulatedSandbox, **_: object) -> tuple[int, object]:
        self.delete_sandbox(sandbox.id)
        return 200, {"message": f"Local sandbox {sandbox.id} is being released"}

    def reset(self, sandbox: EmulatedSandbox) -> tuple[int, object]:
        sandbox.reset()
        return 200, {"local_sandbox_id": sandbox.id, "status": sandbox.record.status, "message": "Local sandbox reset"}

    def upload_url(self, sandbox: EmulatedSandbox, region: str) -> tuple[int, object]:
        return 200, self._signed_url("upload_url", "PUT", Key(region, sandbox.id, WORKSPACE))

    def initialize(self, sandbox: EmulatedSandbox, region: str) -> tuple[int, object]:
        with self._open_upload(Key(region, sandbox.id, WORKSPACE)) as packed:
            try:
                sandbox.initialize(packed)
            except ArchiveRefused as error:
                raise ApiError(500, f"Failed to initialize the sandbox: {error}") from error
            except OSError as error:
                raise ApiError(500, f"Failed to initialize the sandbox: {error.strerror}") from error
        message = "Extracted archive from GCS to workspace"
        return 200, {"sandbox_id": sandbox.id, "status": sandbox.record.status, "message": message}

    def dump(self, sandbox: EmulatedSandbox, region: str) -> tuple[int, object]:
        return 200, self._download_url(Key(region, sandbox.id, "dump.tar.gz"), sandbox.dump)

    def execution_upload_url(self, sandbox: EmulatedSandbox, region: str, execution_name: str) -> tuple[int, object]:
        return 200, self._signed_url("upload_url", "PUT", _execution_key(region, sandbox, execution_name))

    def execute(self, sandbox: EmulatedSandbox, region: str, execution_name: str) -> tuple[int, object]:
        with self._open_upload(_execution_key(region, sandbox, execution_name)) as packed:
            try:
                sandbox.execute(execution_name, packed)
            except Busy as error:
                raise ApiError(409, f"Execution {execution_name} is still running") from error
            except (ArchiveRefused, OSError) as error:
                raise ApiError(500, f"Failed to unpack execution {execution_name}: {error}") from error
        return 200, {"message": "Execution started", "execution_name": execution_name}

    def execution_status(self, sandbox: EmulatedSandbox, execution_name: str) -> tuple[int, object]:
        return 200, {"status": _execution(sandbox, execution_name).status.value}

    def execution_logs(self, sandbox: EmulatedSandbox, execution_name: str, cursor: int) -> tuple[int, object]:
        execution = _execution(sandbox, execution_name)
        # The status is read first, so that the next poll finds text that is written after it.
        status = execution.status.value
        logs, after = execution.logs(cursor)
        return 200, {"status": status, "logs": logs, "cursor": after}

    def export_artifacts(self, sandbox: EmulatedSandbox, region: str, execution_name: str) -> tuple[int, object]:
        execution = _execution(sandbox, execution_name)
        if not execution.ended:
            raise ApiError(409, f"Execution {execution_name} has not ended yet")
        key = Key(region, sandbox.id, f"artifacts/{execution_name}.tar.gz")
        # An export at the same time may otherwise delete the object that this one has just written.
        with self._export_lock:
            try:
                answer = self._download_url(key, lambda file: sandbox.export(execution, file))
            except LookupError as error:
                raise ApiError(404, f"Execution {execution_name} has no artifacts any more") from error
            self._bucket.keep_newest(key, KEPT_RUNS)
        return 200, answer

    def _sandbox(self, sandbox_id: str) -> EmulatedSandbox:
        sandbox = self._sandboxes.find(sandbox_id)
        if sandbox is None:
            raise ApiError(404, "Local sandbox not found")
        return sandbox

    def _open_upload(self, key: Key) -> BinaryIO:
        opened = self._bucket.open(key)
        if opened is None:
            raise ApiError(400, f"No archive was uploaded in region '{key.region}'")
        return opened

    def _signed_url(self, field: str, method: str, key: Key) -> dict[str, object]:
        lifetime_s = self.url_lifetime_s
        return {field: self._bucket.url(method, key, lifetime_s), "expires_in_minutes": max(1, lifetime_s // 60)}

    def _download_url(self, key: Key, write: Callable[[BinaryIO], None]) -> dict[str, object]:
        try:
            self._bucket.store(key, write).close()
        except OSError as error:
            raise ApiError(500, f"Failed to pack {key.name}: {error}") from error
        return self._signed_url("download_url", "GET", key)

    def _info(self, sandbox: EmulatedSandbox) -> dict[str, object]:
        record = sandbox.record
        servers: list[dict[str, object]] = [
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


# By method and path below `/local-sandbox`: the operation, which gets the sandbox if the path names one, and what its
# query and its body hold.
ROUTES: dict[tuple[str, str], tuple[Callable[..., tuple[int, object]], type[Struct] | None, type[Struct] | None]] = {
    ("GET", ""): (EmulatedApi.list, None, None),
    ("POST", ""): (EmulatedApi.acquire, None, WithServers),
    ("GET", "/ID"): (EmulatedApi.get, None, None),
    ("DELETE", "/ID"): (EmulatedApi.release, AtRelease, None),
    ("POST", "/ID/reset"): (EmulatedApi.reset, None, None),
    ("POST", "/ID/upload-url"): (EmulatedApi.upload_url, InRegion, None),
    ("POST", "/ID/initialize"): (EmulatedApi.initialize, InRegion, None),
    ("GET", "/ID/dump"): (EmulatedApi.dump, InRegion, None),
    ("POST", "/ID/execution-upload-url"): (EmulatedApi.execution_upload_url, InRegion, OfExecution),
    ("POST", "/ID/execute"): (EmulatedApi.execute, InRegion, OfExecution),
    ("GET", "/ID/execution-status"): (EmulatedApi.execution_status, OfExecution, None),
    ("GET", "/ID/execution-logs"): (EmulatedApi.execution_logs, FromCursor, None),
    ("POST", "/ID/export-artifacts"): (EmulatedApi.export_artifacts, InRegion, OfExecution),
}


def _template(request: Request) -> tuple[str, str]:
    """The path below `/local-sandbox`, with `ID` in the place of the sandbox, and the sandbox; `/` for another path."""
    match = _PATH.fullmatch(request.decoded_path)
    if match is None:
        return "/", ""
    return f"/ID{match[2] or ''}" if match[1] else "", match[1] or ""


def _methods(request: Request) -> list[str]:
    return [method for method, template in ROUTES if template == _template(request)[0]]


def _execution(sandbox: EmulatedSandbox, name: str) -> Execution:
    execution = sandbox.execution(name)
    if execution is None:
        raise ApiError(404, f"Execution {name} not found")
    return execution


def _execution_key(region: str, sandbox: EmulatedSandbox, name: str) -> Key:
    return Key(region, sandbox.id, f"executions/{name}.tar.gz")


def json_reply(status: int, answer: object, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """An answer in JSON."""
    body = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    return Reply(status, (("Content-Type", "application/json"), ("Server", "uvicorn"), *headers), body)
