"""The daemon's loop: one thread that owns all state, waits for the next event, and syncs when it is time.

`daemon.scheduler` decides what to do next; the loop keeps the values that the decision rests on. The loop is also the
`SyncObserver` of its own syncs, whose stages become the status, and the `Listener` of all waits in them: signals,
commands and changes are received at once while a sync is under way.
"""

from __future__ import annotations

import ctypes
import logging
import os
import random
import select
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from math import inf

import msgspec
from msgspec import Struct

from syncd import __version__
from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import ExitCode, NeedsPerson, Stop, SyncWarning
from syncd.core.waiter import POLL_EVERY_S, Superseded, SupersededBy
from syncd.daemon.control import Client, ControlServer, Message
from syncd.daemon.live_reload import LiveReload
from syncd.daemon.scheduler import (
    FailureBackoff,
    RetryPause,
    SaveAgentWork,
    SchedulerInput,
    Sync,
    ends_a_new_daemon,
    idle_state,
    next_action,
)
from syncd.daemon.signals import Signals
from syncd.daemon.sync_requests import PAUSED, RequestQueue, SyncRequest, pause_marker
from syncd.remote.failure import FailureAction, StepFailed
from syncd.remote.network import default_addresses
from syncd.report.history import SyncEnding
from syncd.report.status_publisher import StatusPublisher, SyncFailure, sync_failure
from syncd.report.systemd_notify import SystemdNotifier
from syncd.sandbox.mcp_servers import McpServers
from syncd.sync.outcome import Outcome, SentArchive, SyncReason
from syncd.sync.sandbox_services import Workspace, retry_settings_of
from syncd.sync.status_document import State
from syncd.sync.sync_cycle import SyncCycle
from syncd.sync.synced_hook import SyncedHook
from syncd.watch.changes import Burst, DirtyDirectories, due_s, extend
from syncd.watch.inotify_watch import InotifyWatch, Polling
from syncd.watch.mounts import MountMonitor
from syncd.watch.suspend_detector import SuspendDetector

_log = logging.getLogger("syncd")

# While the key is refused, its file is checked this often.
KEY_POLL_S = 2.0
# During an outage the network's addresses are compared this often.
NETWORK_POLL_S = 2.0
# Nobody asked for these, and nothing is known to have changed.
_UNPROMPTED = frozenset({SyncReason.RESCAN, SyncReason.POLL})
_SYNCING = frozenset({State.SNAPSHOTTING, State.UPLOADING, State.INITIALIZING})


class LoopEnd(Enum):
    """The reason why the loop ended."""

    STOPPED = "asked to stop"
    RELOAD = "a new configuration is to be read"


class Components(Struct, frozen=True):
    """The parts that the loop works with; `daemon.build` makes them.

    The first sync is after `start_wait_s` if nothing asks for one before.
    """

    workspace: Workspace
    cycle: SyncCycle
    watch: InotifyWatch
    control: ControlServer
    publisher: StatusPublisher
    mcp_servers: McpServers
    synced_hook: SyncedHook
    systemd: SystemdNotifier
    signals: Signals
    live_reload: LiveReload
    suspend_detector: SuspendDetector
    mounts: MountMonitor
    start_wait_s: float


