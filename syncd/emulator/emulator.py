"""The whole stand-in, wired: start it, point syncd at `base_url`, and look at what it was asked and what it holds.

Data outlives it: started again on the same folder it has the same sandboxes, objects, key and signing secret, and takes
the same bucket port where that is free, so that URLs it gave still hold.
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
from syncd.emulator.request_handler import EmulatedService, Exchanges
from syncd.emulator.request_log import RequestLog, RequestRecord
from syncd.emulator.sandbox import Sandbox, Sandboxes
from syncd.emulator.server import Origin
from syncd.emulator.signing import Signer

KEY_FILE = "api-key"
_LOG = logging.getLogger(__name__)
_MEMORY = "emulator.json"


class Emulator:
    """The API and its bucket on two ports of loopback, from `start` (or `with`) to `close`.

    `port` is the API's, 0 any free one. `write_interval_s` above 0 lets the bucket refuse (429) to write one object
    more often. `clock` is the servers' clock: it signs, expires and dates. `observer` sees each finished request.
    Raises OSError (port taken, folder not usable) and Locked (another emulator has the folder) at the start.
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
        self._sandboxes = Sandboxes(self.data_dir / "sandboxes", clock, execution_timeout_s)
        self._bucket = EmulatedBucket(str(self.data_dir / "bucket"), clock, write_interval_s)
        self._exchanges = Exchanges(clock, self.request_log, self.faults, self._failed)
        self._api: EmulatedApi | None = None
        self._origins: list[Origin] = []
        self._folder_lock = -1
        self._failures: list[BaseException] = []

    @property
    def base_url(self) -> str:
        """The API's address; valid once started."""
        return f"http://{self._origins[0].host}" if self._origins else ""

    @property
    def port(self) -> int:
        """The API's port."""
        return self._origins[0].port if self._origins else self._port

    @property
    def url_lifetime_s(self) -> int:
        """How long the next signed URLs hold, in seconds; may be set while it runs."""
        return self._url_lifetime_s

    @url_lifetime_s.setter
    def url_lifetime_s(self, seconds: int) -> None:
        self._url_lifetime_s = seconds
        if self._api is not None:
            self._api.url_lifetime_s = seconds

    def create_sandbox(self, id: str | None = None, servers: Sequence[str] = ()) -> Sandbox:  # noqa: A002
        """A sandbox that never expires; the existing one if there is one with this id."""
        return self._sandboxes.create(id, servers)

    def sandbox(self, sandbox_id: str) -> Sandbox | None:
        """The sandbox of that id, None if it is gone."""
        return self._sandboxes.find(sandbox_id)

    def sandboxes(self) -> list[Sandbox]:
        """All that there are, oldest first."""
        return self._sandboxes.all()

    def start(self) -> None:
        """Opens the folder and both ports."""
        try:
            self._open_folder()
            memory = self._remembered()
            self.api_key = self.api_key or self._kept_key()
            _write_private(self.data_dir / KEY_FILE, self.api_key + "\n")
            self._sandboxes.load()
            self._bucket.sweep()
            self._api = EmulatedApi(self._sandboxes, self._bucket, self._clock, self.api_key, self._url_lifetime_s)
            self._bind(self._api, "api", self._port)
            bucket = self._bind_anywhere(int(memory.get("bucket_port", 0)))
            secret = bytes.fromhex(memory.get("secret") or secrets.token_hex(32))
            self._api.base_url = self.base_url
            self._bucket.signer = Signer(secret, bucket.host)
            memory = {"bucket_port": str(bucket.port), "secret": secret.hex()}
            _write_private(self.data_dir / _MEMORY, json.dumps(memory))
        except BaseException:
            self.close()
            raise
        for origin in self._origins:
            origin.start()

    def close(self) -> None:
        """Ends both ports, every connection, thread and execution; the folder stays."""
        closers = [threading.Thread(target=origin.close) for origin in self._origins]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()
        self._origins = []
        self._sandboxes.close()
        if self._folder_lock >= 0:
            os.close(self._folder_lock)
            self._folder_lock = -1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        # A test's hook that failed in a server thread must fail the test, not pass unseen.
        if self._failures and error is None:
            raise self._failures[0]

    def _failed(self, error: BaseException) -> None:
        self._failures.append(error)
        _LOG.error("a request failed unexpectedly", exc_info=error)

    def _open_folder(self) -> None:
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.data_dir == Path.home() or self.data_dir == self.data_dir.parent:
            raise WorkspaceError(f"{self.data_dir} cannot hold the emulator's data", "name a folder of its own")
        self.data_dir.chmod(0o700)
        self._folder_lock = os.open(self.data_dir / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._folder_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Locked(f"another emulator uses {self.data_dir}", "stop it, or name another folder") from error

    def _remembered(self) -> dict[str, str]:
        try:
            memory = json.loads((self.data_dir / _MEMORY).read_text(encoding="utf-8"))
            return {name: str(memory[name]) for name in ("bucket_port", "secret")}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}

    def _kept_key(self) -> str:
        try:
            return (self.data_dir / KEY_FILE).read_text(encoding="utf-8").strip() or secrets.token_urlsafe(24)
        except FileNotFoundError:
            return secrets.token_urlsafe(24)

    def _bind(self, service: EmulatedService, name: str, port: int) -> Origin:
        origin = Origin(
            name,
            lambda connection, request: self._exchanges.serve(service, connection, request),
            self._failed,
        )
        origin.bind(port)
        self._origins.append(origin)
        return origin

    def _bind_anywhere(self, preferred: int) -> Origin:
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
