"""Faults that never heal: with one in place all else arrives, its cause is named, and nothing spins or grows.

Before the end of its story, a fault is alone for some time. All that it does not concern has to arrive within
`ARRIVES_S`, and what is short has to be named. In the hour after it, the daemon asks for little, seldom wakes up, and
what it holds in memory does not grow.
"""

from __future__ import annotations

import errno
import gc
import os
import re
from random import Random
from types import CodeType, FrameType, FunctionType, ModuleType, TracebackType
from typing import TYPE_CHECKING
from weakref import ReferenceType

from msgspec import Struct

from syncd.model.manifest import Manifest, is_within
from syncd.sandbox.executions import PendingRemoval
from syncd.sync.status_document import State
from tests.fuzz.operations import tree
from tests.fuzz.scenario import Scenario, Step

if TYPE_CHECKING:
    from tests.fuzz.daemon import SimulatedLoop
    from tests.fuzz.simulation import Simulation

# What causes no event is found by the rescan, after ten minutes.
ARRIVES_S, HOUR_S, WAKES_S = 900.0, 3600.0, 600.0
# In an hour: attempts at least 30 s apart, of up to 12 requests.
MOST_REQUESTS = 120 * 12
# Attempts, a rescan, and the end of connections.
MOST_WAKES = 48
# Some 24 waits that each leave a record of two fields would be more.
MOST_MORE = 40
DENIED = "denied"
_ALWAYS_NAMED = "could not be removed|stays? in the sandbox|where it stays"

_WITHOUT_PROGRAMS = ("nobody looks", "executions 404")


class LastingFault(Struct, frozen=True):
    """A fault: lines of `tests.emulator.faults`, or what a `Lasting` of this name does.

    An error or a warning matches `words` while something is short. `before` are steps that make it matter.
    """

    words: str
    lines: tuple[str, ...] = ()
    before: Scenario = []


_NO_PROGRAM = ("execution-upload-url", "execute", "execution-logs")
FAULTS = {
    "executions 404": LastingFault("runs no programs", tuple(f"{op}: 404 always" for op in _NO_PROGRAM)),
    "dump cut": LastingFault("could look", ("dump: cut always",)),
    "nobody looks": LastingFault("nobody could look|execution with 501", ("execute: 501 always", "dump: cut always")),
    "initialize lost": LastingFault("did not answer initialize", ("initialize: lost always",)),
    "denied": LastingFault(
        DENIED, before=[Step("write", (f"a/{DENIED}", 8, 1)), Step("write", (f"b/{DENIED}/f", 8, 2))]
    ),
    "clock ahead": LastingFault(_ALWAYS_NAMED, before=[Step("set_clock", (7200.0,))]),
    "clock behind": LastingFault(_ALWAYS_NAMED, before=[Step("set_clock", (-7200.0,))]),
    "two requests a second": LastingFault("429"),
}


