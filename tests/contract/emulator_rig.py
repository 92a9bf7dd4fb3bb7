"""Fixtures of the emulator's tests: a started emulator, clients for its two origins, archives, a shifted clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from syncd.core.clock import SystemClock
from tests.archives import archive, member
from tests.emulator import Emulator

KEY = "key-of-the-test"
SANDBOX = "box"
PATH = f"/local-sandbox/{SANDBOX}"
GZIP = {"Content-Type": "application/gzip"}


@dataclass
class ShiftedClock(SystemClock):
    """The machine's clock, shifted by a test."""

    ahead_s: float = 0.0

    def wall_s(self) -> float:
        return super().wall_s() + self.ahead_s


class EmulatorRig:
    """An emulator with one sandbox, and a client for each origin."""

    def __init__(self, emulator: Emulator, clock: ShiftedClock) -> None:
        self.emulator = emulator
        self.clock = clock
        self.sandbox = self.emulator.create_sandbox(SANDBOX)
        headers = {"Authorization": f"Bearer {KEY}"}
        self.api = httpx.Client(base_url=self.emulator.base_url, headers=headers, timeout=60)
        self.bucket = httpx.Client(timeout=60)

    def close(self) -> None:
        self.api.close()
        self.bucket.close()

    def upload_url(self, region: str = "us") -> str:
        """Request a new signed URL for the workspace's archive."""
        return str(self.api.post(f"{PATH}/upload-url", params={"region": region}).json()["upload_url"])

    def upload(self, content: bytes, region: str = "us") -> httpx.Response:
        return self.bucket.put(self.upload_url(region), content=content, headers=GZIP)

    def initialize(self, content: bytes) -> httpx.Response:
        """Upload and initialize an archive."""
        assert self.upload(content).status_code == 200
        return self.api.post(f"{PATH}/initialize")

    def tree(self) -> dict[str, bytes | str | None]:
        """Return the sandbox's workspace: each path's content, a link's target as text, None for a directory."""
        found: dict[str, bytes | str | None] = {}
        for path in sorted(self.sandbox.workspace.rglob("*")):
            name = path.relative_to(self.sandbox.workspace).as_posix()
            if path.is_symlink():
                found[name] = str(path.readlink())
            else:
                found[name] = None if path.is_dir() else path.read_bytes()
        return found


@contextmanager
def started_rig(data_dir: Path) -> Iterator[EmulatorRig]:
    """A rig with its data in `data_dir`."""
    clock = ShiftedClock()
    with Emulator(data_dir, api_key=KEY, clock=clock) as emulator:
        rig = EmulatorRig(emulator, clock)
        try:
            yield rig
        finally:
            rig.close()


def files(**contents: bytes) -> bytes:
    """Return a tar.gz of plain files; `__` in a name stands for `/`, `_` for `.`."""
    return archive(*(member(name.replace("__", "/").replace("_", "."), text) for name, text in contents.items()))
