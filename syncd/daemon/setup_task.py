"""Sets one sandbox up when that is due, and as a command asks: `sandbox.setup`.

It is a task of its own beside the loop of the sandbox, so that it delays no sync. What is due is decided in
`sandbox.setup_rules`, and run in `sandbox.setup`; this says when, and answers the commands that wait for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.clock import stamp
from syncd.core.errors import ExitCode, SyncdError, TryLater
from syncd.core.waiter import Superseded, Work
from syncd.daemon.control import Message
from syncd.daemon.sync_requests import Asker
from syncd.remote.failure import StepFailed, backoff_limit_s
from syncd.report.status_publisher import sync_failure
from syncd.sandbox.setup import SandboxSetup, SetupRun
from syncd.sandbox.setup_rules import SetupRecord, SetupState
from syncd.sync.sandbox import Access, Sandbox
from syncd.sync.sync_cycle import SyncCycle

_log = logging.getLogger("syncd.setup")
# After a run that could not be started.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 15.0, 900.0


class SetupTask:
    """Sets the sandbox of a cycle up: the loop of the sandbox asks when, and has it done.

    `due_s` is the monotonic second at which it is to be run; infinity if it is not.
    """

    def __init__(self, access: Access, cycle: SyncCycle) -> None:
        """`access` has connections of its own, whose waits are those of the task that sets up."""
        self.waiter = access.waiter
        self.due_s = inf
        self._access = access
        self._cycle = cycle
        self._clock = access.clock
        self._running: tuple[Sandbox, SetupRecord] | None = None
        self._failures = 0
        self._waiting: list[_Waiting] = []  # until nothing is due any more

    @property
    def is_outdated(self) -> bool:
        """True if the run under way is in another sandbox than the one that is synced to by now."""
        return self._running is not None and self._running[0] is not self._cycle.sandbox

    # -- what the loop tells

    def synced(self) -> None:
        """A sync arrived, or nothing had to be sent."""
        sandbox = self._cycle.sandbox
        if sandbox is not None and sandbox.setup.is_due and not self._failures:
            self.due_s = min(self.due_s, self._clock.monotonic_s())
        self._answer()
        self.waiter.tasks.wake()

    def woke(self) -> None:
        """The machine slept: connections are dead."""
        self._access.client.drop()

    def ask(self, client: Asker) -> None:
        """Run it now, or once more if it is running, and show this client its output and its end."""
        sandbox = self._cycle.sandbox
        if sandbox is None or sandbox.state.base is None:
            client.done(ExitCode.TRY_LATER, str(TryLater("nothing is in the sandbox yet", "run `syncd push` first")))
            return
        self.due_s = -inf
        self._wait_for_end(_Waiting(client))

    def answer_later(self, client: Asker, result: Message) -> None:
        """Answer a client whose sync succeeded once the set-up that is due by now has ended."""
        if self._failures and self.due_s < inf:
            self.due_s = -inf  # a person waits
        self._wait_for_end(_Waiting(client, result))

    def _wait_for_end(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        sandbox = self._cycle.sandbox
        if sandbox is not None and (self._running is not None or self.due_s < inf):
            doing = f"setting up: {sandbox.setup.shown_command}"
            waiting.client.send({"event": "progress", "doing": doing})
        self._answer()
        self.waiter.tasks.wake()

    # -- one run

    def begin(self) -> bool:
        """Begin what is due, for `carry_out`; false if there is no sandbox that it could be run in any more."""
        sandbox, self.due_s = self._cycle.sandbox, inf
        if sandbox is None or sandbox.state.base is None:  # it moves; the sync to another sandbox is told of
            return False
        self._running = sandbox, sandbox.setup.begin(stamp(self._clock.wall_s()))
        _log.info("setting up: %s", sandbox.setup.shown_command)
        return True

    def carry_out(self, ended: Callable[[], None]) -> None:
        """Run what was begun, have the status tell its end by `ended`, and answer those who wait. Raises `Stop`."""
        assert self._running is not None  # noqa: S101 - it was begun
        (sandbox, record), error = self._running, None
        try:
            with self.waiter.doing(Work.READ):
                api, executions = self._access.api(sandbox.target), self._access.executions(sandbox.target)
                run = SetupRun(api, executions, self.waiter, self._tell)
                record = run.run(record, sandbox.setup.timeout_s)
        except Superseded:
            ended()
            return
        except (StepFailed, SyncdError, OSError) as failure:
            error = sync_failure(failure).error
            record = replace(record.ended(f"could not be run ({error.message})"), is_due=True)
        finally:
            self._running = None
        sandbox.setup.note_end(record)
        self._failures = self._failures + 1 if error is not None else 0
        if error is not None:
            wait_s = backoff_limit_s(self._failures, _FIRST_WAIT_S, _LONGEST_WAIT_S)
            self.due_s = min(self.due_s, self._clock.monotonic_s() + wait_s)
        _log.info("the set-up %s", record.status.why or f"took {record.status.seconds} s")
        for line in record.last_lines if record.status.why else ():
            _log.info("set-up: %s", line)
        ended()
        self._answer(error)
        self.waiter.tasks.wake()

    def _tell(self, text: str) -> None:
        for each in self._waiting:
            if each.result is None:
                each.client.send({"event": "output", "text": text})

    def _answer(self, error: SyncdError | None = None) -> None:
        """Answer those that wait, if nothing is due any more, or if it could not be run."""
        sandbox = self._cycle.sandbox
        if sandbox is None or self._running is not None or (self.due_s < inf and error is None):
            return
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.tell(sandbox.setup, error)


class _Waiting(Struct, frozen=True, eq=False):
    """A client that waits for the end of a set-up; `result` is that of its sync, None if it asked for the run."""

    client: Asker
    result: Message | None = None

    def tell(self, setup: SandboxSetup, error: SyncdError | None) -> None:
        """Tell it how that ended."""
        if self.result is None and error is not None:
            self.client.done(error.exit_code, str(error))
        elif self.result is None:
            self.client.done(ExitCode.DONE, result={"why": setup.status.why})
        elif setup.status.state is SetupState.FAILED:
            self.client.send({"event": "output", "text": "\n".join(setup.last_lines)})
            self.client.done(ExitCode.TRY_LATER, "; ".join(map(str, setup.warnings)))
        else:
            self.client.done(ExitCode.DONE, result=self.result)
