"""The emulator: start it, configure syncd with its `base_url`, and inspect its requests and sandboxes.

Its data is kept: started again on the same folder it has the same sandboxes, objects, key and signing secret, and uses
the same bucket port if that is free, so that earlier URLs are still valid.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from syncd.core.clock import Clock, SystemClock
from syncd.core.errors import Locked, WorkspaceError
from syncd.emulator.api import EmulatedApi
from syncd.emulator.bucket import EmulatedBucket
from syncd.emulator.faults import Faults
from syncd.emulator.request_handler import EmulatedService, RequestHandler
from syncd.emulator.request_log import RequestLog, RequestRecord
from syncd.emulator.sandbox import Sandbox, Sandboxes
from syncd.emulator.server import Origin
from syncd.emulator.signing import Signer

KEY_FILE = "api-key"
_LOG = logging.getLogger(__name__)
_STATE_FILE = "emulator.json"


class Emulator:
    """The API and its bucket on two ports of loopback, from `start` (or `with`) to `close`.

    `port` is the API's, 0 any free one. With `write_interval_s` above 0 the bucket refuses (429) to write an object
    more often; with `rate_limit` above 0 the API refuses (429) more requests with the key than that in a second.
    `clock` is the servers' clock, for signatures, expiry, late executions and dates. `observer` is called with each
    finished request. `start` raises OSError (port in use, folder not usable) and Locked (another emulator uses the
    folder).
    """

    def __init__(
        self,
        data_dir: Path | str,
        port: int = 0,
        api_key: str = "",
        url_lifetime_s: int = 1800,
        *,
        clock: Clock | None = None,
        write_interval_s: float = 0.0,
        rate_limit: int = 0,
        execution_timeout_s: float = 300.0,
        observer: Callable[[RequestRecord], None] | None = None,
    ) -> None:
        clock = clock if clock is not None else SystemClock()
        self.data_dir = Path(data_dir).absolute()
        self.api_key = api_key
        self.request_log = RequestLog(observer)
        self.faults = Faults()
        self._port = port
        self._clock = clock
        self._url_lifetime_s = url_lifetime_s
        self._rate_limit = rate_limit
        self._sandboxes = Sandboxes(self.data_dir / "sandboxes", clock, execution_timeout_s)
        self._bucket = EmulatedBucket(str(self.data_dir / "bucket"), clock, write_interval_s)
        self._handler = RequestHandler(clock, self.request_log, self.faults, self._on_error)
        self._api: EmulatedApi | None = None
        self._origins: list[Origin] = []
        self._lock_descriptor = -1
        self._failures: list[BaseException] = []

    @property
    def base_url(self) -> str:
        """The API's address, empty before the start."""
        return f"http://{self._origins[0].host}" if self._origins else ""

    @property
    def port(self) -> int:
        """The API's port."""
        return self._origins[0].port if self._origins else self._port

    @property
    def url_lifetime_s(self) -> int:
        """The lifetime of the next signed URLs, in seconds; may be set while it runs."""
        return self._url_lifetime_s

    @url_lifetime_s.setter
    def url_lifetime_s(self, seconds: int) -> None:
        self._url_lifetime_s = seconds
        if self._api is not None:
            self._api.url_lifetime_s = seconds

    @property
    def rate_limit(self) -> int:
        """The most requests that the API answers in any second, 0: no limit; may be set while it runs."""
        return self._rate_limit

    @rate_limit.setter
    def rate_limit(self, requests: int) -> None:
        self._rate_limit = requests
        if self._api is not None:
            self._api.rate_limit = requests

    def create_sandbox(self, id: str | None = None, servers: Sequence[str] = ()) -> Sandbox:  # noqa: A002
        """A sandbox that never expires; the existing one if there is one with this id."""
        return self._sandboxes.create(id, servers)

    def sandbox(self, sandbox_id: str) -> Sandbox | None:
        """The sandbox with this id, None if there is none."""
        return self._sandboxes.find(sandbox_id)

    def sandboxes(self) -> list[Sandbox]:
        """All sandboxes, oldest first."""
        return self._sandboxes.all()

    def start(self) -> None:
        """Open the folder and both ports."""
        try:
            self._open_folder()
            state = self._saved_state()
            self.api_key = self.api_key or self._saved_key()
            _write_private(self.data_dir / KEY_FILE, self.api_key + "\n")
            self._sandboxes.load()
            self._bucket.sweep()
            self._api = EmulatedApi(self._sandboxes, self._bucket, self._clock, self.api_key, self._url_lifetime_s)
            self._api.rate_limit = self._rate_limit
            self._bind(self._api, "api", self._port)
            bucket = self._bind_bucket(int(state.get("bucket_port", 0)))
            secret = bytes.fromhex(state.get("secret") or secrets.token_hex(32))
            self._api.base_url = self.base_url
            self._bucket.signer = Signer(secret, bucket.host)
            state = {"bucket_port": str(bucket.port), "secret": secret.hex()}
            _write_private(self.data_dir / _STATE_FILE, json.dumps(state))
        except BaseException:
            self.close()
            raise
        for origin in self._origins:
            origin.start()

    def close(self) -> None:
        """Close both ports, and end every connection, thread and execution; the folder stays."""
        closers = [threading.Thread(target=origin.close) for origin in self._origins]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()
        self._origins = []
        self._sandboxes.close()
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        # An error of a test's hook in a server thread must fail the test.
        if self._failures and error is None:
            raise self._failures[0]

    def _on_error(self, error: BaseException) -> None:
        self._failures.append(error)
        _LOG.error("a request failed unexpectedly", exc_info=error)

    def _open_folder(self) -> None:
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.data_dir == Path.home() or self.data_dir == self.data_dir.parent:
            raise WorkspaceError(f"{self.data_dir} cannot hold the emulator's data", "name a folder of its own")
        self.data_dir.chmod(0o700)
        self._lock_descriptor = os.open(self.data_dir / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Locked(f"another emulator uses {self.data_dir}", "stop it, or name another folder") from error

    def _saved_state(self) -> dict[str, str]:
        try:
            state = json.loads((self.data_dir / _STATE_FILE).read_text(encoding="utf-8"))
            return {name: str(state[name]) for name in ("bucket_port", "secret")}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}

    def _saved_key(self) -> str:
        try:
            return (self.data_dir / KEY_FILE).read_text(encoding="utf-8").strip() or secrets.token_urlsafe(24)
        except FileNotFoundError:
            return secrets.token_urlsafe(24)

    def _bind(self, service: EmulatedService, name: str, port: int) -> Origin:
        origin = Origin(
            name,
            lambda connection, request: self._handler.serve(service, connection, request),
            self._on_error,
        )
        origin.bind(port)
        self._origins.append(origin)
        return origin

    def _bind_bucket(self, preferred: int) -> Origin:
        try:
            return self._bind(self._bucket, "bucket", preferred)
        except OSError:
            return self._bind(self._bucket, "bucket", 0)


def _write_private(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.new")
    descriptor = os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(draft, path)
