"""The sandbox API's `/local-sandbox` paths, as in its public description.

Requests are validated as FastAPI does, with its 422: clients read `detail`, whose form is the service's.
"""

from __future__ import annotations

import hmac
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, cast

from syncd.core.clock import stamp
from syncd.emulator.bucket import REGIONS, EmulatedBucket, Key
from syncd.emulator.extract import ArchiveRefused
from syncd.emulator.sandbox import KEPT_RUNS, NAME, Busy, Execution, Sandbox, Sandboxes
from syncd.emulator.server import Reply, Request

BODY_BYTES = 1024**2
WORKSPACE = "workspace.tar.gz"
_Location = tuple[str | int, ...]
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
MIN_TTL_S = 60
MAX_TTL_S = 86_400
_BOOLEANS = ("true", "false", "1", "0", "on", "off", "yes", "no", "t", "f", "y", "n")


class ApiError(Exception):
    """An answer `{"detail": …}` with that status."""

    def __init__(self, status: int, detail: object) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Parameters:
    """A request's parameters. Errors are collected, so that one 422 names all of them."""

    def __init__(self, query: Mapping[str, str], body: bytes) -> None:
        self._query = query
        self._body = body
        self._errors: list[dict[str, object]] = []

    def finish(self) -> None:
        """Raise ApiError if there was an error."""
        if self._errors:
            raise ApiError(422, self._errors)

    def region(self) -> str:
        return self._one_of(("query", "region"), self._query.get("region", "us"), REGIONS)

    def execution_name(self) -> str:
        """A plain file name, as it names a folder."""
        return self._name("body", self._object())

    def execution_name_in_query(self) -> str:
        return self._name("query", self._query)

    def _name(self, place: str, source: Mapping[str, object]) -> str:
        location = (place, "execution_name")
        name = source.get("execution_name")
        if "execution_name" not in source:
            self._add("missing", location, "Field required")
        elif not isinstance(name, str):
            self._add("string_type", location, "Input should be a valid string")
        elif not NAME.fullmatch(name):
            self._add("string_pattern_mismatch", location, "Input should be a plain file name")
        else:
            return name
        return ""

    def cursor(self) -> int:
        location = ("query", "cursor")
        try:
            cursor = int(self._query.get("cursor", "0"))
        except ValueError:
            message = "Input should be a valid integer, unable to parse string as an integer"
            self._add("int_parsing", location, message)
            return 0
        if cursor < 0:
            self._add("greater_than_equal", location, "Input should be greater than or equal to 0")
        return cursor

    def is_ttl(self) -> None:
        """Check the parameter, which has no effect: the service's own clean-up sends it."""
        if self._query.get("is_ttl", "false").lower() not in _BOOLEANS:
            self._add("bool_parsing", ("query", "is_ttl"), "Input should be a valid boolean, unable to interpret input")

    def server_names(self) -> list[str]:
        location = ("body", "server_names")
        names = self._object().get("server_names")
        if "server_names" not in self._object():
            self._add("missing", location, "Field required")
        elif names == "ALL":
            return list(SERVERS)
        elif not isinstance(names, list):
            self._add("list_type", (*location, "list[enum]"), "Input should be a valid list")
            self._add("literal_error", (*location, "literal['ALL']"), "Input should be 'ALL'")
        else:
            return [self._one_of((*location, index), name, SERVERS) for index, name in enumerate(names)]
        return []

    def benchmark(self) -> str | None:
        value = self._object().get("benchmark")
        return None if value is None else self._one_of(("body", "benchmark"), value, BENCHMARKS)

    def ttl_s(self) -> int | None:
        """The time to live in seconds, None: no end."""
        location = ("body", "ttl_seconds")
        value = self._object().get("ttl_seconds", DEFAULT_TTL_S)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            self._add("int_type", location, "Input should be a valid integer")
            return None
        if value < MIN_TTL_S:
            self._add("greater_than_equal", location, f"Input should be greater than or equal to {MIN_TTL_S}")
        if value > MAX_TTL_S:
            self._add("less_than_equal", location, f"Input should be less than or equal to {MAX_TTL_S}")
        return value

    def _object(self) -> dict[str, object]:
        """The body's JSON object. Raises ApiError if it has none."""
        if not self._body:
            self._add("missing", ("body",), "Field required")
        try:
            value = json.loads(self._body or "{}")
        except ValueError as error:
            value = {}
            position = error.pos if isinstance(error, json.JSONDecodeError) else 0
            self._add("json_invalid", ("body", position), "JSON decode error")
        if not isinstance(value, dict):
            self._add("model_attributes_type", ("body",), "Input should be a valid dictionary")
        self.finish()
        return cast("dict[str, object]", value)

    def _one_of(self, location: _Location, value: object, allowed: tuple[str, ...]) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        *others, last = [f"'{word}'" for word in allowed]
        self._add("enum", location, f"Input should be {', '.join(others)} or {last}")
        return ""

    def _add(self, kind: str, location: _Location, message: str) -> None:
        self._errors.append({"type": kind, "loc": location, "msg": message})


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
        """Release the sandbox, and delete its files and objects."""
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
        parameters = Parameters(dict(request.query), b"".join(iter(request.body.read, b"")))
        values = [read(parameters) for read in wanted]
        parameters.finish()
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

    def acquire(self, names: Sequence[str], ttl_s: int | None, benchmark: str | None) -> tuple[int, object]:
        info = self._info(self._sandboxes.create(servers=names, ttl_s=ttl_s, benchmark=benchmark))
        del info["created_at"]
        return 201, info | {"message": "Local sandbox acquired"}

    def get(self, sandbox: Sandbox) -> tuple[int, object]:
        return 200, self._info(sandbox)

    def release(self, sandbox: Sandbox, _is_ttl: object) -> tuple[int, object]:
        self.delete_sandbox(sandbox.id)
        return 200, {"message": f"Local sandbox {sandbox.id} is being released"}

    def reset(self, sandbox: Sandbox) -> tuple[int, object]:
        sandbox.reset()
        return 200, {"local_sandbox_id": sandbox.id, "status": sandbox.record.status, "message": "Local sandbox reset"}

    def upload_url(self, sandbox: Sandbox, region: str) -> tuple[int, object]:
        return 200, self._signed_url("upload_url", "PUT", Key(region, sandbox.id, WORKSPACE))

    def initialize(self, sandbox: Sandbox, region: str) -> tuple[int, object]:
        with self._open_upload(Key(region, sandbox.id, WORKSPACE)) as packed:
            try:
                sandbox.initialize(packed)
            except ArchiveRefused as error:
                raise ApiError(500, f"Failed to initialize the sandbox: {error}") from error
            except OSError as error:
                raise ApiError(500, f"Failed to initialize the sandbox: {error.strerror}") from error
        message = "Extracted archive from GCS to workspace"
        return 200, {"sandbox_id": sandbox.id, "status": sandbox.record.status, "message": message}

    def dump(self, sandbox: Sandbox, region: str) -> tuple[int, object]:
        return 200, self._download_url(Key(region, sandbox.id, "dump.tar.gz"), sandbox.dump)

    def execution_upload_url(self, sandbox: Sandbox, region: str, name: str) -> tuple[int, object]:
        return 200, self._signed_url("upload_url", "PUT", _execution_key(region, sandbox, name))

    def execute(self, sandbox: Sandbox, region: str, name: str) -> tuple[int, object]:
        with self._open_upload(_execution_key(region, sandbox, name)) as packed:
            try:
                sandbox.execute(name, packed)
            except Busy as error:
                raise ApiError(409, f"Execution {name} is still running") from error
            except (ArchiveRefused, OSError) as error:
                raise ApiError(500, f"Failed to unpack execution {name}: {error}") from error
        return 200, {"message": "Execution started", "execution_name": name}

    def execution_status(self, sandbox: Sandbox, name: str) -> tuple[int, object]:
        return 200, {"status": _execution(sandbox, name).status.value}

    def execution_logs(self, sandbox: Sandbox, name: str, cursor: int) -> tuple[int, object]:
        execution = _execution(sandbox, name)
        # The status is read first, so that the next poll finds text that is written after it.
        status = execution.status.value
        logs, after = execution.logs(cursor)
        return 200, {"status": status, "logs": logs, "cursor": after}

    def export_artifacts(self, sandbox: Sandbox, region: str, name: str) -> tuple[int, object]:
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

    def _sandbox(self, sandbox_id: str) -> Sandbox:
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

    def _info(self, sandbox: Sandbox) -> dict[str, object]:
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


