"""Runs simulations: patches syncd's parts, gives each scenario a sandbox of one emulator, and reports what was lost.

An audit hook (PEP 578) sees each effect of the loop's thread before it happens: that is an injection point.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from syncd.archive import chunking, packer
from syncd.daemon import build
from syncd.emulator import Emulator, RequestRecord
from syncd.scan import file_reader
from syncd.scan.entry import Stamp
from syncd.sync import sandbox_factory
from syncd.watch import inotify_watch
from tests.fuzz.checker import SELECTION
from tests.fuzz.clock import MACHINE, ServerClock, SimulatedClock
from tests.fuzz.configured_generator import generate
from tests.fuzz.daemon import (
    SimulatedCycle,
    SimulatedDaemon,
    SimulatedHttpClient,
    SimulatedJobRunner,
    SimulatedNotifier,
)
from tests.fuzz.inotify import ManualInotify
from tests.fuzz.scenario import Scenario, Step, render, shrink
from tests.fuzz.simulation import KEY, Simulation

EFFECTS = frozenset({"open", "os.rename", "os.remove", "os.scandir", "os.listdir", "os.mkdir", "os.rmdir"})
COARSE_NS = 2_000_000_000
SHRINK_S = 30.0

_MAIN_THREAD = threading.get_ident()
_running: list[Simulation] = []
_hooked: list[bool] = []


class SharedEmulator:
    """One emulator for many simulations; each has a sandbox of its own."""

    def __init__(self, folder: Path) -> None:
        self.clock = SimulatedClock()
        self.emulator = Emulator(folder, api_key=KEY, clock=ServerClock(lambda: self.clock))
        self.used = 0
        faults = self.emulator.faults
        faults.on("acquire", "after", lambda _: _running[-1].checker.note_acquire())
        faults.on("initialize", "before", _note_initialize)
        faults.on("dump", "before", lambda _: _running[-1].checker.note_dump())
        faults.on("upload", "before", lambda _: _running[-1].checker.note_upload())
        for op in ("execution-logs", "execution-status"):
            # A program runs in the machine's time: in scripted time it has ended by then, unless it is held.
            faults.on(op, "before", lambda _: _running[-1].checker.wait_for_executions())

    def __enter__(self) -> Self:
        self.emulator.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.emulator.close()

    def simulation(self, folder: Path, scenario: Sequence[Step], figures: Counter[str]) -> Simulation:
        """Return a simulation that is not run yet, with a sandbox and a clock of its own."""
        self.used += 1
        self.clock = SimulatedClock()
        return Simulation(self.emulator, self.clock, folder, scenario, figures, sandbox_id=f"box{self.used}")


def running_simulation() -> Simulation:
    """Return the simulation that runs now."""
    return _running[-1]


def run(shared: SharedEmulator, folder: Path, scenario: Sequence[Step], figures: Counter[str]) -> Simulation:
    """Run the scenario in `folder`, which must be new and is removed, and return the simulation."""
    simulation = shared.simulation(folder, scenario, figures)
    with _patched(simulation):
        simulation.run()
        simulation.operations.close_all()
        for tracked in simulation.checker.sandboxes.values():
            tracked.sandbox.record.expires_at_s = 0.0
        shared.emulator.sandboxes()  # removes the expired ones
    shared.emulator.faults.clear()
    figures["scenarios"] += 1
    shutil.rmtree(folder)
    return simulation


def report(shared: SharedEmulator, folder: Path, seed: int, simulation: Simulation) -> str:
    """Return the shortest scenario that still fails, with the daemon's log and what was lost."""
    ends_s = MACHINE.monotonic_s() + SHRINK_S
    worst = simulation

    def fails(candidate: Scenario) -> bool:
        nonlocal worst
        tried = run(shared, folder / f"shorter{shared.used}", candidate, Counter())
        if tried.lost:
            worst = tried
        return bool(tried.lost)

    shortest = shrink(generate(seed), fails, lambda: MACHINE.monotonic_s() < ends_s)
    lines = [f"seed {seed} (python -m tests.fuzz --seed {seed} --schedules 1):", render(shortest), ""]
    return "\n".join([*lines, *worst.log[-60:], "", *worst.lost[:5]])


