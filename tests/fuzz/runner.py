"""Runs simulations: patches syncd's parts, gives each scenario a sandbox of one emulator, and reports what was lost.

An audit hook (PEP 578) sees each effect of the loop's thread before it happens: that is an injection point.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import random
import re
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from typing_extensions import override

from syncd.archive import chunk_store, packer
from syncd.core import waiter
from syncd.daemon import build, sandbox_loop
from syncd.model.entry import Stamp
from syncd.report.systemd_notify import SystemdNotifier
from syncd.scan import file_reader
from syncd.sync import sandbox
from syncd.watch import inotify_watch
from tests.emulator import Emulator
from tests.fuzz.checker import SELECTION
from tests.fuzz.clock import MACHINE, ServerClock, SimulatedClock
from tests.fuzz.commands import patch_commands
from tests.fuzz.daemon import (
    SimulatedCycle,
    SimulatedDaemon,
    SimulatedExecutions,
    SimulatedHttpClient,
    SimulatedLoop,
    SimulatedRun,
    SimulatedWaiter,
)
from tests.fuzz.generator import generate
from tests.fuzz.inotify import ManualInotify
from tests.fuzz.operations import tree
from tests.fuzz.scenario import Scenario, Step, render, shrink
from tests.fuzz.simulation import EFFECTS, KEY, Simulation
from tools.conformance.profile import Profile

COARSE_NS = 2_000_000_000
SHRINK_S = 30.0
LIMIT_S = 120.0
_AGAIN_S = 10.0  # what ends a scenario may have been caught by what it ended
Result = tuple[Counter[str], list[str], str]
# Ports and the state folder's name differ; what is told of a damaged dump does, too, by the times of files in it.
_OF_THIS_RUN = re.compile(
    r"127\.0\.0\.1:\d+|(?<=workspace-)[0-9a-f]{12}|the archive is not (?:valid gzip|a valid tar file)[^)]*"
)

_MAIN_THREAD = threading.get_ident()
_running: list[Simulation] = []
_hooked: list[bool] = []


def running_simulation() -> Simulation:
    """Return the simulation that runs now."""
    return _running[-1]


def digest(course: Sequence[str]) -> str:
    """Return twelve digits that two equal courses share."""
    return hashlib.sha256("\n".join(course).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def run(folder: Path, scenario: Sequence[Step], figures: Counter[str], profile: Profile | None = None) -> Simulation:
    """Run the scenario in `folder`, which must be new and is removed, and return the simulation."""
    clock = SimulatedClock()
    folder.mkdir()
    with Emulator(folder / "emulator", api_key=KEY, clock=ServerClock(clock), profile=profile) as emulator:
        simulation = Simulation(emulator, clock, folder, scenario, figures)
        simulation.checker.wipes_sandboxes = emulator.profile.initialize == "replaces"
        faults = emulator.faults
        faults.on("acquire", "after", lambda _: simulation.checker.note_acquire())
        faults.on("dump", "before", lambda _: simulation.checker.note_dump())
        # A program runs in the machine's time: in scripted time it has ended by then, unless it is held.
        faults.on("any", "before", lambda _: simulation.checker.wait_for_executions())
        with _patched(simulation):
            simulation.run()
            simulation.operations.close_all()
        simulation.course = _course(simulation)
    figures["scenarios"] += 1
    shutil.rmtree(folder)
    return simulation


def report(folder: Path, seed: int, simulation: Simulation) -> str:
    """Return the shortest scenario that still fails, with the daemon's log and what was lost."""
    ends_s = MACHINE.monotonic_s() + SHRINK_S
    worst, kind = simulation, _kind_of(simulation)

    def fails(candidate: Scenario) -> bool:
        nonlocal worst
        tried = run(folder / "shorter", candidate, Counter())
        is_same = bool(tried.lost) and _kind_of(tried) == kind
        if is_same:
            worst = tried
        return is_same

    shortest = shrink(generate(seed), fails, lambda: MACHINE.monotonic_s() < ends_s)
    lines = [f"seed {seed} (python -m tests.fuzz --seed {seed} --schedules 1):", render(shortest), ""]
    return "\n".join([*lines, *worst.log[-60:], "", *worst.lost[:5]])


def _kind_of(simulation: Simulation) -> str:
    """Return the first words on what was lost, without names: shrinking must not go over to another defect."""
    return re.sub(r"'(\\.|[^'])*'|\d+", "", simulation.lost[0])[:40]


def run_seed(asked: tuple[str, int]) -> Result:
    """Run this seed's scenario below that folder; return figures, a report of what was lost, the course's digest."""
    place, seed = asked
    figures: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=place) as name:
        try:
            simulation = run(Path(name) / "scenario", generate(seed), figures)
            if not simulation.lost:
                return figures, [], digest(simulation.course)
            figures["losses"] += 1
            return figures, [report(Path(name), seed, simulation)], digest(simulation.course)
        except Exception:  # an error of the emulator or of a check ends this scenario, and no other
            figures["losses"] += 1
            return figures, [f"seed {seed}:\n{traceback.format_exc()}"], ""


