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
from syncd.core.waiter import Event, NewerEvents, Superseded, Waiter, Work
from syncd.daemon.control import Message
from syncd.daemon.sync_requests import Asker
from syncd.remote.failure import StepFailed, backoff_limit_s
from syncd.remote.target import Target
from syncd.report.status_publisher import sync_failure
from syncd.sandbox.setup import SandboxSetup, SetupEnd, SetupRun, shown_command
from syncd.sync.sandbox import SandboxServices

_log = logging.getLogger("syncd.setup")
NO_SETUP = 'there is no set-up to run: set sandbox.setup, such as ["npm", "ci"], and run `syncd reload`'
# After a run that could not be started.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 15.0, 900.0


class SetupSandbox(Struct, frozen=True):
    """The calls between a set-up and the loop of its sandbox.

    `services` returns the parts that sync to the sandbox now, None while there is none. `told` is called when there is
    news for the status.
    """

    services: Callable[[], SandboxServices | None]
    ends: Callable[[], bool]
    told: Callable[[], None]


class SetupTask:
    """Sets one sandbox up. `run_for` returns what runs the set-up in it, and tells what that prints."""

    def __init__(
        self,
        waiter: Waiter,
        run_for: Callable[[Target, Callable[[str], None]], SetupRun],
        sandbox: SetupSandbox,
    ) -> None:
        self._waiter = waiter
        self._clock = waiter.clock
        self._run_for = run_for
        self._services, self._ends, self._told = sandbox.services, sandbox.ends, sandbox.told
        self._running: SandboxSetup | None = None
        self._is_wanted = False  # it is due, after a sync of this process
        self._not_before_s = -inf
        self._failures = 0
        self._askers: list[Asker] = []  # for a run, and its output
        self._awaiting: list[_AfterSetup] = []  # the end of all that is due

    def run(self) -> None:
        """Set the sandbox up whenever it is due, until the loop of the sandbox ends. Raises `Stop`."""
        while not self._ends():
            due_s = -inf if self._askers else self._not_before_s if self._is_wanted else inf
            if due_s > self._clock.monotonic_s():
                self._waiter.wait(due_s)
            else:
                self._attempt()

    # -- what the loop tells

    def synced(self) -> None:
        """A sync arrived, or nothing had to be sent."""
        services = self._services()
        self._is_wanted = services is not None and services.setup.is_due
        if self._running is None and not self._is_wanted:
            self._answer_all()
        self._waiter.tasks.wake()

    def ask(self, client: Asker) -> None:
        """Have it run once more, or as soon as a run under way has ended, and show it to this client."""
        services = self._services()
        if services is None or services.state.base is None:
            client.done(ExitCode.TRY_LATER, str(TryLater("nothing is in the sandbox yet", "run `syncd push` first")))
            return
        if self._running is not None:
            client.send(_doing("waiting for the set-up that is running"))
        self._askers.append(client)
        self._waiter.tasks.wake()

    def before_answering(self, client: Asker) -> Asker:
        """Return the client as one whose success is answered once the set-up that is due by then has ended."""
        return _AfterSetup(client, self._answer)

    def _answer(self, awaiting: _AfterSetup) -> None:
        if self._running is None and not self._is_wanted:
            self._tell_end(awaiting)
            return
        self._not_before_s = -inf
        self._awaiting.append(awaiting)
        services = self._services()
        if services is not None:
            awaiting.client.send(_doing(f"setting up: {shown_command(services.setup.command)}"))

    # -- one run

    def _attempt(self) -> None:
        services = self._services()
        askers, self._askers = self._askers, []
        if services is None or services.state.base is None:  # it moved meanwhile
            self._is_wanted = False
            return
        setup = self._running = services.setup
        self._is_wanted = False
        setup.begin(self._clock.wall_s())
        self._told()
        _log.info("setting up: %s", shown_command(setup.command))

        def tell(text: str) -> None:
            for client in askers:
                client.send({"event": "output", "text": text})

        try:
            with self._waiter.superseded_by(lambda: self._newer_events(services)), self._waiter.doing(Work.READ):
                end = self._run_for(services.target, tell).run(setup.command, setup.timeout_s)
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
        self._told()
        self._waiter.tasks.wake()

    def _newer_events(self, services: SandboxServices) -> NewerEvents:
        """Return the events after which nobody wants the run any more."""
        is_over = self._ends() or self._services() is not services
        return {Event.RELOAD: self._clock.monotonic_s()} if is_over else {}

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
        services = self._services()
        last = services.setup.last if services is not None else None
        if services is None or last is None or last.state is not SetupState.FAILED:
            awaiting.client.done(ExitCode.DONE, **awaiting.answer)
            return
        if last.end.last_lines:
            awaiting.client.send({"event": "output", "text": "\n".join(last.end.last_lines)})
        awaiting.client.done(ExitCode.TRY_LATER, "; ".join(map(str, services.setup.warnings)))


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
