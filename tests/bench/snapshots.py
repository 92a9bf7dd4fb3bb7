"""The measured process: snapshots of a tree, with the wall and CPU seconds that each took, as one JSON line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from syncd.base.clock import SystemClock
from syncd.effects.chunk_store import ChunkStore
from syncd.effects.content import ContentReader
from syncd.effects.pack import Packed, Packer
from syncd.effects.scan import Scanner
from syncd.effects.snapshot import Demand, Photographer
from syncd.policy.manifest import Manifest
from syncd.policy.selection import Selection, SelectionSettings

EDITS = 5


class _Later(SystemClock):
    """By which no file is too young to be believed, as after a coffee."""

    def wall_s(self) -> float:
        return super().wall_s() + 3600


class _Bench:
    def __init__(self, workspace: str, spool: str) -> None:
        clock = _Later()
        store = ChunkStore(spool)
        store.open()
        scanner = Scanner(workspace, Selection(SelectionSettings()))
        self._photographer = Photographer(
            scanner,
            ContentReader(workspace, clock),
            Packer(workspace, store, clock),
            spool_folder=spool,
            max_mib=1 << 20,
        )
        self._baseline: Manifest | None = None
        self._clock = clock

    def snapshot(self, changed: set[str] | None) -> tuple[dict[str, float], Packed]:
        started, cpu = self._clock.monotonic_s(), sum(os.times()[:2])
        look = self._photographer.look(self._baseline, Demand.CHANGED, changed)
        packed = self._photographer.pack(look.manifest)
        took = {"wall": self._clock.monotonic_s() - started, "cpu": sum(os.times()[:2]) - cpu}
        self._baseline = packed.manifest
        return took, packed


def main(workspace: str, spool: str) -> None:
    """Print the figures of a first snapshot, and of one after each of some edits, both ways."""
    bench = _Bench(workspace, spool)
    first, packed = bench.snapshot(None)
    figures = {"first": [first], "scanned": [], "named": []}
    victim = next(path for path, entry in packed.manifest.items() if 2_000 < entry.size_bytes < 20_000)
    for kind, changed in (("scanned", None), ("named", {victim.rpartition("/")[0]})):
        for _ in range(EDITS):
            with open(Path(workspace) / victim, "a") as file:
                file.write("#\n")
            took, packed = bench.snapshot(changed)
            figures[kind].append(took)
    files = len(packed.manifest)
    print(json.dumps({**figures, "files": files, "bytes": packed.archive.size_bytes}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
