"""A sync that a command makes itself because no daemon runs: the same cycle, its progress shown on a terminal."""

from __future__ import annotations

import os
from contextlib import ExitStack

from msgspec import Struct, structs
from msgspec.structs import replace

from syncd.archive.snapshotter import SyncMode
from syncd.cli.options import CLOCK
from syncd.cli.progress import ProgressDisplay
from syncd.core.context import RuntimeContext
from syncd.core.errors import Stop
from syncd.core.interrupt import Interrupt, interrupting
from syncd.core.settings import Config
from syncd.core.text import one_line
from syncd.core.waiter import Waiter
from syncd.core.warning import SyncWarning
from syncd.core.workspace_lock import Lock
from syncd.daemon.build import folders_of, key_of, mcp_servers_of, status_publisher_of, sync_cycle_of
from syncd.daemon.shared_sandbox import refuse_taken
from syncd.remote.failure import StepFailed
from syncd.remote.http_client import HttpClient
from syncd.report.history import SyncEnding
from syncd.report.status_publisher import RunTotals, StatusPublisher
from syncd.report.sync_failure import sync_failure
from syncd.report.systemd_notify import SystemdNotifier
from syncd.sandbox.mcp_servers import McpServers
from syncd.sync.follow_up import FOLLOW_UPS, left_out, still_changing, unsettled
from syncd.sync.outcome import Outcome
from syncd.sync.sent_archive import SentArchive
from syncd.sync.status_document import State
from syncd.sync.sync_cycle import SyncCycle
from syncd.sync.sync_reason import SyncReason
from syncd.sync.synced_hook import SyncedHook

_SHOWN_WARNINGS = 3


class _Observer(Struct):
    """Shows a person the progress; a signal ends its waits."""

    waiter: Waiter
    view: ProgressDisplay
    status: _Status
    servers: McpServers
    synced_hook: SyncedHook

    def stage(self, state: State) -> None:
        self.status.learn()
        self.view.stage(state)

    def packed(self, done_files: int, total_files: int, done_bytes: int, total_bytes: int) -> None:
        self.view.packed(done_files, total_files, done_bytes, total_bytes)

    def sending(self, archive: SentArchive) -> None:
        self.status.publisher.recorder.sending(archive)

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        self.status.publisher.recorder.sent(sent_bytes)
        self.view.sent(sent_bytes, total_bytes)

    def retrying(self, failure: StepFailed, wait_s: float) -> None:
        if wait_s:
            self.status.publisher.recorder.retrying(failure.step, str(failure))
            self.view.note(f"{failure}; trying again in {wait_s:.1f} s")

    def pause(self, wait_s: float) -> None:
        self.waiter.sleep(wait_s)


class _Status(Struct):
    """The status and the history of a sync that no daemon makes: the daemon's own, but always of a stopped one."""

    publisher: StatusPublisher
    cycle: SyncCycle

    def learn(self) -> None:
        self.publisher.learn(self.cycle, {})

    def succeeded(self, outcome: Outcome) -> None:
        self.learn()
        self.publisher.succeeded(outcome)
        self._show(self.cycle.warnings, pending=bool(outcome.follow_up))

    def failed(self, failure: Exception) -> None:
        failed = sync_failure(failure)
        self.learn()
        self.publisher.failed(failed.step, failed.error)
        self._show(self.cycle.warnings, pending=True)

    def warn(self, warnings: list[SyncWarning]) -> None:
        self._show(warnings, pending=self.publisher.pending)

    def _show(self, warnings: list[SyncWarning], *, pending: bool) -> None:
        self.publisher.pending = pending
        self.publisher.warn(warnings)
        self.publisher.enter(State.STOPPED)


