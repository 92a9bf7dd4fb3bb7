"""A workspace, a spool, and the scanner and packer between them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from syncd.archive.base_store import BaseStore
from syncd.archive.chunk_store import Archive, ChunkStore
from syncd.archive.packer import Packed, Packer
from syncd.core.clock import Clock
from syncd.core.settings import check_config
from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.daemon.build import workspace_of
from syncd.model.manifest import Manifest
from syncd.scan.scanner import Scan, Scanner
from syncd.selection.selection import Selection
from syncd.sync.workspace import Workspace
from tests.clock import LATER_S, ScriptedClock

MIB = 1 << 20


@dataclass
class InterferingClock(ScriptedClock):
    """A clock that calls `happens` each time it is read, which is just before a file is read."""

    happens: Callable[[], None] = lambda: None

    def wall_s(self) -> float:
        self.happens()
        return LATER_S


class PackRig:
    """An empty workspace and an empty spool, with the packer of one process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir()
        self.spool = folder / "spool"
        self.start()

    def start(self, check: Callable[[], None] = lambda: None, clock: Clock | None = None) -> None:
        """Begin a new process on the spool."""
        self.store = ChunkStore(str(self.spool))
        self.store.open()
        base_store = BaseStore(str(self.spool), self.store)
        self.packer = Packer(
            str(self.work), self.store, clock or ScriptedClock(wall=LATER_S), check, base_store=base_store
        )

    def write(self, path: str | bytes, content: bytes = b"content") -> Path:
        """Write a file of the workspace, and the folders above it."""
        file = Path(os.fsdecode(os.path.join(os.fsencode(self.work), os.fsencode(path))))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def scan(self, personal: str = "") -> Scan:
        """Scan everything; `personal` is the person's own exclude file."""
        return Scanner(str(self.work), Selection(), personal_excludes=personal).scan()

    def pack(self, manifest: Manifest | None = None, most_bytes: int | None = None) -> Packed:
        """Pack what was scanned, or is there now."""
        return self.packer.pack(self.scan().manifest if manifest is None else manifest, most_bytes=most_bytes)


def workspace_in(folder: Path) -> Workspace:
    """Return the workspace `work` of that folder, in which the state and the spool are too."""
    sandbox = {"id": "x", "base_url": "http://127.0.0.1:9"}
    config = check_config({"workspace": {"path": str(folder / "work")}, "sandbox": sandbox})
    environ = {"XDG_STATE_HOME": str(folder / "state"), "XDG_CACHE_HOME": str(folder / "cache")}
    return workspace_of(config, environ, Waiter(Interrupt(), ScriptedClock(wall=LATER_S)))


def whole(archive: Archive) -> bytes:
    """Return the archive's bytes as they are sent."""
    content = b"".join(archive.blocks(64 << 10))
    assert len(content) == archive.size_bytes
    return content
