"""The state that the loops of a workspace's sandboxes share: what changed here, and what is asked of all of them."""

from __future__ import annotations

from math import inf

from msgspec import Struct, field

from syncd.daemon.left_sandbox import LeftSandbox
from syncd.report.status_publisher import WorkspaceStatus
from syncd.sync.status_document import State
from syncd.sync.synced_hook import SyncedHook
from syncd.watch.changes import Burst, DirtyDirectories
from syncd.watch.inotify_watch import InotifyWatch
from syncd.watch.mounts import poll_interval_s


class SyncRun(Struct, eq=False):
    """The sync of a sandbox that is under way, or its last one. Times are monotonic seconds."""

    started_s: float
    burst: Burst | None = None  # the changes that it began with
    is_on: bool = True  # under way
    is_unprompted: bool = False  # nobody asked, and nothing is known to have changed
    scanned: frozenset[str] | None = None
    stage: State | None = None  # the one that it shows
    has_slept: bool = False  # the machine, since the stage began


class SharedState(Struct):
    """The state of one workspace."""

    watch: InotifyWatch
    synced_hook: SyncedHook
    status: WorkspaceStatus
    was_there: bool  # the workspace, at the start
    rescan_at_s: float = -inf  # of everything
    paused: bool = False  # by a person
    reload_after: list[SyncRun] | None = None  # a reload is asked for, and waits for these; None: none is
    full_scan_took_s: float = 0.0  # the last one
    dirty: DirtyDirectories = field(default_factory=DirtyDirectories)
    refused: set[str] = field(default_factory=set)  # the sandboxes that were, of a run in which none was synced to
    left: list[LeftSandbox] = field(default_factory=list)

    @property
    def has_several(self) -> bool:
        """True if the workspace has several sandboxes, so that each is named."""
        return len(self.status.publishers) > 1

    def delays_reload(self, sync: SyncRun) -> bool:
        """True if a reload waits for the end of this sync, which gives way to it."""
        return sync.is_on and self.reload_after is not None and sync in self.reload_after

    def plan_poll(self, now_s: float) -> None:
        """Have everything scanned again soon, where not every change has an event: since this scan, or for longer."""
        if self.watch.needs_polling:
            self.rescan_at_s = min(self.rescan_at_s, now_s + poll_interval_s(self.full_scan_took_s))

    @property
    def reload(self) -> bool:
        """True if the loops are to end, for another configuration."""
        return self.reload_after is not None and not any(each.is_on for each in self.reload_after)

    def note_refusal(self, name: str) -> bool:
        """Note that this sandbox is refused before anything was synced; true if all are by now."""
        self.refused.add(name)
        return len(self.refused) == len(self.status.publishers)
