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
from msgspec import Meta, Struct

from syncd.core.clock import stamp
from syncd.emulator.bucket import REGIONS, EmulatedBucket, Key
from syncd.emulator.extract import ArchiveRefused
from syncd.emulator.sandbox import KEPT_RUNS, NAME, Busy, EmulatedSandbox, Execution, Sandboxes
from syncd.emulator.server import Reply, Request

BODY_BYTES = 1024**2
WORKSPACE = "workspace.tar.gz"
_REQUIRED: Any = object()
_INDEX = re.compile(r"\[(\d+)\]")
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


class Parameter(Struct, frozen=True):
    """A parameter of an operation: where it stands, its name, its type, and the value of one that is not given."""

    place: str
    name: str
    type: Any
    default: Any = _REQUIRED


_NAME = Annotated[str, Meta(pattern=rf"^{NAME.pattern}\Z")]  # a plain file name, as it names a folder
_REGION = Parameter("query", "region", Literal[REGIONS], "us")
_EXECUTION, _EXECUTION_ASKED = (Parameter(place, "execution_name", _NAME) for place in ("body", "query"))
_CURSOR = Parameter("query", "cursor", Annotated[int, Meta(ge=0)], 0)
_IS_TTL = Parameter("query", "is_ttl", bool, False)  # without effect: the service's own clean-up sends it
_SERVER_NAMES = Parameter("body", "server_names", list[Literal[SERVERS]] | Literal["ALL"])  # type: ignore[valid-type]
_BENCHMARK = Parameter("body", "benchmark", Literal[BENCHMARKS] | None, None)
_TTL_S = Parameter("body", "ttl_seconds", Annotated[int, Meta(ge=60, le=86_400)] | None, DEFAULT_TTL_S)


def _values(wanted: Sequence[Parameter], query: Mapping[str, str], body: bytes) -> list[Any]:
    """Return the values of these parameters. Raises ApiError, whose 422 names all that are wrong."""
    sources: dict[str, Mapping[str, Any]] = {"query": query}
    if any(parameter.place == "body" for parameter in wanted):
        sources["body"] = _object(body)
    values, errors = [], []
    for parameter in wanted:
        value = sources[parameter.place].get(parameter.name, parameter.default)
        location = (parameter.place, parameter.name)
        if value is _REQUIRED:
            errors.append(_error("missing", location, "Field required"))
            continue
        try:  # all of a query is text
            values.append(msgspec.convert(value, parameter.type, strict=parameter.place == "body"))
        except msgspec.ValidationError as failure:
            message, _, place = str(failure).partition(" - at ")
            errors.append(_error("value_error", (*location, *map(int, _INDEX.findall(place))), message))
    if errors:
        raise ApiError(422, errors)
    return values


