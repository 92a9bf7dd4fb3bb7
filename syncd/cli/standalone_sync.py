"""A sync by a command itself, where no daemon runs: the same cycle, attended by a terminal."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace

from msgspec import structs

from syncd.archive.snapshotter import Demand
from syncd.cli.options import CLOCK
from syncd.cli.progress.observer import Onlooker
from syncd.core.clock import stamp
from syncd.core.context import Surroundings
from syncd.core.errors import Stop, SyncdError
from syncd.core.interrupt import Interrupt, interrupting
from syncd.core.lock import Lock
from syncd.core.settings import Config
from syncd.core.text import one_line, shown_path
from syncd.core.waiter import Waiter
from syncd.core.warning import Problem
from syncd.daemon.build import cycle_of, folders_of, key_of
from syncd.remote.failure import StepFailed
from syncd.remote.failure_action import Step, Verdict
from syncd.remote.http_client import Exchanger
from syncd.remote.target import Target
from syncd.report.history_recorder import Chronicle
from syncd.report.history_store import HistoryFile
from syncd.report.status_publisher import ends_at
from syncd.report.status_store import StatusFile, read_last
from syncd.sandbox.agent_notifier import Liaison, liaison_of
from syncd.sync.follow_up import FOLLOW_UPS, left_out, still_changing, unsettled
from syncd.sync.status_document import LastError, SandboxName, State, Status
from syncd.sync.sync_cycle import Cycle, Outcome
from syncd.sync.sync_reason import SyncReason

_SHOWN_PROBLEMS = 3


@dataclass
class _Attendant:
    """Tells a person what goes on; its waits are cut short by a signal."""

    waiter: Waiter
    onlooker: Onlooker
    chronicle: Chronicle

    def stage(self, state: State) -> None:
        self.chronicle.stage(state)
        self.onlooker.stage(state)

    def packed(self, done_files: int, total_files: int, done_bytes: int, total_bytes: int) -> None:
        self.onlooker.packed(done_files, total_files, done_bytes, total_bytes)

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        self.chronicle.sent(sent_bytes, total_bytes)
        self.onlooker.sent(sent_bytes, total_bytes)

    def retrying(self, failure: StepFailed, wait_s: float) -> None:
        if wait_s:
            self.chronicle.retrying(failure.step, str(failure))
            self.onlooker.remark(f"{failure}; trying again in {wait_s:.1f} s")

    def pause(self, wait_s: float, verdict: Verdict) -> None:  # noqa: ARG002 - only a daemon has newer changes
        self.waiter.sleep(wait_s)


def sync_alone(config: Config, demand: Demand, onlooker: Onlooker, give_up_s: float | None = None) -> Outcome:
    """One sync, and what files that changed under it still need. Raises `SyncdError`, `Stop`.

    `TryLater` names the files that never stood still: all else is in the sandbox, and recorded so.
    """
    interrupt = Interrupt()
    if give_up_s is not None:
        retry = config.retry
        config = replace(
            config,
            retry=type(retry)(
                first_delay_seconds=retry.first_delay_seconds,
                max_delay_seconds=retry.max_delay_seconds,
                give_up_after_seconds=min(give_up_s, retry.give_up_after_seconds),
            ),
        )
    folders = folders_of(config, os.environ)
    lock = Lock(folders.state)
    lock.acquire()
    exchanger = Exchanger(Waiter(interrupt, CLOCK))
    status = _Record(config, folders.state)
    try:
        with interrupting(interrupt):
            key, around = key_of(config, os.environ), Surroundings(CLOCK, os.environ, interrupt)
            cycle = cycle_of(config, folders, key=key, around=around, exchanger=exchanger)
            cycle.recall()
            status.goes_to(cycle.target)
            chronicle = Chronicle(
                CLOCK, HistoryFile(folders.state), lambda: cycle.target.sandbox_id if cycle.target else ""
            )
            attendant = _Attendant(exchanger.waiter, onlooker, chronicle)
            try:
                outcome, left = _followed_up(cycle, demand, attendant, status, config.sync.debounce_seconds)
            except StepFailed as failure:
                chronicle.failed(failure.step, str(failure))
                status.failed(failure.step, failure.as_error())
                raise failure.as_error() from None
            except SyncdError as failure:
                chronicle.failed(Step.SNAPSHOT, str(failure))
                status.failed(Step.SNAPSHOT, failure)
                raise
            except OSError as failure:
                chronicle.failed(Step.SNAPSHOT, f"this machine refused something: {failure.strerror or failure}")
                raise
            finally:
                chronicle.stopped()
            liaison = liaison_of(config, folders, key=key, around=around, exchanger=exchanger)
            _tell_agent(liaison, cycle, attendant)
            problems = [*cycle.problems, *liaison.problems]
            if liaison.problems:
                status.warned(problems)
            named = ("torn:", "blocked:") if left or outcome.blocked else ()
            _warn(onlooker, [problem for problem in problems if not problem.key.startswith(named)])
            if left:
                raise still_changing(left)
            if outcome.blocked:
                raise left_out(outcome.blocked)
            return outcome
    finally:
        exchanger.drop()
        lock.release()


def _tell_agent(liaison: Liaison, cycle: Cycle, attendant: _Attendant) -> None:
    """See the agent told, now that the sandbox holds the workspace; a signal ends that alone."""
    try:
        liaison.arrived(cycle.target, cycle.lodging.tenancy)
        liaison.wait(attendant.waiter.interrupt)
    except Stop:
        attendant.onlooker.remark("stopped before sandbox.on_sandbox_change was done; the next sync runs it once more")
    finally:
        liaison.close()


def _warn(onlooker: Onlooker, problems: list[Problem]) -> None:
    for problem in problems[:_SHOWN_PROBLEMS]:
        onlooker.remark(f"warning: {one_line(str(problem), 600)}")
    more = len(problems) - _SHOWN_PROBLEMS
    if more > 0:
        onlooker.remark(f"and {more} more warnings: see `syncd status`")


def _followed_up(
    cycle: Cycle, demand: Demand, attendant: _Attendant, status: _Record, quiet_s: float
) -> tuple[Outcome, frozenset[str]]:
    """The outcome of a sync, and of those that files make necessary which change under it; and the files that still do.

    Each one waits for the quiet time, in which most writers come to their end.
    """
    outcome = _synced(cycle, demand, attendant, status, SyncReason.ORDER)
    left = unsettled(None, outcome.follow_up, outcome.torn)
    for _ in range(FOLLOW_UPS):
        if not left:
            break
        attendant.pause(quiet_s, Verdict.RETRY)
        again = _synced(cycle, Demand.CHANGED, attendant, status, SyncReason.CHANGE)
        left = unsettled(left, again.follow_up, again.torn)
        outcome = (
            again if again.sync else replace(outcome, follow_up=again.follow_up, torn=again.torn, blocked=again.blocked)
        )
    return outcome, left


def _synced(cycle: Cycle, demand: Demand, attendant: _Attendant, status: _Record, reason: SyncReason) -> Outcome:
    attendant.chronicle.begin(reason.value)
    outcome = cycle.run(demand, attendant)
    attendant.chronicle.end(outcome)
    status.succeeded(outcome, cycle)  # each one: the next may be broken off
    return outcome


class _Record:
    """What `syncd status` says of a sync that no daemon made."""

    def __init__(self, config: Config, folder: str) -> None:
        sandbox = SandboxName(config.sandbox.id or "", config.sandbox.base_url, config.sandbox.region)
        workspace = shown_path(config.workspace.path)
        self._nothing = Status(running=False, pid=None, state=State.STOPPED, workspace=workspace, sandbox=sandbox)
        self._before = structs.replace(
            read_last(folder, self._nothing),
            running=False,
            pid=None,
            state=State.STOPPED,
            state_since=stamp(CLOCK.wall_s()),
            retry_at=None,
            progress=None,
        )
        self._file = StatusFile(folder)

    def goes_to(self, target: Target | None) -> None:
        """The sandbox of this sync, None while none is acquired: what was told of another one is not claimed."""
        before = self._before.sandbox
        if target is None or (before.id, before.base_url) != (target.sandbox_id, target.base_url):
            self._before = structs.replace(self._nothing, state_since=self._before.state_since)
        if target is not None:
            self._before = structs.replace(
                self._before, sandbox=SandboxName(target.sandbox_id, target.base_url, target.region)
            )

    def succeeded(self, outcome: Outcome, cycle: Cycle) -> None:
        tenancy = cycle.lodging.tenancy
        self.goes_to(cycle.target)
        self._write(
            pending=bool(outcome.follow_up),
            syncs=self._before.syncs + (outcome.sync is not None),
            last_sync=outcome.sync or self._before.last_sync,
            last_error=None,
            upload_url_expires_at=cycle.url_expires_at,
            warnings=tuple(str(problem) for problem in cycle.problems),
            left_out=cycle.photographer.left_out,
            sandbox_expires_at=ends_at(tenancy),
            mcp_servers=tenancy.servers if tenancy else {},
            lingering=cycle.lingering_files,
        )

    def warned(self, problems: list[Problem]) -> None:
        self._write(warnings=tuple(str(problem) for problem in problems))

    def failed(self, step: Step, failure: SyncdError) -> None:
        error = LastError(stamp(CLOCK.wall_s()), step, one_line(str(failure), 600))
        self._write(pending=True, failures=self._before.failures + 1, last_error=error)

    def _write(self, **changed: object) -> None:
        self._before = structs.replace(self._before, **changed)
        with contextlib.suppress(OSError):  # the sync itself counts, not the word about it
            self._file.write(self._before)