def run_batch(batch: tuple[str | None, Sequence[int]]) -> tuple[Counter[str], list[str]]:
    """Run the scenarios of these seeds below that folder, and return the figures and a report of each loss."""
    place, seeds = batch
    figures: Counter[str] = Counter()
    reports = []
    with (
        tempfile.TemporaryDirectory(dir=place, prefix="scenarios-") as name,
        SharedEmulator(Path(name) / "emulator") as shared,
    ):
        for seed in seeds:
            simulation = run(shared, Path(name) / str(seed), generate(seed), figures)
            if simulation.lost:
                figures["losses"] += 1
                reports.append(report(shared, Path(name), seed, simulation))
    return figures, reports


class _SimulationLog(logging.Handler):
    """Adds the daemon's log to the simulation's, in scripted time."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__()
        self._simulation = simulation

    def emit(self, record: logging.LogRecord) -> None:
        self._simulation.log.append(f"{self._simulation.clock.monotonic_s():9.2f}  {record.getMessage()}")


def _note_initialize(entry: RequestRecord) -> None:
    _running[-1].checker.note_initialize(entry)


def _audit(event: str, args: object) -> None:
    if _running and event in EFFECTS and threading.get_ident() == _MAIN_THREAD:
        _running[-1].injection_point()


@contextlib.contextmanager
def _patched(simulation: Simulation) -> Iterator[None]:
    """Put the simulation's time, reader and injection points in the place of the machine's."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_audit)  # cannot be removed, so there is only one

    def stamp_of(status: os.stat_result) -> Stamp:
        mtime_ns, ctime_ns = map(simulation.clock.wall_at_ns, (status.st_mtime_ns, status.st_ctime_ns))
        if simulation.coarse_times:
            mtime_ns, ctime_ns = mtime_ns // COARSE_NS * COARSE_NS, ctime_ns // COARSE_NS * COARSE_NS
        return Stamp(mtime_ns, ctime_ns, status.st_ino, status.st_dev)

    def mark(status: os.stat_result) -> tuple[int, int, int, int]:
        stamp = stamp_of(status)
        return status.st_size, stamp.mtime_ns, stamp.ctime_ns, status.st_mode

    logger = logging.getLogger("syncd")
    before = logger.level, logger.propagate
    handler = _SimulationLog(simulation)
    with pytest.MonkeyPatch.context() as patch:
        for module in [module for name, module in sys.modules.items() if name.startswith("syncd.")]:
            if hasattr(module, "stamp_of"):
                patch.setattr(module, "stamp_of", stamp_of)
        patch.setattr(file_reader, "_file_state", mark)
        patch.setattr(inotify_watch, "Inotify", ManualInotify)
        patch.setattr(os, "fsync", lambda descriptor: None)  # slow, and no power is cut here
        # Files of a few KB are cut into chunks and read in pieces, as those of a few MB are.
        patch.setattr(chunking, "TARGET_BYTES", 1024)
        patch.setattr(chunking, "LARGEST_BYTES", 8192)
        for module in (file_reader, packer):
            patch.setattr(module, "PIECE_BYTES", 4096)
        patch.setattr(build, "selection_of", lambda config: SELECTION)
        patch.setattr(build, "personal_excludes", lambda environ: "")
        for name, simulated in (
            ("Daemon", SimulatedDaemon),
            ("SyncCycle", SimulatedCycle),
            ("HttpClient", SimulatedHttpClient),
            ("SystemdNotifier", SimulatedNotifier),
        ):
            patch.setattr(build, name, partial(simulated, simulation))
        patch.setattr(sandbox_factory, "JobRunner", partial(SimulatedJobRunner, simulation))
        ManualInotify.newest = None
        _running.append(simulation)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.level, logger.propagate = before
            _running.pop()