def _object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body. Raises ApiError if it has none."""
    if not body:
        raise ApiError(422, [_error("missing", ("body",), "Field required")])
    try:
        value = json.loads(body)
    except ValueError as failure:
        position = failure.pos if isinstance(failure, json.JSONDecodeError) else 0
        raise ApiError(422, [_error("json_invalid", ("body", position), "JSON decode error")]) from None
    if not isinstance(value, dict):
        raise ApiError(422, [_error("model_attributes_type", ("body",), "Input should be a valid dictionary")])
    return value


def _error(kind: str, location: tuple[str | int, ...], message: str) -> dict[str, object]:
    return {"type": kind, "loc": location, "msg": message}


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
        operation, _ = ROUTES.get((request.method, template), (None, ()))
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
        operation, wanted = ROUTES.get((request.method, template), (None, ()))
        if operation is None:
            raise ApiError(405, "Method Not Allowed") if _methods(request) else ApiError(404, "Not Found")
        self._check_key(request)
        if request.body.length > BODY_BYTES:
            raise ApiError(413, "Request body too large")
        values = _values(wanted, dict(request.query), b"".join(iter(request.body.read, b"")))
        return operation(self, *([self._sandbox(sandbox_id)] if sandbox_id else []), *values)

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

    def acquire(self, asked: Sequence[str], ttl_s: int | None, benchmark: str | None) -> tuple[int, object]:
        names = SERVERS if asked == "ALL" else asked
        info = self._info(self._sandboxes.create(servers=names, ttl_s=ttl_s, benchmark=benchmark))
        del info["created_at"]
        return 201, info | {"message": "Local sandbox acquired"}

    def get(self, sandbox: EmulatedSandbox) -> tuple[int, object]:
        return 200, self._info(sandbox)

    def release(self, sandbox: EmulatedSandbox, _is_ttl: object) -> tuple[int, object]:
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

    def execution_upload_url(self, sandbox: EmulatedSandbox, region: str, name: str) -> tuple[int, object]:
        return 200, self._signed_url("upload_url", "PUT", _execution_key(region, sandbox, name))

    def execute(self, sandbox: EmulatedSandbox, region: str, name: str) -> tuple[int, object]:
        with self._open_upload(_execution_key(region, sandbox, name)) as packed:
            try:
                sandbox.execute(name, packed)
            except Busy as error:
                raise ApiError(409, f"Execution {name} is still running") from error
            except (ArchiveRefused, OSError) as error:
                raise ApiError(500, f"Failed to unpack execution {name}: {error}") from error
        return 200, {"message": "Execution started", "execution_name": name}

    def execution_status(self, sandbox: EmulatedSandbox, name: str) -> tuple[int, object]:
        return 200, {"status": _execution(sandbox, name).status.value}

    def execution_logs(self, sandbox: EmulatedSandbox, name: str, cursor: int) -> tuple[int, object]:
        execution = _execution(sandbox, name)
        # The status is read first, so that the next poll finds text that is written after it.
        status = execution.status.value
        logs, after = execution.logs(cursor)
        return 200, {"status": status, "logs": logs, "cursor": after}

    def export_artifacts(self, sandbox: EmulatedSandbox, region: str, name: str) -> tuple[int, object]:
        execution = _execution(sandbox, name)
        if not execution.ended:
            raise ApiError(409, f"Execution {name} has not ended yet")
        key = Key(region, sandbox.id, f"artifacts/{name}.tar.gz")
        # An export at the same time may otherwise delete the object that this one has just written.
        with self._export_lock:
            try:
                answer = self._download_url(key, lambda file: sandbox.export(execution, file))
            except LookupError as error:
                raise ApiError(404, f"Execution {name} has no artifacts any more") from error
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


# By method and path below `/local-sandbox`: the operation, which gets the sandbox if the path names one, and what else
# it gets.
ROUTES: dict[tuple[str, str], tuple[Callable[..., tuple[int, object]], tuple[Parameter, ...]]] = {
    ("GET", ""): (EmulatedApi.list, ()),
    ("POST", ""): (EmulatedApi.acquire, (_SERVER_NAMES, _TTL_S, _BENCHMARK)),
    ("GET", "/ID"): (EmulatedApi.get, ()),
    ("DELETE", "/ID"): (EmulatedApi.release, (_IS_TTL,)),
    ("POST", "/ID/reset"): (EmulatedApi.reset, ()),
    ("POST", "/ID/upload-url"): (EmulatedApi.upload_url, (_REGION,)),
    ("POST", "/ID/initialize"): (EmulatedApi.initialize, (_REGION,)),
    ("GET", "/ID/dump"): (EmulatedApi.dump, (_REGION,)),
    ("POST", "/ID/execution-upload-url"): (EmulatedApi.execution_upload_url, (_REGION, _EXECUTION)),
    ("POST", "/ID/execute"): (EmulatedApi.execute, (_REGION, _EXECUTION)),
    ("GET", "/ID/execution-status"): (EmulatedApi.execution_status, (_EXECUTION_ASKED,)),
    ("GET", "/ID/execution-logs"): (EmulatedApi.execution_logs, (_EXECUTION_ASKED, _CURSOR)),
    ("POST", "/ID/export-artifacts"): (EmulatedApi.export_artifacts, (_REGION, _EXECUTION)),
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
