"""The emulator: start it, configure syncd with its `base_url`, and look into its sandboxes.

Its data is kept: started again on the same folder it has the same sandboxes, objects, key and signing secret, and uses
the same bucket port if that is free, so that earlier URLs are still valid.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct

from syncd.core.clock import Clock
from syncd.core.directories import make_folders
from syncd.core.durable_file import write_whole
from syncd.core.errors import Locked, WorkspaceError
from syncd.emulator.api import EmulatedApi
from syncd.emulator.bucket import EmulatedBucket, Signer
from syncd.emulator.sandbox import EmulatedSandbox, Sandboxes, SandboxRecord, read_record
from syncd.emulator.server import LoopbackServer, RequestRecord, Service

KEY_FILE = "api-key"
_STATE_FILE = "emulator.json"


class _Kept(Struct, frozen=True):
    """The bucket's port, and the hexadecimal secret of its signatures, which the next start uses again."""

    bucket_port: int
    secret: str


class Emulator:
    """The API and its bucket on two ports of loopback, from `start` (or `with`) to `close`.

    `port` is the API's, 0 any free one; an empty `api_key` is the last one, or a new one. `clock` is the servers', for
    signatures, expiry and dates. `observer` is called with each finished request. `start` raises OSError (port in use,
    folder not usable) and Locked (another emulator uses the folder).

    The tests' emulator is a subclass: it makes its own sandboxes and servers, and keeps every rule of these.
    """

    def __init__(
        self,
        data_dir: Path | str,
        *,
        port: int,
        api_key: str,
        url_lifetime_s: int,
        clock: Clock,
        observer: Callable[[RequestRecord], None],
    ) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.api_key = api_key
        self.clock = clock
        self.observer = observer
        self.port = port
        self._sandboxes = Sandboxes(self.data_dir / "sandboxes", clock, self.new_sandbox)
        self.bucket = EmulatedBucket(self.data_dir / "bucket", clock)
        self.api = EmulatedApi(self._sandboxes, self.bucket, url_lifetime_s)
        self._servers: list[LoopbackServer] = []
        self._lock_descriptor = -1

    @property
    def base_url(self) -> str:
        """The API's address, after the start."""
        return self.api.base_url

    def create_sandbox(self, sandbox_id: str | None = None) -> EmulatedSandbox:
        """A sandbox that never expires; the existing one if there is one with this id."""
        return self._sandboxes.create(sandbox_id)

    def sandboxes(self) -> Sequence[EmulatedSandbox]:
        """All sandboxes, oldest first."""
        return self._sandboxes.all()

    def new_sandbox(self, folder: Path, record: SandboxRecord) -> EmulatedSandbox:
        return EmulatedSandbox(folder, record)

    def new_server(self, service: Service, port: int) -> LoopbackServer:
        """A server of this service that is not started yet. Raises OSError."""
        return LoopbackServer(service, port, self.clock, self.observer)

    def start(self) -> None:
        """Open the folder and both ports."""
        try:
            self._open_folder()
            state = read_record(self.data_dir / _STATE_FILE, _Kept) or _Kept(0, secrets.token_hex(32))
            self.api_key = self.api_key or self._saved_key() or secrets.token_urlsafe(24)
            write_whole(str(self.data_dir / KEY_FILE), f"{self.api_key}\n".encode())
            self._sandboxes.load()
            self.bucket.sweep()
            api = self._open(self.api, self.port)
            try:
                bucket = self._open(self.bucket, state.bucket_port)
            except OSError:
                bucket = self._open(self.bucket, 0)
            self.port, self.api.base_url, self.api.key = api.port, f"http://{api.host}", self.api_key
            self.bucket.signer = Signer(bytes.fromhex(state.secret), bucket.host)
            kept = msgspec.json.encode(_Kept(bucket.port, state.secret))
            write_whole(str(self.data_dir / _STATE_FILE), kept)
        except BaseException:
            self.close()
            raise
        for server in self._servers:
            server.start()

    def close(self) -> None:
        """Close both ports, and end every connection, thread and execution; the folder stays."""
        for server in self._servers:
            server.close()
        self._servers = []
        self._sandboxes.close()
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_folder(self) -> None:
        make_folders(str(self.data_dir), 0o700)
        if str(self.data_dir) == os.path.expanduser("~") or self.data_dir == self.data_dir.parent:
            raise WorkspaceError(f"{self.data_dir} cannot hold the emulator's data", "name a folder of its own")
        self.data_dir.chmod(0o700)
        self._lock_descriptor = os.open(self.data_dir / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Locked(f"another emulator uses {self.data_dir}", "stop it, or name another with --data") from error

    def _saved_key(self) -> str:
        try:
            return (self.data_dir / KEY_FILE).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""

    def _open(self, service: Service, port: int) -> LoopbackServer:
        server = self.new_server(service, port)
        self._servers.append(server)
        return server
