"""The snapshotter put together for measurements.

Run by itself it is the measured process: it takes a tree's first snapshot, ends, and prints the cost.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

from syncd.archive.archive_format import Codec
from syncd.archive.chunk_store import ChunkStore
from syncd.archive.packer import Packed, Packer
from syncd.archive.snapshotter import Snapshotter, SyncMode
from syncd.core.clock import SystemClock
from syncd.model.manifest import Manifest
from syncd.scan.file_reader import ContentReader
from syncd.scan.guards import LossGuard
from syncd.scan.scanner import Scanner
from syncd.selection.secret_scanner import SecretSearch
from syncd.selection.selection import Selection
from tests.bench.stopwatch import Elapsed, Stopwatch, status_kib


class TimedSnapshot(NamedTuple):
    """A snapshot and its cost until the archive is ready to send."""

    took: Elapsed
    packed: Packed


class _LaterClock(SystemClock):
    """A clock by which every stamp is old enough to be trusted."""

    def wall_s(self) -> float:
        return super().wall_s() + 3600


class SnapshotTimer:
    """Takes snapshots of one tree, each against the one before."""

    def __init__(self, workspace: str, spool: str, codec: Codec = Codec.FAST) -> None:
        clock, search = _LaterClock(), SecretSearch()
        store = ChunkStore(spool)
        store.open()
        self._snapshotter = Snapshotter(
            Scanner(workspace, Selection()),
            LossGuard(workspace, spool),
            ContentReader(workspace, clock, search=search),
            Packer(workspace, store, clock, search=search),
            Packer(workspace, ChunkStore(f"{spool}/part"), clock, search=search),
            clock=clock,
            spool_folder=spool,
            max_mib=1 << 20,
            size_remedy="",
        )
        self._codec = codec
        self._baseline: Manifest | None = None

    def take(self, changed: set[str] | None) -> TimedSnapshot:
        """Take a snapshot; `changed` names the only directories to scan, None is all."""
        watch = Stopwatch()
        look = self._snapshotter.scan(self._baseline, SyncMode.CHANGED, changed)
        packed = self._snapshotter.pack(look.manifest, self._codec)
        took = watch.took()
        self._baseline = packed.manifest
        return TimedSnapshot(took, packed)


class Edits(NamedTuple):
    """The cost of snapshots of one tree: the first, and after a line was added to a file, found in two ways."""

    entries: int
    first: Elapsed
    scanned: list[Elapsed]
    named: list[Elapsed]


def edits(workspace: str, spool: str, times: int, victims: list[str]) -> Edits:
    """Take a first snapshot, then one after each of some edits."""
    timer = SnapshotTimer(workspace, spool)
    first, packed = timer.take(None)
    took: dict[str, list[Elapsed]] = {"scanned": [], "named": []}
    for number in range(times):
        for kind, costs in took.items():
            victim = victims[(7 * number + len(kind)) % len(victims)]
            with open(Path(workspace, victim), "a") as file:
                file.write("#\n")
            changed = {victim.rpartition("/")[0]} if kind == "named" else None
            costs.append(timer.take(changed).took)
    return Edits(len(packed.manifest), first, took["scanned"], took["named"])


def main(workspace: str, spool: str, codec: str) -> None:
    """Print, as JSON, the cost of a first snapshot without the interpreter's start, its size, and the memory."""
    took, packed = SnapshotTimer(workspace, spool, Codec(codec)).take(None)
    said = {"wall_s": took.wall_s, "cpu_s": took.cpu_s, "peak_kib": status_kib("VmHWM")}
    print(json.dumps({**said, "entries": len(packed.manifest), "size_bytes": packed.archive.size_bytes}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
