"""The real daemon with its parts replaced where a simulation acts: at waits, requests, and steps of a sync."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from math import inf
from typing import Any

from greenlet import getcurrent
from typing_extensions import override

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import NearlyEmpty, SyncdError
from syncd.core.waiter import Superseded, Waiter
from syncd.daemon.loop import Daemon
from syncd.daemon.sandbox_loop import SandboxLoop
from syncd.daemon.scheduler import Wait
from syncd.daemon.sync_run import SyncRun
from syncd.remote.failure import FailureAction, StepFailed
from syncd.report.status_publisher import StatusPublisher, SyncFailure
from syncd.sandbox.executions import Executions, Purpose
from syncd.sync.delivery import SyncObserver
from syncd.sync.outcome import Outcome
from syncd.sync.status_document import Progress, State
from syncd.sync.sync_cycle import SyncCycle
from syncd.sync.workspace import Writer
from tests.fuzz.simulation import Simulation
from tests.fuzz.wire import SimulatedClient

_PIECES = 4


class SimulatedHttpClient(SimulatedClient):
    """A client with an injection point before and after each request, and in its body."""

    @override
    def at(self, op: str, when: str, status: int = 0) -> None:
        simulation = self.simulation
        if when == "before":
            simulation.injection_point()
        simulation.at_request(op, when)
        if status == 404 and op in ("upload-url", "initialize"):
            simulation.checker.note_not_found()
        if when == "after":
            simulation.injection_point()

    @override
    def pieces(self, body: bytes) -> Iterator[bytes]:
        """Yield as many pieces of any body, however large it is."""
        for number in range(_PIECES):
            self.simulation.injection_point()
            yield body[len(body) * number // _PIECES : len(body) * (number + 1) // _PIECES]


class SimulatedExecutions(Executions):
    """The real executions, which note the requests to start one that may still arrive late."""

    def __init__(self, simulation: Simulation, *args: Any) -> None:
        super().__init__(*args)
        self._simulation = simulation

    @override
    def execute(self, purpose: Purpose, name: str) -> None:
        self._simulation.figures["executions"] += 1
        try:
            super().execute(purpose, name)
        except StepFailed as failure:
            live = self._simulation.checker.live
            arrived = live is not None and live.sandbox.execution(name) is not None
            if failure.action is not FailureAction.REFUSED and not arrived:
                self._simulation.unanswered_jobs.append(name)
            raise


class SimulatedCycle(SyncCycle):
    """The real cycle, which notes unexpected errors."""

    def __init__(self, simulation: Simulation, *args: Any) -> None:
        super().__init__(*args)
        self.simulation = simulation

    @override
    def run(self, sync_mode: SyncMode, observer: SyncObserver) -> Outcome:
        simulation = self.simulation
        checker = simulation.checker
        baseline, sandbox_id = self.content.base, self.target.sandbox_id if self.target else ""
        checker.is_forced = sync_mode is SyncMode.FORCED
        if checker.is_forced:
            simulation.workspace_replaced = False  # a person said that it is the workspace, even if this sync dies

        try:
            outcome = super().run(sync_mode, observer)
        except (SyncdError, StepFailed, Superseded, OSError):
            simulation.figures["failed syncs"] += 1
            raise
        except Exception as error:
            checker.lose(f"internal error: {''.join(traceback.format_exception(error))}")
            raise
        is_same = self.target is not None and self.target.sandbox_id == sandbox_id  # a new sandbox had nothing to lose
        is_unforced = sync_mode is not SyncMode.FORCED
        if simulation.workspace_replaced and is_unforced and baseline and is_same and not checker.state_damaged:
            checker.check_replaced(baseline)
        simulation.workspace_replaced = False
        checker.sandbox_id = self.target.sandbox_id if self.target is not None else checker.sandbox_id
        if sandbox_id != checker.sandbox_id and not checker.state_damaged:
            checker.note_left(sandbox_id)
        checker.note_arrived()
        return outcome


class SimulatedWaiter(Waiter):
    """The real waiter of a sandbox; while its loop would wait for an event, the simulation goes on."""

    def __init__(self, simulation: Simulation, *args: Any) -> None:
        super().__init__(*args)
        self._simulation = simulation

    @override
    def wait(self, until_s: float) -> None:
        loop = self._simulation.daemon
        assert loop is not None
        with self._simulation.injection(enabled=False):
            self._simulation.wait(loop, until_s if until_s < inf else None)
        self.interrupt.check()
        loop.daemon.handle(set())


class SimulatedRun(SyncRun, kw_only=True):
    """The real observer of a sync, with injection points."""

    simulation: Simulation

    @override
    def to_scan(self) -> frozenset[str] | None:
        only = super().to_scan()
        self.simulation.figures["full scans" if only is None else "partial scans"] += 1
        return only

    @override
    def stage(self, state: State) -> None:
        self.simulation.injection_point()
        super().stage(state)

    @override
    def progressed(self, progress: Progress) -> None:
        if progress.is_upload:
            self.simulation.injection_point()
        super().progressed(progress)
        if progress.is_upload and self.simulation.daemon is not None:
            self.simulation.daemon.daemon.handle(set())


class SimulatedDaemon(Daemon):
    """The real daemon of one sandbox."""

    def __post_init__(self) -> None:
        self.loop.daemon = self

    @property
    def loop(self) -> SimulatedLoop:
        (loop,) = self.loops
        assert isinstance(loop, SimulatedLoop)
        return loop

    def pause_or_resume(self, command: str) -> None:
        self._pause_or_resume(_NullClient(), command)  # type: ignore[arg-type]


class SimulatedLoop(SandboxLoop):
    """The real loop, of which the simulation asks what it is about."""

    daemon: SimulatedDaemon

    def __init__(self, simulation: Simulation, *args: Any, **parts: Any) -> None:
        super().__init__(*args, **parts)
        self._simulation = simulation
        self._syncing = False
        self.is_resting = False

    @override
    def follow(self) -> None:
        """The story says when it looks at what the agent made."""

    @override
    def set_up(self) -> None:
        """No story sets a sandbox up."""

    @property
    def waits(self) -> bool:
        """True within a wait: what is called there waits for nothing."""
        return getcurrent() in self._waiter.tasks._waits

    @property
    def has_nothing_due(self) -> bool:
        """True if nothing is done next but to wait."""
        return isinstance(self.agenda.next_action(), Wait)

    @property
    def publisher(self) -> StatusPublisher:
        return self.reporter.publisher

    def let_write_later(self, client: Any) -> None:
        """Note a command that waits until no sync is under way."""
        self._shared.workspace.writers.append(Writer("", lambda: client.waits, client.send))

    @override
    def _rest(self, wait: Wait) -> None:
        self.is_resting = True
        try:
            super()._rest(wait)
        finally:
            self.is_resting = False

    @override
    def _sync(self, reason: Any) -> None:
        self._syncing = True
        self._simulation.checker.note_sync()
        with self._simulation.injection(enabled=True):
            super()._sync(reason)
        self._syncing = False

    @override
    def _follow_in_repository(self) -> None:
        with nullcontext() if self._syncing else self._simulation.injection(enabled=True):
            super()._follow_in_repository()

    @override
    def _succeeded(self, outcome: Outcome) -> None:
        self._simulation.checker.sandbox_id = self.sandbox_id
        super()._succeeded(outcome)

    @override
    def _answer(self, outcome: Outcome) -> None:
        with self._simulation.injection(enabled=False):  # a check reads the workspace as it is now
            super()._answer(outcome)

    @override
    def _failed(self, failed: SyncFailure, began_s: float) -> None:
        self._simulation.nearly_empty = isinstance(failed.error, NearlyEmpty)
        super()._failed(failed, began_s)

    @property
    def is_syncing(self) -> bool:
        return self.cycle.name in self._shared.workspace.syncing

    @property
    def is_idle(self) -> bool:
        due = self.agenda.due
        return not (self._syncing or due.burst or self.agenda.requests.has_fresh or due.retry is not None)

    @property
    def is_followed(self) -> bool:
        """True if the repository in the sandbox is not to follow any more."""
        return self.agenda.due.follow_at_s == inf

    @property
    def is_failing(self) -> bool:
        """True if it waits to retry after a failure."""
        return self._syncing or (self.agenda.due.retry is not None and not self.is_held)

    @property
    def is_held(self) -> bool:
        return self.agenda.due.is_held

    @property
    def is_paused(self) -> bool:
        return self._shared.paused

    @property
    def sandbox_id(self) -> str:
        """The sandbox that it syncs to, or synced to last."""
        target = self.cycle.target
        return target.sandbox_id if target else ""

    @property
    def warns_of_deletions(self) -> bool:
        """True if it reports that something could not be removed."""
        return any(warning.key.startswith("delete") for warning in self.cycle.warnings)

    @property
    def polls(self) -> bool:
        """True if it must poll, as the watch does not cover everything."""
        return self._shared.watch.needs_polling


class _NullClient:
    """A client that ignores its answer."""

    def send(self, message: Any) -> None: ...

    def done(self, *_: Any, **__: Any) -> None: ...
