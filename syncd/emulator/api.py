"""The sandbox API's `/local-sandbox` paths, as its public description has them, in FastAPI's manners."""

from __future__ import annotations

import hmac
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import BinaryIO

from syncd.core.clock import Clock, stamp
from syncd.emulator.bucket import EmulatedBucket, Key
from syncd.emulator.execution import Execution
from syncd.emulator.extract import ArchiveRefused, Bounds
from syncd.emulator.sandbox import Busy, Sandbox, Sandboxes
from syncd.emulator.validation import Checked, Invalid, parsed_body
from syncd.emulator.wire import Readable, Reply, Request

BODY_BYTES = 1024**2
WORKSPACE = "workspace.tar.gz"
Servers = list[dict[str, object]]
_ID = r"/local-sandbox/(?P<id>[^/]+)"


class Refused(Exception):
    """The API's `{"detail": …}` with that status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True)
class ApiRoute:
    """One method on one path. `takes_body`: JSON is required."""

    method: str
    path: re.Pattern[str]
    op: str
    work: Callable[[EmulatedApi, str, Checked], tuple[int, object]]
    takes_body: bool = False


class EmulatedApi:
    """What the API's origin answers. `url_lifetime_s` may be changed at any time: it is that of the next URL."""

    def __init__(
        self, sandboxes: Sandboxes, bucket: EmulatedBucket, clock: Clock, key: str, url_lifetime_s: int
    ) -> None:
        self._sandboxes = sandboxes
        self._bucket = bucket
        self._clock = clock
        self._key = key
        self.url_lifetime_s = url_lifetime_s
        self.bounds = Bounds()
        self.base_url = ""

    # The origin's side

    def identify(self, request: Request) -> tuple[str, str | None]:
        """The operation by method and path, `other` for none of the API's."""
        for route in ROUTES:
            if route.method == request.method and (match := route.path.fullmatch(request.decoded_path)):
                return route.op, match.groupdict().get("id")
        return "other", None

    def answer(self, op: str, request: Request, body: Readable) -> Reply:
        """In the order in which the service looks: length, path, key, parameters, sandbox."""
        try:
            status, answer = self._worked(op, request, body)
        except Invalid as error:
            status, answer = 422, {"detail": error.warnings}
        except Refused as error:
            status, answer = error.status, {"detail": error.detail}
        reply = _json(status, answer)
        if status == 405:
            reply = Reply(405, (*reply.headers, ("Allow", ", ".join(_methods(request)))), reply.body)
        return reply

    def refusal(self, status: int, code: str) -> Reply:
        """`{"detail": …}` with the status's phrase; codes are the bucket's business."""
        try:
            detail = code or HTTPStatus(status).phrase
        except ValueError:
            detail = f"Status {status}"
        return _json(status, {"detail": detail})

    def vanish(self, sandbox: str) -> None:
        """Released, with all that belongs to it."""
        self._sandboxes.release(sandbox)
        self._bucket.forget(sandbox)

    def empty(self, sandbox: str) -> None:
        """Nothing is in its workspace any more, where there is such a sandbox."""
        found = self._sandboxes.find(sandbox)
        if found is not None:
            found.empty()

    def _worked(self, op: str, request: Request, body: Readable) -> tuple[int, object]:
        if request.chunked or (request.method == "POST" and not request.announces_length):
            raise Refused(411, "Length Required")
        route = next((route for route in ROUTES if route.op == op), None)
        if route is None:
            raise Refused(405, "Method Not Allowed") if _methods(request) else Refused(404, "Not Found")
        self._check_key(request)
        data = _whole(body)
        match = route.path.fullmatch(request.decoded_path)
        sandbox_id = match.groupdict().get("id", "") if match else ""
        checked = Checked(dict(request.query), parsed_body(data) if route.takes_body else None)
        return route.work(self, sandbox_id, checked)

    def _check_key(self, request: Request) -> None:
        scheme, _, given = (request.header("Authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise Refused(403, "Not authenticated")
        if not hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._key.encode()):
            raise Refused(401, "Invalid API key")

    # The work

    def list(self, _: str, checked: Checked) -> tuple[int, object]:
        checked.finish()
        sandboxes = [self._info(sandbox) for sandbox in self._sandboxes.all()]
        return 200, {"local_sandboxes": sandboxes, "total_count": len(sandboxes)}

    def acquire(self, _: str, checked: Checked) -> tuple[int, object]:
        names, ttl_s, benchmark = checked.server_names(), checked.ttl_s(), checked.benchmark()
        checked.finish()
        sandbox = self._sandboxes.create(servers=names, ttl_s=ttl_s, benchmark=benchmark)
        info = self._info(sandbox)
        del info["created_at"]
        return 201, info | {"message": "Local sandbox acquired"}

    def get(self, sandbox_id: str, checked: Checked) -> tuple[int, object]:
        checked.finish()
        return 200, self._info(self._sandbox(sandbox_id))

    def release(self, sandbox_id: str, checked: Checked) -> tuple[int, object]:
        checked.is_ttl()
        checked.finish()
        self.vanish(self._sandbox(sandbox_id).id)
        return 200, {"message": f"Local sandbox {sandbox_id} is being released"}

    def reset(self, sandbox_id: str, checked: Checked) -> tuple[int, object]:
        checked.finish()
        sandbox = self._sandbox(sandbox_id)
        sandbox.reset()
        return 200, {"local_sandbox_id": sandbox.id, "status": sandbox.status, "message": "Local sandbox reset"}

    def upload_url(self, sandbox_id: str, checked: Checked) -> tuple[int, object]:
        region = checked.region()
        checked.finish()
        return 200, self._upload_url("upload_url", "PUT", Key(region, self._sandbox(sandbox_id).id, WORKSPACE))

    def initialize(self, sandbox_id: str, checked: Checked) -> tuple[int, object]:
        region = checked.region()
        checked.finish()
        sandbox = self._sandbox(sandbox_id)
        with self._uploaded(Key(region, sandbox.id, WORKSPACE)) as packed:
            try:
                sandbox.initialize(packed, self.bounds)
            except ArchiveRefused as error:
                raise Refused(500, f"Failed to initialize the sandbox: {error}") from error
            except OSError as error:
                raise Refused(500, f"Failed to initialize the sandbox: {error.strerror}") from error
        message = "Extracted archive from GCS to workspace"
        return 200, {"sandbox_id": sandbox.id, "status": sandbox.status, "message": message}

    def dump(self, sandbox_id: str, checked: Checked) -> tuple[int, object]:
        region = checked.region()
        checked.finish()
        sandbox = self._sandbox(sandbox_id)
        return 200, self._given(Key(region, sandbox.id, "dump.tar.gz"), sandbox.dump)

    def execution_upload_url(self, sandbox_id: str, checked: Checked) -> tuple[int, object]:
        region, name = checked.region(), checked.execution_name("body")
        checked.finish()
        return 200, self._upload_url("upload_url", "PUT", _execution_key(region, self._sandbox(sandbox_id), name))

    def execute(self, sandbox_id: str, checked: Checked) -> tuple[int, object]:
        region, name = checked.region(), checked.execution_name("body")
        checked.finish()
        sandbox = self._sandbox(sandbox_id)
        with self._uploaded(_execution_key(region, sandbox, name)) as packed:
            try:
                sandbox.execute(name, packed, self.bounds)
            except Busy as error:
                raise Refused(409, f"Execution {name} is still running") from error
            except (ArchiveRefused, OSError) as error:
                raise Refused(500, f"Failed to unpack execution {name}: {error}") from error
        return 200, {"message": "Execution started", "execution_name": name}

    def execution_status(self, sandbox_id: str, checked: Checked) -> tuple[int, object]:
        name = checked.execution_name("query")
        checked.finish()
        return 200, {"status": self._execution(sandbox_id, name).status.value}

    def execution_logs(self, sandbox_id: str, checked: Checked) -> tuple[int, object]:
        name, cursor = checked.execution_name("query"), checked.cursor()
        checked.finish()
        execution = self._execution(sandbox_id, name)
        # The status first: text that is written between the two is found at the next poll, none after the end.
        status = execution.status.value
        logs, after = execution.logs(cursor)
        return 200, {"status": status, "logs": logs, "cursor": after}

    def export_artifacts(self, sandbox_id: str, checked: Checked) -> tuple[int, object]:
        region, name = checked.region(), checked.execution_name("body")
        checked.finish()
        sandbox = self._sandbox(sandbox_id)
        self._execution(sandbox_id, name)
        return 200, self._given(
            Key(region, sandbox.id, f"artifacts/{name}.zip"), lambda file: sandbox.export(name, file)
        )

    def _sandbox(self, sandbox_id: str) -> Sandbox:
        sandbox = self._sandboxes.find(sandbox_id)
        if sandbox is None:
            raise Refused(404, "Local sandbox not found")
        return sandbox

    def _execution(self, sandbox_id: str, name: str) -> Execution:
        execution = self._sandbox(sandbox_id).execution(name)
        if execution is None:
            raise Refused(404, f"Execution {name} not found")
        return execution

    def _uploaded(self, key: Key) -> BinaryIO:
        opened = self._bucket.open(key)
        if opened is None:
            raise Refused(400, f"No archive was uploaded in region '{key.region}'")
        return opened[1]

    def _upload_url(self, field: str, method: str, key: Key) -> dict[str, object]:
        lifetime_s = self.url_lifetime_s
        return {field: self._bucket.url(method, key, lifetime_s), "expires_in_minutes": max(1, lifetime_s // 60)}

    def _given(self, key: Key, write: Callable[[BinaryIO], None]) -> dict[str, object]:
        with tempfile.TemporaryFile() as file:
            try:
                write(file)
            except OSError as error:
                raise Refused(500, f"Failed to pack {key.name}: {error}") from error
            size_bytes = file.tell()
            file.seek(0)
            self._bucket.store(key, _Stored(file, size_bytes))
        return self._upload_url("download_url", "GET", key)

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


@dataclass(frozen=True)
class _Stored:
    """A file of ours on its way into the bucket."""

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


def _whole(body: Readable) -> bytes:
    if body.length > BODY_BYTES:
        raise Refused(413, "Request body too large")
    data = b""
    while chunk := body.read():
        data += chunk
    return data


def _execution_key(region: str, sandbox: Sandbox, name: str) -> Key:
    return Key(region, sandbox.id, f"executions/{name}.tar.gz")


def _json(status: int, answer: object) -> Reply:
    body = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    return Reply(status, (("Content-Type", "application/json"), ("Server", "uvicorn")), body)
