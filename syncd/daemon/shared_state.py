"""The state that the loops of a workspace's sandboxes share: what changed here, and what is asked of all of them."""

from __future__ import annotations

from msgspec import Struct, field

from syncd.core.clock import Clock
from syncd.core.waiter import Tasks
from syncd.daemon.left_sandbox import LeftSandbox
from syncd.report.status_publisher import WorkspaceStatus
from syncd.report.systemd_notify import SystemdNotifier
from syncd.sync.synced_hook import SyncedHook
from syncd.watch.changes import DirtyDirectories
from syncd.watch.inotify_watch import InotifyWatch
from syncd.watch.mounts import poll_interval_s


class SharedState(Struct):
    """The state of one workspace."""

    watch: InotifyWatch
    synced_hook: SyncedHook
    status: WorkspaceStatus
    systemd: SystemdNotifier
    clock: Clock
    tasks: Tasks
    rescan_at_s: float  # of everything
    was_there: bool  # the workspace, at the start
    paused: bool = False  # by a person
    reload: bool = False  # the loops end, for another configuration
    reload_waits_for: set[str] | None = None  # the syncs that were under way when one was asked for
    full_scan_took_s: float = 0.0  # the last one
    dirty: DirtyDirectories = field(default_factory=DirtyDirectories)
    refused: set[str] = field(default_factory=set)  # the sandboxes that were, of a run in which none was synced to
    left: list[LeftSandbox] = field(default_factory=list)

    @property
    def has_several(self) -> bool:
        """True if the workspace has several sandboxes, so that each is named."""
        return len(self.status.publishers) > 1

    def plan_poll(self) -> None:
        """Have everything scanned again soon, where not every change has an event: since this scan, or for longer."""
        if self.watch.needs_polling:
            self.rescan_at_s = min(self.rescan_at_s, self.clock.monotonic_s() + poll_interval_s(self.full_scan_took_s))

    def ask_for_reload(self, syncing: set[str]) -> None:
        """Reload once these syncs have ended; for none that begins later."""
        self.reload_waits_for = set(syncing)
        self._reload_if_due()

    def sync_ended(self, name: str) -> None:
        """Go on with a reload that waited for the end of this sync."""
        if self.reload_waits_for is not None:
            self.reload_waits_for.discard(name)
            self._reload_if_due()

    def delays_reload(self, name: str) -> bool:
        """True if a reload waits for the end of this sync, which gives way to it."""
        return self.reload_waits_for is not None and name in self.reload_waits_for

    def _reload_if_due(self) -> None:
        if self.reload_waits_for == set():
            self.reload = True
            self.tasks.wake()

    def note_refusal(self, name: str) -> bool:
        """Note that this sandbox is refused before anything was synced; true if all are by now."""
        self.refused.add(name)
        return len(self.refused) == len(self.status.publishers)
