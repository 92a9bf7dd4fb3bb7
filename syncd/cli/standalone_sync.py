"""A sync by a command itself, where no daemon runs: the same cycle, attended by a terminal."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace

from msgspec import structs

from syncd.archive.snapshotter import SyncMode
from syncd.cli.options import CLOCK
from syncd.cli.progress.display import ProgressDisplay
from syncd.core.clock import stamp
from syncd.core.context import RuntimeContext
from syncd.core.errors import Stop, SyncdError
from syncd.core.interrupt import Interrupt, interrupting
from syncd.core.lock import Lock
from syncd.core.settings import Config
from syncd.core.text import one_line, shown_path
from syncd.core.waiter import Waiter
from syncd.core.warning import SyncWarning
from syncd.daemon.build import folders_of, key_of, sync_cycle_of
from syncd.remote.failure import StepFailed
from syncd.remote.failure_action import ApiStep, FailureAction
from syncd.remote.http_client import HttpClient
from syncd.remote.target import Target
from syncd.report.history_recorder import HistoryRecorder
from syncd.report.history_store import HistoryStore
from syncd.report.status_publisher import ends_at
from syncd.report.status_store import StatusStore, read_last
from syncd.sandbox.agent_notifier import AgentNotifier, agent_notifier_of
from syncd.sync.follow_up import FOLLOW_UPS, left_out, still_changing, unsettled
from syncd.sync.status_document import LastError, SandboxName, State, Status
from syncd.sync.sync_cycle import Outcome, SyncCycle
from syncd.sync.sync_reason import SyncReason

_SHOWN_WARNINGS = 3


@dataclass
class _Observer:
    """Tells a person what goes on; its waits are cut short by a signal."""

    waiter: Waiter
    view: ProgressDisplay
    recorder: HistoryRecorder

    def stage(self, state: State) -> None:
        self.recorder.stage(state)
        self.view.stage(state)

    def packed(self, done_files: int, total_files: int, done_bytes: int, total_bytes: int) -> None:
        self.view.packed(done_files, total_files, done_bytes, total_bytes)

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        self.recorder.sent(sent_bytes, total_bytes)
        self.view.sent(sent_bytes, total_bytes)

    def retrying(self, failure: StepFailed, wait_s: float) -> None:
        if wait_s:
            self.recorder.retrying(failure.step, str(failure))
            self.view.note(f"{failure}; trying again in {wait_s:.1f} s")

    def pause(self, wait_s: float, action: FailureAction) -> None:  # noqa: ARG002 - only a daemon has newer changes
        self.waiter.sleep(wait_s)


def sync_alone(config: Config, sync_mode: SyncMode, view: ProgressDisplay, give_up_s: float | None = None) -> Outcome:
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
    client = HttpClient(Waiter(interrupt, CLOCK))
    status = _StatusRecord(config, folders.state)
    try:
        with interrupting(interrupt):
            key, context = key_of(config, os.environ), RuntimeContext(CLOCK, os.environ, interrupt)
            cycle = sync_cycle_of(config, folders, key=key, context=context, client=client)
            cycle.recall()
            status.goes_to(cycle.target)
            recorder = HistoryRecorder(
                CLOCK, HistoryStore(folders.state), lambda: cycle.target.sandbox_id if cycle.target else ""
            )
            observer = _Observer(client.waiter, view, recorder)
            try:
                outcome, left = _followed_up(cycle, sync_mode, observer, status, config.sync.debounce_seconds)
            except StepFailed as failure:
                recorder.failed(failure.step, str(failure))
                status.failed(failure.step, failure.as_error())
                raise failure.as_error() from None
            except SyncdError as failure:
                recorder.failed(ApiStep.SNAPSHOT, str(failure))
                status.failed(ApiStep.SNAPSHOT, failure)
                raise
            except OSError as failure:
                recorder.failed(ApiStep.SNAPSHOT, f"this machine refused something: {failure.strerror or failure}")
                raise
            finally:
                recorder.stopped()
            agent_notifier = agent_notifier_of(config, folders, key=key, context=context, client=client)
            _tell_agent(agent_notifier, cycle, observer)
            warnings = [*cycle.warnings, *agent_notifier.warnings]
            if agent_notifier.warnings:
                status.warned(warnings)
            named = ("torn:", "blocked:") if left or outcome.blocked else ()
            _warn(view, [warning for warning in warnings if not warning.key.startswith(named)])
            if left:
                raise still_changing(left)
            if outcome.blocked:
                raise left_out(outcome.blocked)
            return outcome
    finally:
        client.drop()
        lock.release()


def _tell_agent(agent_notifier: AgentNotifier, cycle: SyncCycle, observer: _Observer) -> None:
    """See the agent told, now that the sandbox holds the workspace; a signal ends that alone."""
    try:
        agent_notifier.arrived(cycle.target, cycle.provider.acquired_sandbox)
        agent_notifier.wait(observer.waiter.interrupt)
    except Stop:
        observer.view.note("stopped before sandbox.on_sandbox_change was done; the next sync runs it once more")
    finally:
        agent_notifier.close()


def _warn(view: ProgressDisplay, warnings: list[SyncWarning]) -> None:
    for warning in warnings[:_SHOWN_WARNINGS]:
        view.note(f"warning: {one_line(str(warning), 600)}")
    more = len(warnings) - _SHOWN_WARNINGS
    if more > 0:
        view.note(f"and {more} more warnings: see `syncd status`")


def _followed_up(
    cycle: SyncCycle, sync_mode: SyncMode, observer: _Observer, status: _StatusRecord, quiet_s: float
) -> tuple[Outcome, frozenset[str]]:
    """The outcome of a sync, and of those that files make necessary which change under it; and the files that still do.

    Each one waits for the quiet time, in which most writers come to their end.
    """
    outcome = _synced(cycle, sync_mode, observer, status, SyncReason.ORDER)
    left = unsettled(None, outcome.follow_up, outcome.torn)
    for _ in range(FOLLOW_UPS):
        if not left:
            break
        observer.pause(quiet_s, FailureAction.RETRY)
        again = _synced(cycle, SyncMode.CHANGED, observer, status, SyncReason.CHANGE)
        left = unsettled(left, again.follow_up, again.torn)
        outcome = (
            again if again.sync else replace(outcome, follow_up=again.follow_up, torn=again.torn, blocked=again.blocked)
        )
    return outcome, left


def _synced(
    cycle: SyncCycle, sync_mode: SyncMode, observer: _Observer, status: _StatusRecord, reason: SyncReason
) -> Outcome:
    observer.recorder.begin(reason.value)
    outcome = cycle.run(sync_mode, observer)
    observer.recorder.end(outcome)
    status.succeeded(outcome, cycle)  # each one: the next may be broken off
    return outcome


class _StatusRecord:
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
        self._file = StatusStore(folder)

    def goes_to(self, target: Target | None) -> None:
        """The sandbox of this sync, None while none is acquired: what was told of another one is not claimed."""
        before = self._before.sandbox
        if target is None or (before.id, before.base_url) != (target.sandbox_id, target.base_url):
            self._before = structs.replace(self._nothing, state_since=self._before.state_since)
        if target is not None:
            self._before = structs.replace(
                self._before, sandbox=SandboxName(target.sandbox_id, target.base_url, target.region)
            )

    def succeeded(self, outcome: Outcome, cycle: SyncCycle) -> None:
        acquired_sandbox = cycle.provider.acquired_sandbox
        self.goes_to(cycle.target)
        self._write(
            pending=bool(outcome.follow_up),
            syncs=self._before.syncs + (outcome.sync is not None),
            last_sync=outcome.sync or self._before.last_sync,
            last_error=None,
            upload_url_expires_at=cycle.url_expires_at,
            warnings=tuple(str(warning) for warning in cycle.warnings),
            left_out=cycle.snapshotter.left_out,
            sandbox_expires_at=ends_at(acquired_sandbox),
            mcp_servers=acquired_sandbox.servers if acquired_sandbox else {},
            lingering=cycle.lingering_files,
        )

    def warned(self, warnings: list[SyncWarning]) -> None:
        self._write(warnings=tuple(str(warning) for warning in warnings))

    def failed(self, step: ApiStep, failure: SyncdError) -> None:
        error = LastError(stamp(CLOCK.wall_s()), step, one_line(str(failure), 600))
        self._write(pending=True, failures=self._before.failures + 1, last_error=error)

    def _write(self, **changed: object) -> None:
        self._before = structs.replace(self._before, **changed)
        with contextlib.suppress(OSError):  # the sync itself counts, not the word about it
            self._file.write(self._before)
