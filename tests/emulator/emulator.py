"""The emulator with everything that only tests set, on the product's own rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from syncd import emulator
from syncd.core.clock import Clock, SystemClock
from syncd.emulator.sandbox import SandboxRecord
from syncd.emulator.server import Service
from tests.emulator.faults import Faults
from tests.emulator.handler import FaultyServer
from tests.emulator.request_log import RequestLog
from tests.emulator.sandbox import Sandbox
from tools.conformance.profile import Profile


class Emulator(emulator.Emulator):
    """The emulator, with `faults` and a `request_log`.

    `profile` says how the service differs from what syncd assumes.
    With `rate_limit` above 0 the API refuses (429) more requests with the key than that in a second. An unexpected
    error in a server's thread is raised at the end of a `with`.
    """

    def __init__(
        self,
        data_dir: Path | str,
        port: int = 0,
        api_key: str = "",
        *,
        clock: Clock | None = None,
        profile: Profile | None = None,
    ) -> None:
        self.faults = Faults()
        self.request_log = RequestLog()
        self.rate_limit = 0
        self.failures: list[BaseException] = []
        self.profile = profile or Profile()
        super().__init__(
            data_dir,
            port=port,
            api_key=api_key,
            url_lifetime_s=1800,
            clock=clock or SystemClock(),
            observer=lambda _: None,
        )

    def create_sandbox(self, sandbox_id: str | None = None, servers: Sequence[str] = ()) -> Sandbox:
        """A sandbox that never expires; the existing one if there is one with this id."""
        return self._sandboxes.create(sandbox_id, servers)

    def sandbox(self, sandbox_id: str) -> Sandbox | None:
        """The sandbox with this id, None if there is none."""
        return self._sandboxes.find(sandbox_id)

    def archive(self) -> Path:
        """The archive of a workspace that was uploaded last."""
        return max((self.data_dir / "bucket").rglob("workspace.tar.gz"), key=lambda path: path.stat().st_mtime_ns)

    def ports(self) -> dict[int, str]:
        """The open ports, each with `api` or `bucket`."""
        return {server.port: "api" if server.service is self.api else "bucket" for server in self._servers}

    def server_at(self, port: int | None) -> FaultyServer:
        """The server of that port."""
        (server,) = (each for each in self._servers if each.port == port)
        assert isinstance(server, FaultyServer)
        return server

    def new_sandbox(self, folder: Path, record: SandboxRecord) -> Sandbox:
        return Sandbox(folder, record, self.profile, self.clock)

    def new_server(self, service: Service, port: int) -> FaultyServer:
        return FaultyServer(service, port, self)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        # An error of a test's hook in a server thread must fail the test.
        if self.failures and kind is None:
            raise self.failures[0]