class Daemon:
    """The daemon of one workspace."""

    def __init__(self, components: Components) -> None:
        self._components = components
        self._cycle = components.cycle
        self._publisher = components.publisher
        self._clock = components.workspace.clock
        self._waiter = components.workspace.waiter
        self._sync_keys = components.workspace.config.sync
        self._retry_settings = retry_settings_of(components.workspace.config)
        self._key_file = components.workspace.config.sandbox.api_key_file
        self._pause_marker = pause_marker(components.workspace.folders.state)
        self._request_queue = RequestQueue()
        self._burst: Burst | None = None
        self._backoff = FailureBackoff(self._retry_settings)
        self._started_s = 0.0
        self._rescan_at_s = 0.0
        self._follow_at_s = -inf
        self._starting = True
        self._dirty = DirtyDirectories()
        self._polling = Polling(components.watch, components.mounts, components.cycle.snapshotter.directories_within)
        self._is_poll = False  # the sync under way
        self._paused = self._pause_marker.exists
        self._stage: State | None = None  # of the sync under way
        self._paused_in_sync = False  # a person paused since it began: that is what the status says, while it ends
        self._writers: list[Client] = []  # commands that write to the workspace: no sync begins meanwhile
        self._progress_sent_s = 0.0
        self._retry_wait_s, self._is_offline = 0.0, False  # what `retrying` announced last
        self._slept_s = 0.0
        self._woke = False
        self._addresses: tuple[str, ...] | None = None
        self._network_back_s = -inf
        self._key_stamp = _file_stamp(self._key_file)
        self._waiter.listener = self

    def run(self) -> LoopEnd:
        """Run until asked to stop or reload. Raises `NeedsPerson` where it cannot work and has never worked."""
        systemd = self._components.systemd
        with self._started():
            systemd.ready()
            _log.info("watching %s", self._publisher.workspace)
            try:
                while not self._components.signals.reload:
                    self._step()
            except Stop:
                _log.info("stopping")
                systemd.stopping()
                return LoopEnd.STOPPED
            systemd.reloading()
            return LoopEnd.RELOAD

    def serve(self, request: SyncRequest) -> list[SyncWarning]:
        """Run until this request is answered and `sync.on_synced` has ended. Returns the warnings, if it succeeded.

        Raises `Stop` before the answer; after it, `Stop` ends the wait for the program alone.
        """
        with self._started():
            self._request_queue.add(request)
            while request.is_open:
                self._step()
            with suppress(Stop):
                while self._components.synced_hook.is_running:
                    self._wait(None)
        return self._publisher.warnings if self._publisher.totals.last_error is None else []

    @contextmanager
    def _started(self) -> Iterator[None]:
        cycle, publisher = self._cycle, self._publisher
        publisher.pending = not cycle.is_settled
        self._learn()
        publisher.enter(State.STARTING)
        # What changed while nothing ran.
        self._rescan_at_s = self._clock.monotonic_s() + self._components.start_wait_s
        try:
            yield
        finally:
            # However it ended: the status says that changes are pending, and no plan outlives the process.
            publisher.pending = publisher.pending or self._burst is not None
            publisher.recorder.end(SyncEnding.STOPPED)
            publisher.enter(State.STOPPED)

    def _step(self) -> None:
        """Do what is due next, or wait for it."""
        self._let_write()
        action = next_action(self._scheduler_input(), self._clock.monotonic_s(), *self._times())
        if isinstance(action, Sync):
            self._sync(action.reason)
        elif isinstance(action, SaveAgentWork):
            self._cycle.save_before_end()
            self._learn()
            self._warn()
        else:
            self._rest(action.until_s)

    # -- one sync

    def _sync(self, reason: SyncReason) -> None:
        self._starting = self._paused_in_sync = False
        burst, self._burst = self._burst, None  # before the scan: what comes from now on is a burst of its own
        sync_mode = self._request_queue.begin()
        if reason not in _UNPROMPTED and self._backoff.hold is None:
            self._publisher.pending = True
        self._is_poll = reason is SyncReason.POLL
        self._started_s = self._clock.monotonic_s()
        changed, written = self._dirty.take(), self._dirty.take_files()
        by_events = reason in (SyncReason.CHANGE, SyncReason.POLL) and not self._request_queue.serving
        if by_events and not self._components.watch.needs_polling:
            # Whatever the reason: changes without an end must not put a poll off.
            changed, written = self._polling.add_due(changed, written, self._started_s)
        else:
            changed = written = None  # the event of what was saved right before a request may not have come yet
        self._cycle.forget_stamps(written)
        self._publisher.recorder.begin(reason.value)
        try:
            outcome = self._cycle.run(sync_mode, self, changed)
        except Superseded:
            self._publisher.recorder.end(SyncEnding.SUPERSEDED)
            self._request_queue.put_back()
            self._burst = self._burst or burst or extend(None, self._started_s)
            self._dirty.mark_all()
        except Exception as failure:  # noqa: BLE001 - a daemon's last resort
            # A defect must not end weeks of service: it is logged once, then tried again like any failure.
            self._failed(sync_failure(failure))
        else:
            self._succeeded(outcome)
        self._stage = None
        now_s = self._clock.monotonic_s()
        if changed is None:
            _release_freed_memory()
            if written is None:  # a poll of everything is none: it believes the stamps
                self._rescan_at_s = now_s + self._sync_keys.rescan_minutes * 60
        self._polling.scanned(changed, now_s, self._cycle.snapshotter.scan_took_s)
        if self._follow_at_s > -inf:
            self._rescan_at_s = min(self._rescan_at_s, self._follow_at_s)  # a look at everything costs the API nothing
        services = self._cycle.services
        look_again_at_s = services.state.seen.look_again_at_s if services else inf
        if look_again_at_s > now_s:  # else nobody could look just now
            self._rescan_at_s = min(self._rescan_at_s, look_again_at_s)
        self._learn()
        self._warn()
        self._components.systemd.ping()

    def _learn(self) -> None:
        self._publisher.learn(self._cycle, self._components.mcp_servers.by_name)

    def _warn(self) -> None:
        watch = (*self._components.watch.warnings(), *self._polling.warnings)
        agent = (*self._components.mcp_servers.warnings, *self._components.synced_hook.warnings)
        self._publisher.warn([*self._cycle.warnings, *watch, *agent])

    def _succeeded(self, outcome: Outcome) -> None:
        self._publisher.succeeded(outcome)
        now_s = self._clock.monotonic_s()
        self._follow_at_s = max(self._follow_at_s, self._backoff.follow_at_s(now_s, _chance()))
        self._backoff.clear()
        self._polling.sent(outcome.change, now_s)
        if self._request_queue.awaited or now_s >= self._follow_at_s:
            self._follow_at_s = -inf
            self._cycle.follow_in_repository()  # before a command is answered: an agent may be started right after it
        self._request_queue.succeeded(outcome)
        if outcome.follow_up:
            self._rescan_all()
        self._publisher.pending = self._burst is not None
        # Last, as it may take a moment.
        servers = self._components.mcp_servers
        servers.arrived(self._cycle.target, self._cycle.provider.acquired_sandbox)
        self._components.synced_hook.arrived(self._cycle.target, outcome.arrived, servers.by_name)

    def _failed(self, failed: SyncFailure) -> None:
        publisher, failure = self._publisher, failed.error
        last = publisher.totals.last_error
        ends = ends_a_new_daemon(failure) and not publisher.totals.synced_once
        if not ends and (last is None or last.message != str(failure)):  # `syncd run` logs what ends it
            _log.log(logging.ERROR if isinstance(failure, NeedsPerson) else logging.WARNING, "%s", failure)
        publisher.failed(failed.step, failure)
        self._request_queue.failed(failure, for_good=isinstance(failure, NeedsPerson))
        awaited = self._request_queue.awaited
        publisher.pending = True
        now_s = self._clock.monotonic_s()
        if ends:
            raise failure
        self._backoff.after(failure, now_s, now_s - self._started_s, _chance(), failed.retry_after_s, awaited=awaited)
        if self._backoff.not_before_s is not None:
            self._send_failure(failure, self._backoff.not_before_s - now_s)
        self._dirty.mark_all()

    def _rescan_all(self) -> None:
        """Sync as after a change anywhere."""
        self._burst = extend(self._burst, self._clock.monotonic_s())
        self._dirty.mark_all()

    # -- the observer of a sync

    def stage(self, state: State) -> None:
        """Publish it, but not the scans of a hold and of a poll."""
        self._components.systemd.ping()
        if state is not State.SNAPSHOTTING:
            self._publisher.pending = True
            self._learn()
        elif self._backoff.hold is not None or self._is_poll:
            return
        self._stage = state
        self._enter(state)
        self._request_queue.send_progress(state=state)

    def _enter(self, state: State) -> None:
        """Publish a state of the sync under way, unless a person has paused it."""
        self._publisher.enter(State.PAUSED if self._paused_in_sync else state)

    def packed(self, done_files: int, total_files: int, done_bytes: int, total_bytes: int) -> None:
        """Publish it. A poll that packs has found something."""
        if self._is_poll:
            self._enter(State.SNAPSHOTTING)
        if self._publisher.packed(done_files, total_files, done_bytes, total_bytes):
            self._request_queue.send_progress(
                done_files=done_files, total_files=total_files, done_bytes=done_bytes, total_bytes=total_bytes
            )

    def sending(self, archive: SentArchive) -> None:
        """Record which paths leave."""
        self._publisher.recorder.sending(archive)

    def sent(self, sent_bytes: int, total_bytes: int) -> None:
        """Publish it."""
        self._publisher.sent(sent_bytes, total_bytes)
        now_s = self._clock.monotonic_s()
        if now_s - self._progress_sent_s >= POLL_EVERY_S or sent_bytes == total_bytes:
            self._progress_sent_s = now_s
            self._request_queue.send_progress(done_bytes=sent_bytes, total_bytes=total_bytes)

    def retrying(self, failure: StepFailed, wait_s: float) -> None:
        """Publish what failed and when it is tried again."""
        self._retry_wait_s, self._is_offline = wait_s, failure.action is FailureAction.OFFLINE
        if wait_s == 0:
            _log.info("%s; asking for a fresh upload URL", failure)
            return
        now_s = self._clock.monotonic_s()
        self._backoff.note_outage(now_s)
        if not self._request_queue.awaited:
            self._retry_wait_s = wait_s = self._backoff.outage_wait_s(wait_s, now_s, _chance())
        _log.warning("%s; trying again in %.1f s", failure, wait_s)
        self._send_failure(failure, wait_s)
        self._publisher.retrying(failure.step, str(failure))
        self._retry_in(wait_s)

    def _retry_in(self, wait_s: float) -> None:
        if self._paused_in_sync:
            self._enter(State.RETRYING)
        else:
            self._publisher.retry_in(wait_s)

    def _send_failure(self, failure: Exception, wait_s: float) -> None:
        self._request_queue.send_progress(failed=f"{failure}; trying again in {wait_s:.1f} s")
        self._request_queue.send_progress(state=State.RETRYING)

    def pause(self, wait_s: float) -> None:
        """Wait out a failure, asleep or awake. Raises `Superseded` for a newer change, and at once for a request and a
        command that writes to the workspace.
        """
        started_s = self._clock.monotonic_s()
        slept_before_s = self._slept_s
        first_s = self._retry_settings.first_s
        retry_pause = RetryPause(started_s, wait_s, self._retry_wait_s, first_s, self._is_offline)
        while True:
            if self._is_superseded or any(client.waits for client in self._writers):
                raise Superseded
            now_s, slept_s = self._clock.monotonic_s(), self._slept_s - slept_before_s
            changes_due_s = due_s(self._burst, *self._times()) if self._burst is not None else None
            until_s = retry_pause.ends_s(now_s, slept_s, self._network_back_s, changes_due_s)
            if now_s >= until_s:
                break
            self._retry_in(until_s - now_s)
            self._wait(until_s)
        if self._burst is not None:
            raise Superseded

    # -- waiting

    def _rest(self, until_s: float | None) -> None:
        """Publish what the daemon waits for, and wait."""
        publisher, scheduler_input = self._publisher, self._scheduler_input()
        state = idle_state(scheduler_input)
        publisher.pending = publisher.pending or self._burst is not None
        if state is State.RETRYING and until_s is not None:
            publisher.retry_in(until_s - self._clock.monotonic_s())
        else:
            publisher.enter(state)
        self._wait(until_s)

    def _wait(self, until_s: float | None) -> None:
        """Wait until then, or for a change, a signal, a command or the end of a sleep."""
        self._waiter.wait(until_s)

    # -- the listener, in each wait: between two syncs, and in them

    def wake_fds(self) -> list[tuple[int, int]]:
        """The descriptors that become ready when something comes, each with the event of poll(2)."""
        components = self._components
        sources = (components.watch, components.suspend_detector, components.control, components.synced_hook)
        filenos = [(fileno, select.POLLIN) for source in sources for fileno in source.filenos()]
        return [*filenos, *((fileno, select.POLLPRI) for fileno in components.mounts.filenos())]

    def deadline_s(self) -> float | None:
        """The monotonic second at which something is due, even if nothing comes."""
        components = self._components
        times = [
            components.systemd.next_ping_s(),
            components.watch.paused_until_s,
            components.workspace.client.idle_at_s,
            self._publisher.notification_due_s,
            components.synced_hook.due_s,
            self._clock.monotonic_s() + KEY_POLL_S if self._backoff.waits_for_person else None,
            self._clock.monotonic_s() + NETWORK_POLL_S if self._backoff.is_outage else None,
        ]
        return min((time_s for time_s in times if time_s is not None), default=None)

    def handle(self, ready: Collection[int]) -> None:
        """Note what has come, and answer commands. In the middle of a sync no more than that is done."""
        mounts = self._components.mounts
        if not set(mounts.filenos()).isdisjoint(ready) and mounts.changed():
            _log.info("something was mounted or unmounted at the workspace: scanning everything again")
            self._rescan_all()
        self._receive()

    def superseded_at_s(self, superseded_by: SupersededBy) -> float | None:
        """The monotonic second at which the sync under way gives way to another one."""
        # The agent's work in a sandbox that ends is saved beside no upload and no look, and later would be too late.
        save_at_s = self._clock.monotonic_s() + self._cycle.save_in_s
        if superseded_by is SupersededBy.FRESH_START:
            # After a sleep its connection is dead, and the workspace may be another one.
            woke, self._woke = self._woke, False
            ends = woke or self._components.live_reload.ends_upload()
            at_s = self._clock.monotonic_s() if ends else save_at_s
        elif superseded_by is SupersededBy.LAST_SAVE:
            at_s = save_at_s
        elif self._is_superseded:
            at_s = self._clock.monotonic_s()
        else:
            at_s = save_at_s if self._burst is None else min(save_at_s, due_s(self._burst, *self._times()))
        return None if at_s == inf else at_s

    @property
    def _is_superseded(self) -> bool:
        """True if a request, a pause, a reload or work of the agent's that is to be saved ends the sync under way."""
        # One that serves a request goes on: given up, it would be begun again at once, without end.
        is_paused = self._paused and not self._request_queue.serving
        is_asked = bool(self._request_queue.fresh) or is_paused or self._components.signals.reload
        return is_asked or self._cycle.save_in_s <= 0

    def _receive(self) -> None:
        """Note the events that have come, and what is due."""
        components = self._components
        changes = components.watch.take()
        self._dirty.add(changes)
        if changes:
            self._burst = extend(self._burst, self._clock.monotonic_s())
        slept_s = components.suspend_detector.slept_s()
        self._woke = bool(slept_s)
        if slept_s:
            _log.info("slept for %.0f s: scanning everything again", slept_s)
            components.workspace.client.drop()
            self._rescan_all()
            self._backoff.woke(slept_s)
            self._slept_s += slept_s
        self._watch_network()
        components.workspace.client.close_idle()
        if components.signals.sync_now:
            components.signals.sync_now = False
            self._request_queue.add(SyncRequest())
        for client, message in components.control.requests():
            self._handle(client, message)
        if self._backoff.waits_for_person:
            components.signals.reload = components.signals.reload or _file_stamp(self._key_file) != self._key_stamp
        self._publisher.notify()
        if components.synced_hook.poll():
            self._warn()
            self._publisher.write()
        components.systemd.ping()

    def _watch_network(self) -> None:
        """Try again soon if the network returns during an outage, or is another one."""
        before, self._addresses = self._addresses, default_addresses() if self._backoff.is_outage else None
        if before is not None and self._addresses and self._addresses != before:
            _log.info("the network has changed: trying again")
            self._network_back_s = self._clock.monotonic_s()
            self._backoff.network_returned(self._network_back_s)

    def _handle(self, client: Client, message: Message) -> None:
        match message.get("do"):
            case "push":
                self._add(SyncRequest(client, SyncMode.FORCED if message.get("force") else SyncMode.CHANGED))
            case "flush" if self._paused:
                client.done(ExitCode.TRY_LATER, str(PAUSED))
            case "flush":
                self._add(SyncRequest(client, lasting=True))
            case "hello":
                status = msgspec.to_builtins(self._publisher.unwritten())
                client.done(ExitCode.DONE, result={"version": __version__, "status": status})
            case "left":
                self._forget_sandbox(str(message.get("sandbox")))
                client.done(ExitCode.DONE)
            case "write":
                self._writers.append(client)
                client.send({"event": "progress", "state": self._publisher.state})
            case "pause" | "resume" as command:
                self._pause_or_resume(client, command)
            case _:
                client.done(ExitCode.NEEDS_PERSON, "this daemon does not know that command: is it of another version?")

    def _add(self, request: SyncRequest) -> None:
        """Take a command's request. It may have to wait for the end of a sync: its client is sent the stage of that."""
        self._request_queue.add(request)
        if request.client is not None and self._publisher.state in _SYNCING:
            request.client.send({"event": "progress", "state": self._publisher.state})

    def _let_write(self) -> None:
        """Tell commands that they may write to the workspace, now that no sync is under way."""
        self._writers = [client for client in self._writers if client.waits]
        for client in self._writers:
            client.send({"event": "ready"})

    def _forget_sandbox(self, sandbox_id: str) -> None:
        """Forget a sandbox that was released: an idle daemon sends no request that would fail."""
        target = self._cycle.target
        if target is not None and target.sandbox_id == sandbox_id and self._cycle.provider.mark_lost(target):
            self._cycle.work_saver.note_done(target)  # by the command
            self._rescan_all()

    def _pause_or_resume(self, client: Client, command: str) -> None:
        is_pause = command == "pause"
        try:
            if is_pause:
                self._pause_marker.create()
            else:
                self._pause_marker.remove()
        except OSError as failure:
            client.done(ExitCode.TRY_LATER, f"the state folder cannot be written: {failure.strerror}")
            return
        if is_pause:
            self._request_queue.pause()
        elif self._paused:
            self._rescan_all()
        self._paused = self._paused_in_sync = is_pause
        if is_pause or self._stage is not None:
            self._enter(self._stage or State.PAUSED)
        _log.info("%sd", command)
        client.done(ExitCode.DONE)

    def _scheduler_input(self) -> SchedulerInput:
        replace_in_s = self._cycle.provider.replace_in_s
        moves_at_s = inf if replace_in_s is None else self._clock.monotonic_s() + replace_in_s
        return SchedulerInput(
            save_at_s=self._clock.monotonic_s() + self._cycle.save_in_s,
            burst=self._burst,
            written_to=bool(self._writers),
            requested=bool(self._request_queue.fresh),
            paused=self._paused and not self._request_queue.lasting,
            hold=self._backoff.hold,
            not_before_s=self._backoff.not_before_s,
            changes_not_before_s=self._backoff.changes_not_before_s,
            rescan_at_s=min(self._rescan_at_s, moves_at_s),
            poll_at_s=self._polling.due_s,
            starting=self._starting,
        )

    def _times(self) -> tuple[float, float]:
        return self._sync_keys.debounce_seconds, self._sync_keys.max_wait_seconds


def _chance() -> float:
    """A random number from 0 to 1."""
    return random.random()  # noqa: S311 - jitter, not a secret


def _file_stamp(path: str) -> tuple[int, ...] | None:
    """A value that changes when the file is written or replaced; None: it is missing."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    # The time of change too: the next file may have the same number, and `cp -p` gives it any time of writing.
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _release_freed_memory() -> None:
    """Return freed pages to the system, where the C library does not do so by itself, as glibc.

    A sync of the whole workspace makes its entries anew and frees those of before, which lie between others: glibc
    keeps for later as much as the tree itself takes.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