_REGION, _NAME, _NAME_ASKED = Parameters.region, Parameters.execution_name, Parameters.execution_name_in_query
# By method and path below `/local-sandbox`: the operation, which gets the sandbox if the path names one, and what else
# it gets.
ROUTES: dict[tuple[str, str], tuple[Callable[..., tuple[int, object]], tuple[Callable[[Parameters], object], ...]]] = {
    ("GET", ""): (EmulatedApi.list, ()),
    ("POST", ""): (EmulatedApi.acquire, (Parameters.server_names, Parameters.ttl_s, Parameters.benchmark)),
    ("GET", "/ID"): (EmulatedApi.get, ()),
    ("DELETE", "/ID"): (EmulatedApi.release, (Parameters.is_ttl,)),
    ("POST", "/ID/reset"): (EmulatedApi.reset, ()),
    ("POST", "/ID/upload-url"): (EmulatedApi.upload_url, (_REGION,)),
    ("POST", "/ID/initialize"): (EmulatedApi.initialize, (_REGION,)),
    ("GET", "/ID/dump"): (EmulatedApi.dump, (_REGION,)),
    ("POST", "/ID/execution-upload-url"): (EmulatedApi.execution_upload_url, (_REGION, _NAME)),
    ("POST", "/ID/execute"): (EmulatedApi.execute, (_REGION, _NAME)),
    ("GET", "/ID/execution-status"): (EmulatedApi.execution_status, (_NAME_ASKED,)),
    ("GET", "/ID/execution-logs"): (EmulatedApi.execution_logs, (_NAME_ASKED, Parameters.cursor)),
    ("POST", "/ID/export-artifacts"): (EmulatedApi.export_artifacts, (_REGION, _NAME)),
}


def _template(request: Request) -> tuple[str, str]:
    """The path below `/local-sandbox`, with `ID` in the place of the sandbox, and the sandbox; `/` for another path."""
    match = _PATH.fullmatch(request.decoded_path)
    if match is None:
        return "/", ""
    return f"/ID{match[2] or ''}" if match[1] else "", match[1] or ""


def _methods(request: Request) -> list[str]:
    return [method for method, template in ROUTES if template == _template(request)[0]]


def _execution(sandbox: Sandbox, name: str) -> Execution:
    execution = sandbox.execution(name)
    if execution is None:
        raise ApiError(404, f"Execution {name} not found")
    return execution


def _execution_key(region: str, sandbox: Sandbox, name: str) -> Key:
    return Key(region, sandbox.id, f"executions/{name}.tar.gz")


def json_reply(status: int, answer: object, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """An answer in JSON."""
    body = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    return Reply(status, (("Content-Type", "application/json"), ("Server", "uvicorn"), *headers), body)