def sync_alone(config: Config, sync_mode: SyncMode, view: ProgressDisplay, give_up_s: float | None = None) -> Outcome:
    """Sync once, and again while files change as they are read. Raises `SyncdError`, `Stop`.

    `TryLater` names the files that kept changing: all else is in the sandbox, and is recorded so.
    """
    interrupt = Interrupt()
    if give_up_s is not None:
        give_up_s = min(give_up_s, config.retry.give_up_after_seconds)
        config = replace(config, retry=structs.replace(config.retry, give_up_after_seconds=give_up_s))
    folders = folders_of(config, os.environ)
    with ExitStack() as opened:
        lock = Lock(folders.state)
        lock.acquire()
        opened.callback(lock.release)
        refuse_taken(config, os.environ)
        client = HttpClient(Waiter(interrupt, CLOCK))
        opened.callback(client.drop)
        opened.enter_context(interrupting(interrupt))
        key, context = key_of(config, os.environ), RuntimeContext(CLOCK, os.environ, interrupt)
        cycle = sync_cycle_of(config, folders, key=key, context=context, client=client)
        cycle.recall()
        publisher = status_publisher_of(
            config,
            folders,
            CLOCK,
            totals=RunTotals(),
            systemd=SystemdNotifier({}, CLOCK, os.getpid()),
            desktop_environ=None,
            target=cycle.target,
        )
        publisher.state = State.STOPPED
        publisher.recall_totals()
        synced_hook = SyncedHook(context)
        synced_hook.configure(config, folders.state)
        opened.callback(synced_hook.close)
        servers = mcp_servers_of(config, folders, key=key, client=client, context=context)
        observer = _Observer(client.waiter, view, _Status(publisher, cycle), servers, synced_hook)
        try:
            outcome, unsettled_paths = _sync_until_settled(cycle, sync_mode, observer, config.sync.debounce_seconds)
        except Exception as failure:
            observer.status.failed(failure)
            _wait_for_synced_hook(observer)  # it may run for a sync that arrived before this one failed
            if isinstance(failure, StepFailed):
                raise failure.as_error() from None
            raise
        finally:
            publisher.recorder.end(SyncEnding.STOPPED)
        cycle.follow_in_repository()
        _wait_for_synced_hook(observer)
        of_agent = [*servers.warnings, *synced_hook.warnings]
        warnings = [*cycle.warnings, *of_agent]
        if of_agent:
            observer.status.warn(warnings)
        named = ("torn:", "blocked:") if unsettled_paths or outcome.blocked else ()  # the error names these paths
        _show_warnings(view, [warning for warning in warnings if not warning.key.startswith(named)])
        if unsettled_paths:
            raise still_changing(unsettled_paths)
        if outcome.blocked:
            raise left_out(outcome.blocked)
        return outcome


def _sync_until_settled(
    cycle: SyncCycle, sync_mode: SyncMode, observer: _Observer, quiet_s: float
) -> tuple[Outcome, frozenset[str]]:
    """The outcome of a sync and of those that follow it for files that changed while read; and the files that still do.

    Each of them waits for the quiet period, in which most writers end.
    """
    outcome = _sync(cycle, sync_mode, observer, SyncReason.ORDER)
    left = unsettled(None, outcome.follow_up, outcome.torn)
    for _ in range(FOLLOW_UPS):
        if not left:
            break
        observer.pause(quiet_s)
        again = _sync(cycle, SyncMode.CHANGED, observer, SyncReason.CHANGE)
        left = unsettled(left, again.follow_up, again.torn)
        outcome = (
            again if again.sync else replace(outcome, follow_up=again.follow_up, torn=again.torn, blocked=again.blocked)
        )
    return outcome, left


def _sync(cycle: SyncCycle, sync_mode: SyncMode, observer: _Observer, reason: SyncReason) -> Outcome:
    observer.status.publisher.recorder.begin(reason.value)
    outcome = cycle.run(sync_mode, observer)
    observer.status.succeeded(outcome)  # after each sync: the next may be interrupted
    observer.servers.arrived(cycle.target, cycle.provider.acquired_sandbox)
    observer.synced_hook.arrived(cycle.target, outcome.arrived, observer.servers.by_name)
    return outcome


def _wait_for_synced_hook(observer: _Observer) -> None:
    """Wait for it; a signal ends only that."""
    try:
        observer.synced_hook.wait(CLOCK, observer.waiter.interrupt)
    except Stop:
        if observer.synced_hook.is_running:
            observer.view.note("stopped before sync.on_synced was done")


def _show_warnings(view: ProgressDisplay, warnings: list[SyncWarning]) -> None:
    for warning in warnings[:_SHOWN_WARNINGS]:
        view.note(f"warning: {one_line(str(warning), 600)}")
    more = len(warnings) - _SHOWN_WARNINGS
    if more > 0:
        view.note(f"and {more} more warnings: see `syncd status`")
