"""The archive until it is ready to send: of a whole tree, of one edit, and in trees of rising size."""

from __future__ import annotations

import shutil
from pathlib import Path

from syncd.archive.chunk_store import ChunkStore
from syncd.archive.packer import Packer
from syncd.archive.snapshotter import Snapshotter, SyncMode
from syncd.core.clock import SystemClock
from syncd.model.manifest import Manifest
from syncd.scan.file_reader import ContentReader
from syncd.scan.guards import LossGuard
from syncd.scan.scanner import Scanner
from syncd.selection.secret_scanner import SecretSearch
from syncd.selection.selection import Selection
from tools.bench import trees
from tools.bench.measure import Bench, Figures, Stopwatch, fresh, installed, memory_bytes, shell, show

_GZIP = "tar czf"
_RIVALS = {
    _GZIP: ("tar czf {out} -C {tree} .", ("tar",)),
    "tar | gzip -1": ("tar cf - -C {tree} . | gzip -1 >{out}", ("tar", "gzip")),
    "tar | pigz -1": ("tar cf - -C {tree} . | pigz -1 >{out}", ("tar", "pigz")),
}
_GOALS = {("L", "named"): {"wall": ">= 300x"}, ("L", "scanned"): {"wall": ">= 40x"}}
# So many files are measured once, whatever the rounds.
_ONE_ROUND = 500_000


class _LaterClock(SystemClock):
    """A clock by which every stamp is old enough to be trusted."""

    def wall_s(self) -> float:
        return super().wall_s() + 3600


class _SnapshotTimer:
    """Takes snapshots of one tree, each against the one before."""

    def __init__(self, workspace: str, spool: str) -> None:
        clock, search = _LaterClock(), SecretSearch()
        store = ChunkStore(spool)
        store.open()
        self._snapshotter = Snapshotter(
            Scanner(workspace, Selection()),
            LossGuard(workspace, spool),
            ContentReader(workspace, clock, search=search),
            Packer(workspace, store, clock, search=search),
            Packer(workspace, ChunkStore(f"{spool}/part"), clock, search=search),
            clock,
            spool,
            1 << 20,
        )
        self.baseline = Manifest()

    def take(self, changed: set[str] | None = None) -> Figures:
        """Take a snapshot; `changed` names the only directories to scan, None is all."""
        watch = Stopwatch()
        look = self._snapshotter.scan(self.baseline, SyncMode.CHANGED, changed)
        packed = self._snapshotter.pack(look.manifest)
        took = watch.took()
        self.baseline = packed.manifest
        return {**took, "size": packed.archive.size_bytes}


def _first(tree: str, spool: str) -> Figures:
    took = _SnapshotTimer(tree, spool).take()
    return {**took, "memory": memory_bytes("VmHWM")}


def _edits(tree: str, spool: str, times: int, victims: list[str]) -> dict[str, list[Figures]]:
    """Take a first snapshot, then one after each of some edits, found in two ways."""
    timer = _SnapshotTimer(tree, spool)
    found: dict[str, list[Figures]] = {"first": [timer.take()], "scanned": [], "named": []}
    for number in range(times):
        for kind in ("scanned", "named"):
            victim = victims[(7 * number + len(kind)) % len(victims)]
            with open(Path(tree, victim), "a") as file:
                file.write("#\n")
            found[kind].append(timer.take({victim.rpartition("/")[0]} if kind == "named" else None))
    for took in (each for figures in found.values() for each in figures):
        del took["size"]
        took["wall an entry"] = took["wall"] / len(timer.baseline)
    return found


def _rival(bench: Bench, letter: str, name: str) -> Figures:
    """Run a shell command, whose archive goes into a file as syncd's does."""
    out = bench.folder("rival") / "archive.tgz"
    took = shell(_RIVALS[name][0].format(out=out, tree=bench.tree(letter)))
    return {**took, "size": out.stat().st_size}


def packing(bench: Bench) -> None:
    """First snapshot, and its last byte on a slow uplink (computed), against tar with gzip or pigz."""
    bytes_per_s = bench.asked.uplink * 1e6 / 8
    for letter in bench.letters("M", "L"):
        rivals = installed({name: tools for name, (_, tools) in _RIVALS.items()}, f"first snapshot, {letter}")
        ours: list[Figures] = []
        theirs: dict[str, list[Figures]] = {name: [] for name in rivals}
        for _ in bench.rounds():
            took = fresh(_first, str(bench.tree(letter)), str(bench.folder("spool")))
            # Ours is whole before its first byte leaves.
            ours.append({**took, "last byte": took["wall"] + took["size"] / bytes_per_s})
            for name, costs in theirs.items():
                took = _rival(bench, letter, name)
                # A pipe sends while it compresses, so its slower part counts.
                costs.append({**took, "last byte": max(took["wall"], took["size"] / bytes_per_s)})
        show(f"first snapshot, {letter}", ours, theirs)


def editing(bench: Bench) -> None:
    """One-line edit, archive ready: events trusted, and the whole tree scanned, against tar czf of that tree."""
    for letter in bench.letters("S", "M", "L"):
        tree = bench.tree(letter)
        victims = trees.victims(tree)
        ours: dict[str, list[Figures]] = {"named": [], "scanned": []}
        theirs: dict[str, list[Figures]] = {name: [] for name in installed({_GZIP: ("tar",)}, f"one edit, {letter}")}
        for _ in bench.rounds():
            found = fresh(_edits, str(tree), str(bench.folder("spool")), bench.asked.edits, victims)
            for kind, costs in ours.items():
                costs.extend(found[kind])
            for name, costs in theirs.items():
                costs.append(_rival(bench, letter, name))
        for kind, costs in ours.items():
            show(f"one edit, {letter}, {kind}", costs, theirs, _GOALS.get((letter, kind)))


def series(bench: Bench) -> None:
    """Linear cost: microseconds an entry in trees of small files of rising number, against the smallest of them."""
    least: dict[str, dict[str, list[Figures]]] = {}
    for files in sorted(bench.asked.series):
        tree = trees.notes(bench.folder("notes"), files)
        victims = [f"{number // 2500}/{number // 50}/{number}.txt" for number in range(0, files, 41)]
        costs: dict[str, list[Figures]] = {}
        for _ in [0] if files >= _ONE_ROUND else bench.rounds():
            found = fresh(_edits, str(tree), str(bench.folder("spool")), bench.asked.edits, victims)
            for kind, took in found.items():
                costs.setdefault(kind, []).extend({"wall an entry": each["wall an entry"]} for each in took)
        for kind, mine in costs.items():
            show(f"{kind}, {files:,} files", mine, least.get(kind), {"wall an entry": ">= 0.8x" if least else ""})
            least.setdefault(kind, {f"the same, {files:,} files": mine})
        shutil.rmtree(tree)