def with_lasting_fault(scenario: Scenario, random: Random) -> Scenario:
    """Return the scenario with a fault that begins in its first half and is there until its end."""
    name = random.choice(list(FAULTS))
    # Where nobody looks, a move waits for the last save, and, once more was put there, a sandbox that was emptied is
    # like one whose agent removed a few.
    if name == "nobody looks":
        scenario = [step for step in scenario if step.name not in ("agent_empties", "move_sandbox")]
    at = random.randrange(1, 2 + len(scenario) // 2)
    begins = [*FAULTS[name].before, Step("lasting", (name,))]
    return [*map(_without_end, scenario[:at]), *begins, *map(_beside, map(_without_end, scenario[at:]))]


def _without_end(step: Step) -> Step:
    """Return a step of the configured sandbox, as an acquired one would end."""
    is_configuration = step.name in ("settings", "reconfigure")
    return Step(step.name, (*step.args[:2], 0, *step.args[3:]), step.at) if is_configuration else step


def _beside(step: Step) -> Step:
    """Return a step that does not wait for an end of failures."""
    return Step("rest", (60.0,)) if step.name == "wait_idle" else step


class Lasting:
    """The lasting fault of one simulation, if it has one; `name` is empty before and after it."""

    def __init__(self, simulation: Simulation) -> None:
        self.name = ""
        self._simulation = simulation
        self._ends_s = 0.0  # the end of the time to arrive, and then of the hour after it
        self._has_arrived = self._has_settled = False
        self._wakes = self._asked = self._objects = 0

    def begin(self, name: str) -> None:
        self.name = name
        self._renew()

    def _renew(self) -> None:
        """Put it in place, once all other faults have ended."""
        emulator = self._simulation.emulator
        emulator.faults.script(*(FAULTS[self.name].lines if self.name else ()))
        emulator.rate_limit = 2 if self.name == "two requests a second" else 0

    def before_open(self, event: str, path: object) -> None:
        """Refuse the daemon a path. Raises `PermissionError`."""
        if self.name == "denied" and event == "open" and path == DENIED and self._simulation._injects:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    def is_short(self, path: str) -> bool:
        """True for a path that need not arrive while this fault is there."""
        return self.name == "denied" and DENIED in path.split("/")

    # -- alone with it

    def pass_time(self, daemon: SimulatedLoop, until_s: float | None) -> None:
        """Let time pass until the daemon wakes up, and check what must hold by then."""
        simulation = self._simulation
        now_s = simulation.clock.monotonic_s()
        self._renew()
        simulation._waits = 0
        if not self._ends_s:
            self._ends_s = now_s + ARRIVES_S
        self._has_arrived = self._has_arrived or not self._missing(daemon)
        is_counted, counted_until_s = self._has_settled, self._ends_s - HOUR_S + WAKES_S
        self._wakes += is_counted and now_s < counted_until_s
        if now_s >= self._ends_s and not daemon._syncing:
            self._check(daemon, now_s)
        times = [until_s, self._ends_s if self._ends_s > now_s else None]
        times += [daemon.daemon.deadline_s()] if is_counted and now_s < counted_until_s else []
        # A daemon that was paused decides anew first.
        wait_s = min(time_s for time_s in times if time_s is not None) - now_s if until_s is not None else 0.0
        if not simulation._read_events():
            simulation.clock.go_on(max(wait_s, 0.001))

    def _missing(self, daemon: SimulatedLoop) -> list[str]:
        if self._has_settled:
            return []
        checker = self._simulation.checker
        chosen = {each for values in checker.settings.history for each in values}
        # Nothing goes where what is there may not be overwritten unseen, or where all of it would go.
        needs_look = checker.wipes_sandboxes or "hold" in chosen
        if (self.name == "nobody looks" and needs_look) or (live := checker.live) is None:
            return []
        wanted, remote = checker.wanted(), tree(live.sandbox.workspace)
        free = {path: entry for path, entry in wanted.items() if live.model.is_free_for(path, entry, remote)}
        # A program finds out that a place is free again, by a sync after that, or a forced push, as its warning says.
        finds_none = self.name in _WITHOUT_PROGRAMS or live.sandbox.holds or live.model.acted_since_sync
        if finds_none and (sandbox := daemon.cycle.sandbox) is not None:
            free = {path: entry for path, entry in free.items() if not is_within(path, sandbox.state.seen.obstacles)}
        return checker.missing(free)  # what the agent made in a path's place may stay there

    def _check(self, daemon: SimulatedLoop, now_s: float) -> None:
        checker, asked = self._simulation.checker, len(self._simulation.emulator.request_log.entries())
        client = daemon.cycle.access.client  # its connections come and go
        objects = count_objects(daemon, (self._simulation, checker, checker.emulator, checker.clock, client))
        beside = f"beside {self.name!r}"
        if not self._has_settled:
            if not self._has_arrived:
                checker.lose(f"{beside}, this does not arrive: {self._missing(daemon)}")
            self._check_named(daemon)
            self._has_settled, self._ends_s = True, now_s + HOUR_S
            self._asked, self._objects = asked, objects
            return
        requests, more = (asked - self._asked) / (now_s - self._ends_s + HOUR_S) * HOUR_S, objects - self._objects
        self._simulation.note(f"{beside}: {requests:.0f} requests an hour, {self._wakes} wake-ups in {WAKES_S:.0f} s")
        if requests > MOST_REQUESTS:
            checker.lose(f"{beside}, there are {requests:.0f} requests an hour")
        if self._wakes > MOST_WAKES:
            checker.lose(f"{beside}, the daemon wakes up {self._wakes} times in {WAKES_S:.0f} s")
        if more > MOST_MORE:
            checker.lose(f"{beside}, {more} more objects are held after an hour")
        self._heal()

    def _check_named(self, daemon: SimulatedLoop) -> None:
        checker, publisher = self._simulation.checker, daemon.publisher
        told = f"{publisher.now.last_error} {' '.join(map(str, publisher.warnings))}"
        name, self.name = self.name, ""
        current = checker.current
        assert current is not None
        wanted, remote = checker.wanted(), tree(current.sandbox.workspace)
        self.name = name
        short = checker.missing(checker._unblocked(wanted))
        if publisher.now.state is State.WATCHING and checker.settings.current.sandbox.deletions == "mirror":
            short += current.model.left_over(wanted, checker._without_held(remote))
        is_at_rest = publisher.now.state in (State.WATCHING, State.DEBOUNCING)  # an event may have come just now
        if (short or not is_at_rest) and not re.search(f"{FAULTS[self.name].words}|{_ALWAYS_NAMED}", told):
            checker.lose(f"beside {self.name!r}, {short} is short, and what is told is {told}")

    def _heal(self) -> None:
        self.name = ""
        self._simulation.emulator.faults.clear()
        self._renew()
        for place in self._simulation.workspace.rglob(DENIED):
            place.chmod(place.stat().st_mode)  # as whoever lets it be read again


def count_objects(top: object, stop: tuple[object, ...]) -> int:
    """Return the number of objects that this one leads to, but for code, and what leads through those of `stop`.

    A manifest counts as one: what two of them share differs by what was scanned last. So does a removal that may still
    run, whatever it removes.
    """
    seen = {id(each) for each in stop}
    left, count = [top], 0
    while left:
        each = left.pop()
        # SQLite's connections keep the last statements, and dead references to cursors, a few hundred at most; a
        # failure that is remembered keeps its traceback.
        is_sqlites = type(each).__module__ == "sqlite3"
        if (
            is_sqlites
            or id(each) in seen
            or isinstance(each, type | ReferenceType | ModuleType | FunctionType | CodeType | FrameType | TracebackType)
        ):
            continue
        seen.add(id(each))
        count += 1
        if not isinstance(each, Manifest | PendingRemoval):
            left += gc.get_referents(each)
    return count
