"""The state that the loops of a workspace's sandboxes share: what changed here, who may write, and what tells of it."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from syncd.core.clock import Clock
from syncd.core.waiter import TaskLock, Tasks
from syncd.daemon.control import ControlServer, Message
from syncd.daemon.left_sandbox import LeftSandbox
from syncd.daemon.signals import Signals
from syncd.report.status_publisher import WorkspaceStatus
from syncd.report.systemd_notify import SystemdNotifier
from syncd.sync.synced_hook import SyncedHook
from syncd.watch.changes import DirtyDirectories
from syncd.watch.inotify_watch import InotifyWatch
from syncd.watch.mounts import poll_interval_s
from syncd.watch.suspend_detector import SuspendDetector


class Writer(Struct):
    """A command that writes to the workspace. `sandbox` is the name of the one whose state it changes, "" of any."""

    sandbox: str
    is_waiting: Callable[[], bool]
    send: Callable[[Message], None]
    is_ready: bool = False  # it was told that it may


class SharedState(Struct):
    """The state of one workspace. `turn` is held by the sandbox whose snapshot is taken."""

    watch: InotifyWatch
    suspend_detector: SuspendDetector
    control: ControlServer
    signals: Signals
    synced_hook: SyncedHook
    status: WorkspaceStatus
    systemd: SystemdNotifier
    clock: Clock
    tasks: Tasks
    turn: TaskLock
    rescan_at_s: float  # of everything
    was_there: bool = False  # the workspace, at the start
    paused: bool = False
    is_reload_asked: bool = False  # it comes once the syncs that were under way then have ended
    reload: bool = False  # the loops end, for another configuration
    dirty: DirtyDirectories = field(default_factory=DirtyDirectories)
    writers: list[Writer] = field(default_factory=list)
    on_scanned_all: Callable[[str], None] = lambda _: None
    on_sync_ended: Callable[[], None] = lambda: None
    is_state_lost: Callable[[], bool] = lambda: False  # the state folder was removed, and can be made anew
    on_written: Callable[[], None] = lambda: None  # what counts as sent may be another, without any event
    refused: set[str] = field(default_factory=set)  # the sandboxes that were, of a run in which none was synced to
    names: frozenset[str] = frozenset()
    left: list[LeftSandbox] = field(default_factory=list)

    def scanned_all(self, name: str, rescan_in_s: float) -> None:
        """Note that everything is scanned now for this sandbox."""
        self.rescan_at_s = self.clock.monotonic_s() + rescan_in_s
        self.on_scanned_all(name)

    def plan_poll(self, scan_took_s: float) -> None:
        """Have everything scanned again soon, after a scan that took so long, where not every change has an event."""
        if self.watch.needs_polling:
            self.rescan_at_s = min(self.rescan_at_s, self.clock.monotonic_s() + poll_interval_s(scan_took_s))

    def note_refusal(self, name: str) -> bool:
        """Note that this sandbox is refused before anything was synced; true if all are by now."""
        self.refused.add(name)
        return self.refused == self.names

    def open_writers(self) -> list[Writer]:
        """Return the commands that write, or wait to."""
        before = len(self.writers)
        self.writers = [each for each in self.writers if each.is_waiting()]
        if len(self.writers) < before:
            self.on_written()
        return self.writers

    def is_awaited_by_writer(self, name: str) -> bool:
        """True if a command waits for the sync to this sandbox to end."""
        return any(each.sandbox in ("", name) for each in self.open_writers())

    def keeps_from_syncing(self, name: str) -> bool:
        """True if no sync to this sandbox may begin, as a command writes to the workspace or waits for that."""
        return any(each.is_ready or each.sandbox in ("", name) for each in self.open_writers())
