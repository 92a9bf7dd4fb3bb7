"""Sets one sandbox up when that is due, and as a command asks: `sandbox.setup`.

It is a task of its own beside the loop of the sandbox, so that it delays no sync. What is due is decided, and run, in
`syncd.sandbox.setup`; this says when, and answers the commands that wait for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import Any

from msgspec import Struct

from syncd.core.choices import SetupState
from syncd.core.errors import ExitCode, SyncdError, TryLater
from syncd.core.waiter import Superseded, Work
from syncd.daemon.control import Message
from syncd.daemon.sync_requests import Asker
from syncd.remote.failure import StepFailed, backoff_limit_s
from syncd.report.status_publisher import sync_failure
from syncd.sandbox.setup import SandboxSetup, SetupEnd, SetupRun, shown_command
from syncd.sync.sandbox import Access, Sandbox
from syncd.sync.sync_cycle import SyncCycle

_log = logging.getLogger("syncd.setup")
NO_SETUP = 'there is no set-up to run: set sandbox.setup, such as ["npm", "ci"], and run `syncd reload`'
_NOT_SENT = TryLater("nothing is in the sandbox yet", "run `syncd push` first")
# After a run that could not be started.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 15.0, 900.0


class SetupTask:
    """Sets the sandbox of a cycle up: the loop of the sandbox asks when, and has it done."""

    def __init__(self, access: Access, cycle: SyncCycle) -> None:
        """`access` has connections of its own, whose waits are those of the task that sets up."""
        self.waiter = access.waiter
        self._access = access
        self._cycle = cycle
        self._clock = access.clock
        self._running: Sandbox | None = None
        self._is_wanted = False  # it is due, after a sync of this process
        self._not_before_s = -inf
        self._failures = 0
        self._askers: list[Asker] = []  # for a run, and its output
        self._awaiting: list[_AfterSetup] = []  # the end of all that is due

    @property
    def due_s(self) -> float:
        """The monotonic second at which it is to be run; infinity if it is not."""
        return -inf if self._askers else self._not_before_s if self._is_wanted else inf

    @property
    def is_outdated(self) -> bool:
        """True if the run under way is in another sandbox than the one that is synced to by now."""
        return self._running is not None and self._running is not self._cycle.sandbox

    # -- what the loop tells

    def synced(self) -> None:
        """A sync arrived, or nothing had to be sent."""
        sandbox = self._cycle.sandbox
        self._is_wanted = sandbox is not None and sandbox.setup.is_due
        if self._running is None and not self._is_wanted:
            self._answer_all()
        self.waiter.tasks.wake()

    def ask(self, client: Asker) -> None:
        """Have it run once more, or as soon as a run under way has ended, and show it to this client."""
        sandbox = self._cycle.sandbox
        if sandbox is None or sandbox.state.base is None:
            client.done(ExitCode.TRY_LATER, str(_NOT_SENT))
            return
        if self._running is not None:
            client.send(_doing("waiting for the set-up that is running"))
        self._askers.append(client)
        self.waiter.tasks.wake()

    def before_answering(self, client: Asker) -> Asker:
        """Return the client as one whose success is answered once the set-up that is due by then has ended."""
        return _AfterSetup(client, self._answer)

    def _answer(self, awaiting: _AfterSetup) -> None:
        if self._running is None and not self._is_wanted:
            self._tell_end(awaiting)
            return
        self._not_before_s = -inf
        self._awaiting.append(awaiting)
        sandbox = self._cycle.sandbox
        if sandbox is not None:
            awaiting.client.send(_doing(f"setting up: {shown_command(sandbox.setup.command)}"))

    # -- one run

    def begin(self) -> bool:
        """Begin what is due, for `carry_out`; false if there is no sandbox that it could be run in any more."""
        sandbox, self._is_wanted = self._cycle.sandbox, False
        if sandbox is None or sandbox.state.base is None:  # it moved meanwhile
            askers, self._askers = self._askers, []
            for client in askers:
                client.done(ExitCode.TRY_LATER, str(_NOT_SENT))
            return False
        self._running = sandbox
        sandbox.setup.begin(self._clock.wall_s())
        _log.info("setting up: %s", shown_command(sandbox.setup.command))
        return True

    def carry_out(self) -> None:
        """Run what was begun, and answer those who wait for it. Raises `Stop`."""
        assert self._running is not None  # noqa: S101 - it was begun
        target, setup = self._running.target, self._running.setup
        askers, self._askers = self._askers, []

        def tell(text: str) -> None:
            for client in askers:
                client.send({"event": "output", "text": text})

        try:
            with self.waiter.doing(Work.READ):
                run = SetupRun(self._access.api(target), self._access.executions(target), self.waiter, tell)
                end = run.run(setup.command, setup.timeout_s)
        except Superseded:  # of the process or the sandbox; that another one is set up is seen after a sync to it
            for client in askers:
                client.done(ExitCode.TRY_LATER, str(TryLater("the set-up was given up", "run `syncd setup` again")))
            return
        except (StepFailed, SyncdError, OSError) as failure:
            self._could_not(sync_failure(failure).error, setup, askers)
        else:
            self._ended(end, setup, askers)
        finally:
            self._running = None
        if self._failures or not self._is_wanted:
            self._answer_all()
        self.waiter.tasks.wake()

    def _could_not(self, error: SyncdError, setup: SandboxSetup, askers: list[Asker]) -> None:
        self._failures += 1
        self._not_before_s = self._clock.monotonic_s() + backoff_limit_s(self._failures, _FIRST_WAIT_S, _LONGEST_WAIT_S)
        self._is_wanted = True
        setup.note_end(SetupEnd(f"could not be run ({error.message})"), again=True)
        for client in askers:
            client.done(error.exit_code, str(error))

    def _ended(self, end: SetupEnd, setup: SandboxSetup, askers: list[Asker]) -> None:
        self._failures, self._not_before_s = 0, -inf
        setup.note_end(end)
        _log.info("the set-up %s", end.why or f"took {end.seconds} s")
        for line in end.last_lines if end.why else ():
            _log.info("set-up: %s", line)
        for client in askers:
            client.done(ExitCode.DONE, result={"why": end.why})

    def _answer_all(self) -> None:
        awaiting, self._awaiting = self._awaiting, []
        for each in awaiting:
            self._tell_end(each)

    def _tell_end(self, awaiting: _AfterSetup) -> None:
        sandbox = self._cycle.sandbox
        last = sandbox.setup.last if sandbox is not None else None
        if sandbox is None or last is None or last.state is not SetupState.FAILED:
            awaiting.client.done(ExitCode.DONE, **awaiting.answer)
            return
        if last.end.last_lines:
            awaiting.client.send({"event": "output", "text": "\n".join(last.end.last_lines)})
        awaiting.client.done(ExitCode.TRY_LATER, "; ".join(map(str, sandbox.setup.warnings)))


class _AfterSetup(Struct, eq=False):
    """A client whose success is answered after the set-up; `answer` is what it is told then."""

    client: Asker
    answer_later: Callable[[_AfterSetup], None]
    answer: Message = {}

    @property
    def waits(self) -> bool:
        return self.client.waits

    def send(self, message: Message) -> None:
        self.client.send(message)

    def done(self, exit_code: ExitCode, message: str = "", **more: Any) -> None:
        if exit_code is not ExitCode.DONE:
            self.client.done(exit_code, message, **more)
            return
        self.answer = more
        self.answer_later(self)


def _doing(what: str) -> Message:
    return {"event": "progress", "doing": what}