class TooLong(BaseException):
    """The scenario takes longer than `LIMIT_S`, or the run is ended."""


def begin_process() -> None:
    """Let SIGALRM alone end a scenario of this process; no handler is inherited by what it runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGALRM, _end)


def _end(*_: object) -> None:
    raise TooLong


def limited(run_one: Callable[[tuple[str, int]], Result], asked: tuple[str, int]) -> Result:
    """Run one scenario, which fails if it takes too long."""
    try:
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S, _AGAIN_S)
        try:
            return run_one(asked)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except TooLong:
        return Counter(losses=1), [f"seed {asked[1]} was ended:\n{traceback.format_exc()}"], ""


class _SimulationLog(logging.Handler):
    """Adds the daemon's log to the simulation's, in scripted time."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__()
        self._simulation = simulation

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._simulation.log.append(f"{self._simulation.clock.monotonic_s():9.2f}  {record.getMessage()}")


def _course(simulation: Simulation) -> list[str]:
    """Return all that happened, and what was there at the end, without what differs in each process."""
    emulator = simulation.emulator
    requests = [f"{each.started_at:.3f} {each.method} {each.path} {each.status}" for each in emulator.request_log]
    trees = [simulation.workspace, *(sandbox.workspace for sandbox in emulator.sandboxes())]
    states = [repr(sorted(tree(top).items())) for top in trees]
    lines = [*simulation.log, *requests, *states, *simulation.lost]
    return [_OF_THIS_RUN.sub("", line.replace(str(simulation.folder), "")) for line in lines]


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _running or (simulation := _running[-1]).is_serving:
        return
    if simulation.commands.effect(event, args) or event not in EFFECTS or threading.get_ident() != _MAIN_THREAD:
        return
    if simulation.is_own(args):
        simulation.injection_point()
        simulation.lasting.before_open(event, args[0])


def _seed(patch: pytest.MonkeyPatch, seed: str) -> None:
    """Let all that is random follow from the seed; names from another source than waits, as threads make some."""
    patch.setattr(random, "random", Random(seed).random)
    names = Random(seed)
    patch.setattr(secrets, "token_hex", lambda size: names.randbytes(size).hex())
    patch.setattr(os, "urandom", names.randbytes)


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

    def mtime_s(status: os.stat_result) -> int:
        return simulation.clock.wall_at_ns(status.st_mtime_ns) // 1_000_000_000

    logger = logging.getLogger("syncd")
    before = logger.level, logger.propagate
    handler = _SimulationLog(simulation)
    with pytest.MonkeyPatch.context() as patch:
        for module in [module for name, module in sys.modules.items() if name.startswith("syncd.")]:
            if hasattr(module, "stamp_of"):
                patch.setattr(module, "stamp_of", stamp_of)
            if hasattr(module, "mtime_s"):
                patch.setattr(module, "mtime_s", mtime_s)
        _seed(patch, render(simulation.scenario))
        patch.setattr(inotify_watch, "Inotify", ManualInotify)
        # Events are read, and progress is told, at steps of the work and not after so many seconds of the machine.
        patch.setattr(waiter, "POLL_EVERY_S", 0.0)
        doing = waiter.Waiter.doing
        patch.setattr(waiter.Waiter, "doing", lambda self, work, report=None: doing(self, work))
        patch.setattr(os, "fsync", lambda descriptor: None)  # slow, and no power is cut here
        # Files of a few KB are cut into chunks and read in pieces, as those of a few MB are.
        patch.setattr(chunk_store, "TARGET_BYTES", 1024)
        patch.setattr(chunk_store, "LARGEST_CHUNK_BYTES", 8192)
        for module in (file_reader, packer):
            patch.setattr(module, "PIECE_BYTES", 4096)
        patch.setattr(build, "selection_of", lambda config, environ: SELECTION)
        patch.setattr(build, "personal_excludes", lambda environ: "")
        for name, simulated in (
            ("SandboxLoop", SimulatedLoop),
            ("HttpClient", SimulatedHttpClient),
            ("Waiter", SimulatedWaiter),
        ):
            patch.setattr(build, name, partial(simulated, simulation))
        patch.setattr(build, "Daemon", SimulatedDaemon)
        # Between any two steps of a scan or of packing.
        patch.setattr(SystemdNotifier, "ping", lambda notifier: simulation.injection_point())
        patch.setattr(sandbox_loop, "SyncCycle", partial(SimulatedCycle, simulation))
        patch.setattr(sandbox_loop, "SyncRun", partial(SimulatedRun, simulation=simulation))
        patch.setattr(sandbox, "Executions", partial(SimulatedExecutions, simulation))
        if simulation.comes_home:
            patch_commands(patch, simulation, KEY)
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
