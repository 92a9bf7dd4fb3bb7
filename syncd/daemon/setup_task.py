"""Sets one sandbox up when that is due, and as a command asks: `sandbox.setup`.

It is a task of its own beside the loop of the sandbox, so that it delays no sync. What is due is decided in
`sandbox.setup_rules`, and run in `sandbox.setup`; this says when, and answers the commands that wait for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from math import inf

from msgspec.structs import replace

from syncd.core.clock import stamp
from syncd.core.errors import ConfigError, ExitCode, SyncdError
from syncd.core.settings import table_of
from syncd.core.waiter import Event, NewerEvents, Superseded, Work
from syncd.daemon.control import Message
from syncd.daemon.sync_requests import Asker
from syncd.remote.failure import NextTry, StepFailed
from syncd.report.status_publisher import sync_failure
from syncd.sandbox.setup import SetupRun
from syncd.sandbox.setup_rules import SetupState
from syncd.sync.sandbox import Access, Sandbox
from syncd.sync.sync_cycle import SyncCycle
from syncd.sync.sync_plan import SAMPLE

_log = logging.getLogger("syncd.setup")


class SetupTask:
    """Sets the sandbox of a cycle up: the loop of the sandbox says what happened, and is told when the status is."""

    def __init__(self, access: Access, cycle: SyncCycle, recall: Callable[[], None]) -> None:
        """`access` has connections of its own; `recall` has the status tell what is known now."""
        self._access = access
        self._cycle = cycle
        self._recall = recall
        self._waiter = access.waiter
        self._due_s = inf
        self._next_try = NextTry()  # of a run that could not be started
        self._running: Sandbox | None = None
        self._waiting: list[tuple[Asker, Message | None]] = []  # with the result of its sync, None: it asked for a run

    def run(self) -> None:
        """Set the sandbox up whenever that is due. Raises `Stop`, in the end."""
        with self._waiter.superseded_by(self._newer_events), self._waiter.doing(Work.READ):
            self._waiter.repeat(self.set_up, self._due)

    @property
    def _is_due(self) -> bool:
        return self._due_s < inf or self._next_try.at_s < inf

    def _due(self) -> float:
        """Return the monotonic second of the next run; infinity if none is due, or while the workspace moves."""
        return min(self._due_s, self._next_try.at_s) if self._cycle.content.is_known else inf

    def _newer_events(self) -> NewerEvents:
        """Return the event after which nobody wants the run under way: another sandbox is synced to by now."""
        is_outdated = self._running is not None and self._running is not self._cycle.sandbox
        return {Event.RELOAD: self._waiter.clock.monotonic_s()} if is_outdated else {}

    # -- what the loop tells

    def synced(self) -> None:
        """A sync arrived, or nothing had to be sent."""
        sandbox = self._cycle.sandbox
        if sandbox is not None and sandbox.setup.is_due and self._next_try.at_s == inf:
            self._due_s = min(self._due_s, self._waiter.clock.monotonic_s())
            self._waiter.tasks.wake()
        self._answer()

    def sync_failed(self, failure: SyncdError) -> None:
        """Answer those that wait where the sandbox that was to be set up is gone, and no other one has its place."""
        if self._cycle.sandbox is None:
            waiting, self._waiting = self._waiting, []
            for client, _ in waiting:
                client.done(failure.exit_code, str(failure))

    def ask(self, client: Asker) -> None:
        """Run it now, or once more if it is running, and show this client its output and its end."""
        if not self._access.config.sandbox.setup:
            key = f"{table_of(self._cycle.name)}.setup"
            remedy = f"set {key} with `syncd config edit`; if it is, run `syncd reload`"
            failure = ConfigError("there is no set-up to run", remedy)
            client.done(failure.exit_code, str(failure))
        elif (refusal := self._access.refusal) is not None:
            client.done(refusal.exit_code, str(refusal))
        elif not self._cycle.content.is_known:
            client.done(ExitCode.TRY_LATER, "nothing is in the sandbox yet: run `syncd push` first")
        else:
            self._due_s = -inf
            self._wait_for_end(client, None)

    def answer_later(self, client: Asker, result: Message) -> None:
        """Answer a client whose sync succeeded once the set-up that is due by now has ended."""
        self._next_try.hasten()  # a person waits
        self._wait_for_end(client, result)

    def _wait_for_end(self, client: Asker, result: Message | None) -> None:
        self._waiting.append((client, result))
        sandbox = self._cycle.sandbox
        if sandbox is not None and (self._running is not None or self._is_due):
            client.send(_doing(sandbox))
            self._waiter.tasks.wake()
        self._answer()

    # -- one run

    def set_up(self) -> None:
        """Run it, have the status tell its begin and end, and answer those who wait. Raises `Superseded`, `Stop`."""
        sandbox, clock, error = self._cycle.sandbox, self._waiter.clock, None
        assert sandbox is not None  # noqa: S101 - else nothing is due
        self._due_s, self._running = inf, sandbox
        record = sandbox.setup.begin(stamp(clock.wall_s()))
        _log.info("setting up: %s", sandbox.setup.shown_command)
        self._recall()
        try:
            executions = self._access.executions(sandbox.target)
            sample = sandbox.state.content.base.spread(SAMPLE)
            record = SetupRun(executions, self._waiter, self._tell, partial(self._tell_failure, sandbox)).run(
                record, sandbox.setup.timeout_s, sample
            )
        except Superseded:
            self._recall()
            raise
        except (StepFailed, SyncdError, OSError) as failure:
            error = sync_failure(failure).error
            record = replace(record.ended(f"could not be run ({error.message})"), is_due=True)
        finally:
            self._running = None
        sandbox.setup.note_end(record)
        if error is None:
            self._next_try.clear()
        else:
            self._next_try.failed(clock.monotonic_s())
        _log.info("the set-up %s", record.status.why or f"took {record.status.seconds} s")
        for line in record.last_lines if record.status.why else ():
            _log.info("set-up: %s", line)
        self._recall()
        self._answer(error)
        self._waiter.tasks.wake()

    def _tell(self, text: str) -> None:
        for client, result in self._waiting:
            if result is None:
                client.send({"event": "output", "text": text})

    def _tell_failure(self, sandbox: Sandbox, failure: StepFailed, wait_s: float) -> None:
        failed = f"cannot ask how far the set-up is ({failure})"
        _log.warning("%s; trying again in %.1f s", failed, wait_s)
        for client, _ in self._waiting:
            client.send({"event": "progress", "failed": failed, "attempt": 2, "wait_s": wait_s})
            client.send(_doing(sandbox))

    def _answer(self, error: SyncdError | None = None) -> None:
        """Answer those that wait, if nothing is due any more, or if it could not be run."""
        sandbox = self._cycle.sandbox
        if sandbox is None or self._running is not None or (self._is_due and error is None):
            return
        waiting, self._waiting, setup = self._waiting, [], sandbox.setup
        for client, result in waiting:
            if result is not None and setup.status.state is SetupState.FAILED:
                if setup.last_lines:
                    client.send({"event": "output", "text": "\n".join(setup.last_lines)})
                client.done(ExitCode.TRY_LATER, "; ".join(map(str, setup.warnings)))
            elif result is None and error is not None:
                client.done(error.exit_code, str(error))
            else:
                client.done(ExitCode.DONE, result={"why": setup.status.why} if result is None else result)


def _doing(sandbox: Sandbox) -> Message:
    return {"event": "progress", "doing": f"setting up: {sandbox.setup.shown_command}"}
