"""The state that the loops of a workspace's sandboxes share: what changed here, who may write, and what tells of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING

from msgspec import Struct, field

from syncd.core.clock import Clock
from syncd.core.waiter import Tasks, Waiter
from syncd.daemon.control import ControlServer, Message
from syncd.daemon.left_sandbox import LeftSandbox
from syncd.daemon.signals import Signals
from syncd.model.manifest import Manifest
from syncd.report.status_publisher import WorkspaceStatus
from syncd.report.systemd_notify import SystemdNotifier
from syncd.sync.synced_hook import SyncedHook
from syncd.watch.changes import DirtyDirectories
from syncd.watch.inotify_watch import InotifyWatch
from syncd.watch.mounts import poll_interval_s
from syncd.watch.suspend_detector import SuspendDetector

if TYPE_CHECKING:
    from syncd.daemon.sandbox_loop import SandboxLoop


class Writer(Struct):
    """A command that writes to the workspace. `sandbox` is the name of the one whose state it changes, "" of any."""

    sandbox: str
    is_waiting: Callable[[], bool]
    send: Callable[[Message], None]
    is_ready: bool = False  # it was told that it may


class SharedState(Struct):
    """The state of one workspace. `loops` are those of its sandboxes, by name.

    `is_state_lost`: the state folder was removed, and can be made anew.
    """

    watch: InotifyWatch
    suspend_detector: SuspendDetector
    control: ControlServer
    signals: Signals
    synced_hook: SyncedHook
    status: WorkspaceStatus
    systemd: SystemdNotifier
    clock: Clock
    tasks: Tasks
    rescan_at_s: float  # of everything
    is_state_lost: Callable[[], bool]
    was_there: bool = False  # the workspace, at the start
    paused: bool = False  # by a person
    is_reload_asked: bool = False  # it comes once the syncs that were under way then have ended
    reload: bool = False  # the loops end, for another configuration
    is_snapshotting: bool = False
    full_scan_took_s: float = 0.0  # the last one
    dirty: DirtyDirectories = field(default_factory=DirtyDirectories)
    writers: list[Writer] = field(default_factory=list)  # that write, or wait to
    refused: set[str] = field(default_factory=set)  # the sandboxes that were, of a run in which none was synced to
    loops: dict[str, SandboxLoop] = field(default_factory=dict)
    left: list[LeftSandbox] = field(default_factory=list)

    # -- scans

    def scanned_all(self, name: str, rescan_in_s: float) -> None:
        """Note that everything is scanned now for this sandbox; the others get what it may find without an event."""
        self.rescan_at_s = self.clock.monotonic_s() + rescan_in_s
        for loop in self.loops.values():
            if loop.name != name:
                loop.look_soon()

    def plan_poll(self) -> None:
        """Have everything scanned again soon, where not every change has an event: since this scan, or for longer."""
        if self.watch.needs_polling:
            self.rescan_at_s = min(self.rescan_at_s, self.clock.monotonic_s() + poll_interval_s(self.full_scan_took_s))

    @contextmanager
    def snapshot_turn(self, waiter: Waiter) -> Iterator[None]:
        """Take a snapshot within the context: no other one is taken meanwhile, and no command writes. Raises `Stop`."""
        while self.is_snapshotting or any(each.is_ready for each in self.writers):
            waiter.wait(inf)
        self.is_snapshotting = True
        try:
            yield
        finally:
            self.is_snapshotting = False
            self.let_write()
            self.tasks.wake()

    # -- commands that write to the workspace

    def let_write(self) -> None:
        """Tell commands that they may write to the workspace, where no sync is in their way."""
        if self.is_snapshotting:
            return
        for writer in self.writers:
            in_way = [loop for loop in self.loops.values() if writer.sandbox in ("", loop.name) and loop.is_syncing]
            if not writer.is_ready and not in_way:
                writer.is_ready = True
                writer.send({"event": "ready"})

    def note_ended_writers(self) -> bool:
        """Have each sandbox synced after a command that wrote, as no event may have told of it; true if one ended."""
        waiting = [each for each in self.writers if each.is_waiting()]
        has_ended = len(waiting) < len(self.writers)
        if has_ended:
            self.writers = waiting
            self.dirty.mark_all()
            for loop in self.loops.values():
                loop.sync_soon()
        return has_ended

    def is_awaited_by_writer(self, name: str) -> bool:
        """True if a command waits for the sync to this sandbox to end."""
        return any(each.sandbox in ("", name) for each in self.writers)

    def keeps_from_syncing(self, name: str) -> bool:
        """True if no sync to this sandbox may begin, as a command writes to the workspace or waits for that."""
        return any(each.is_ready or each.sandbox in ("", name) for each in self.writers)

    # -- the sandboxes

    def sync_ended(self) -> None:
        """Go on with what waited for the end of a sync. A reload waits for none that began after it was asked for."""
        self.let_write()
        if self.is_reload_asked and not any(loop.delays_reload for loop in self.loops.values()):
            self.reload = True
            self.tasks.wake()

    def note_refusal(self, name: str) -> bool:
        """Note that this sandbox is refused before anything was synced; true if all are by now."""
        self.refused.add(name)
        return self.refused == self.loops.keys()

    def other_bases(self, name: str) -> list[Manifest]:
        """Return what the other sandboxes hold: what was sent to them is kept for their merges."""
        others = [loop.cycle.baseline for loop in self.loops.values() if loop.name != name]
        return [base for base in others if base is not None]

    def recall(self) -> None:
        """Have the status tell what is known now of what no loop does."""
        for loop in self.loops.values():
            loop.recall()
