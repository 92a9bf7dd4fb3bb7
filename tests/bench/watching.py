"""Watching many directories, and a burst of changes in a few, against inotifywait."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection
from syncd.watch import inotify_watch
from syncd.watch.changes import ScanListener
from syncd.watch.inotify_watch import InotifyWatch
from tests.bench import inotifywait, storm, trees
from tests.bench.fixtures import Fixtures, lacks
from tests.bench.stopwatch import CLOCK, REPO, Stopwatch, fresh, process_cpu_s, status_kib
from tests.bench.table import Row, Skipped, alone, compared, mebibytes, number, seconds

IGNORED = "node_modules"
FOLDERS = 200
DEADLINE_S = 60.0
_KIB = 1024


class WatchCost(NamedTuple):
    """The cost of watching a tree: wall seconds, further resident bytes, and warnings of what got no watch."""

    wall_s: float
    grown_bytes: float
    unwatched: int


class BurstCost(NamedTuple):
    """The cost of a burst: CPU seconds, peak and further resident bytes, and the batches of changes."""

    cpu_s: float
    peak_bytes: float
    grown_bytes: float
    batches: int
    lost: str


def watched(tree: str) -> WatchCost:
    """Measure the first scan, each directory watched before it is listed, as the daemon starts."""
    before = status_kib("VmRSS")
    clock = Stopwatch()
    watch = InotifyWatch(tree, CLOCK)
    watch.open()
    try:
        scanner = Scanner(tree, Selection(), watch)
        scanner.scan()
        took = clock.took()
        return WatchCost(took.wall_s, (status_kib("VmRSS") - before) * _KIB, len(watch.warnings()))
    finally:
        watch.close()


def unwatched(tree: str) -> WatchCost:
    """Measure the same scan without watches."""
    before = status_kib("VmRSS")
    clock = Stopwatch()
    scanner = Scanner(tree, Selection(), ScanListener())
    scanner.scan()
    took = clock.took()
    return WatchCost(took.wall_s, (status_kib("VmRSS") - before) * _KIB, 0)


def received(tree: str, events: int) -> BurstCost:
    """Measure the watch under a burst, with a loop that takes the changes whenever the descriptor is ready."""
    watch = InotifyWatch(tree, CLOCK)
    watch.open()
    try:
        Scanner(tree, Selection(), watch).scan()
        watch.take()
        resident = status_kib("VmRSS")
        clock = Stopwatch()
        batches, lost = 0, False
        with _storm(tree, events) as writer:
            marked = False
            while not marked and clock.took().wall_s < DEADLINE_S:
                paused = watch.paused_until_s
                wait_s = DEADLINE_S if paused is None else max(0.0, paused - CLOCK.monotonic_s())
                select.select(watch.filenos(), [], [], wait_s)
                changes = watch.take()
                batches += bool(changes)
                lost = lost or changes.rescan
                # After an overflow the mark itself may be among what is lost.
                marked = storm.MARK in changes.dirty or (lost and writer.poll() is not None)
        took = clock.took()
        peak = status_kib("VmHWM")
        worst = "the last event never came" if not marked else "a rescan is needed" if lost else "nothing lost"
        return BurstCost(took.cpu_s, peak * _KIB, (peak - resident) * _KIB, batches, worst)
    finally:
        watch.close()


def _storm(tree: str, events: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen((sys.executable, "-m", storm.__name__, tree, str(events)), cwd=REPO)


def _established(tree: Path, without: tuple[Path, ...]) -> WatchCost:
    started_s = CLOCK.monotonic_s()
    with inotifywait.watching(tree, without) as process:
        return WatchCost(CLOCK.monotonic_s() - started_s, status_kib("VmRSS", process.pid) * _KIB, 0)


def _told(tree: Path, events: int) -> BurstCost:
    """Measure inotifywait under the same burst, with a line an event into a pipe that is read at once."""
    with inotifywait.watching(tree) as process:
        assert process.stdout is not None
        resident, cpu_s = status_kib("VmRSS", process.pid), process_cpu_s(process.pid)
        lines, tail, mark = 0, b"", f"{tree}/{storm.MARK}/ CREATE".encode()
        with _storm(str(tree), events):
            while mark not in tail:
                if not select.select([process.stdout], [], [], DEADLINE_S)[0]:
                    break
                said = os.read(process.stdout.fileno(), 1 << 20)
                lines += said.count(b"\n")
                tail = (tail + said)[-4 * len(said) - 4096 :]
        peak = status_kib("VmHWM", process.pid)
        used_s = process_cpu_s(process.pid) - cpu_s
        return BurstCost(used_s, peak * _KIB, (peak - resident) * _KIB, lines, "")


def rows(fixtures: Fixtures) -> Iterator[Row | Skipped]:
    """Watching: time and memory until all directories are watched, ignored ones beside; CPU and memory of a burst."""
    yield from _many(fixtures)
    yield from _burst(fixtures)


def _many(fixtures: Fixtures) -> Iterator[Row | Skipped]:
    limit, _ = inotify_watch.watch_limit()
    many = fixtures.sizes.directories if limit is None else min(fixtures.sizes.directories, limit * 9 // 10)
    if limit is not None and many < fixtures.sizes.directories:
        yield Skipped(
            f"watch {fixtures.sizes.directories:,} directories", f"the system allows {limit:,}; {many:,} it is"
        )
    tree = trees.directories(fixtures.folder("many"), many)
    yield from _established_rows(fixtures, f"watch {many:,} directories", tree, ())
    (tree / ".gitignore").write_text(f"{IGNORED}/\n")
    trees.directories(tree / IGNORED, many)
    yield from _established_rows(fixtures, f"... {many:,} ignored beside", tree, (tree / IGNORED,))
    shutil.rmtree(tree)


def _established_rows(fixtures: Fixtures, title: str, tree: Path, without: tuple[Path, ...]) -> Iterator[Row | Skipped]:
    ours: list[WatchCost] = []
    bare: list[WatchCost] = []
    rival: list[WatchCost] = []
    missing = lacks("inotifywait")
    for _ in range(fixtures.sizes.rounds):
        ours.append(fresh(watched, str(tree)))
        bare.append(fresh(unwatched, str(tree)))
        if not missing:
            rival.append(_established(tree, without))
    name = f"{inotifywait.NAME}{' @ignored' if without else ''}"
    extra = [max(0.0, with_.wall_s - plain.wall_s) for with_, plain in zip(ours, bare, strict=True)]
    memory = [with_.grown_bytes - plain.grown_bytes for with_, plain in zip(ours, bare, strict=True)]
    if missing:
        yield Skipped(title, missing)
        yield alone(f"{title}: wall, scan too", [each.wall_s for each in ours])
        yield alone(f"{title}: memory", memory, unit=mebibytes)
        return
    theirs = [each.wall_s for each in rival]
    yield compared(f"{title}: wall, scan too", name, [each.wall_s for each in ours], theirs)
    yield compared(f"{title}: wall of the watch", name, extra, theirs)
    yield compared(f"{title}: memory", name, memory, [each.grown_bytes for each in rival], unit=mebibytes)
    if any(each.unwatched for each in ours):
        yield Skipped(title, "some of them got no watch: others use up the user's limit")


def _burst(fixtures: Fixtures) -> Iterator[Row | Skipped]:
    title = f"burst of {fixtures.sizes.events:,} events"
    ours: list[BurstCost] = []
    rival: list[BurstCost] = []
    for _ in range(fixtures.sizes.rounds):
        ours.append(fresh(received, str(_field(fixtures)), fixtures.sizes.events))
        if not lacks("inotifywait"):
            rival.append(_told(_field(fixtures), fixtures.sizes.events))
    for name, unit, what in (("CPU", seconds, "cpu_s"), ("peak memory", mebibytes, "peak_bytes")):
        mine = [getattr(each, what) for each in ours]
        if rival:
            theirs = [getattr(each, what) for each in rival]
            yield compared(f"{title}: {name}", "inotifywait -m -r", mine, theirs, unit=unit)
        else:
            yield alone(f"{title}: {name}", mine, unit=unit)
    yield alone(f"{title}: memory grown by", [each.grown_bytes for each in ours], unit=mebibytes)
    yield alone(f"{title}: batches", [each.batches for each in ours], unit=number)
    worst = ", ".join(sorted({each.lost for each in ours}))
    lines = min((each.batches for each in rival), default=0)
    yield Row(f"{title}: lost", "inotifywait -m -r, lines", worst, number(lines) if rival else "")


def _field(fixtures: Fixtures) -> Path:
    tree = fixtures.folder("field")
    for name in (*map(str, range(FOLDERS)), storm.MARK):
        (tree / name).mkdir()
    return tree
