"""What the loop of one sandbox has to do: what is due, who asks for a sync, and what keeps it from one.

`daemon.scheduler` decides what is next; this keeps the values that the decision rests on. Those that all loops of a
workspace share are in `SharedState`.
"""

from __future__ import annotations

from math import inf

from msgspec import Struct, field

from syncd.archive.snapshotter import SyncMode
from syncd.core.waiter import NewerEvents
from syncd.daemon.removed_sandbox import RemovedSandbox
from syncd.daemon.scheduler import Action, Due, Facts, newer_events, next_action
from syncd.daemon.sync_requests import RequestQueue, SyncRequest
from syncd.report.status_publisher import WorkspaceStatus
from syncd.sync.sync_cycle import SyncCycle
from syncd.sync.synced_hook import SyncedHook
from syncd.sync.workspace import Workspace
from syncd.watch.changes import DirtyDirectories
from syncd.watch.inotify_watch import InotifyWatch


class SharedState(Struct):
    """The state of one workspace, by which all its loops go."""

    workspace: Workspace
    watch: InotifyWatch
    synced_hook: SyncedHook
    status: WorkspaceStatus
    removed_sandboxes: list[RemovedSandbox]
    dirty: DirtyDirectories
    was_there: bool  # the workspace, at the start
    paused: bool  # by a person
    reload_after: set[str] | None = None  # a reload is asked for, and waits for the syncs of these; None: none is
    refused: set[str] = field(default_factory=set)  # the sandboxes whose last sync was, until one succeeds

    @property
    def has_several(self) -> bool:
        """True if the workspace has several sandboxes, so that each is named."""
        return len(self.status.publishers) > 1

    @property
    def reload(self) -> bool:
        """True if the loops are to end, for another configuration."""
        return self.reload_after is not None and not self.reload_after

    def delays_reload(self, name: str) -> bool:
        """True if a reload waits for the end of the sync to this sandbox, which gives way to it."""
        return self.reload_after is not None and name in self.reload_after


class Agenda:
    """What is due for one sandbox by now, and who asks for it. Times are monotonic seconds."""

    def __init__(self, cycle: SyncCycle, shared: SharedState) -> None:
        self._cycle = cycle
        self._shared = shared
        self._clock = cycle.access.clock
        now_s, times = self._clock.monotonic_s(), cycle.access.config.sync
        # What changed while nothing ran is not known.
        self.due = Due(times.debounce_seconds, times.max_wait_seconds, rescan_at_s=now_s, starting=True)
        self.requests = RequestQueue()
        self.asked_s = -inf  # when the last request came
        self.has_slept = False  # the machine, since the stage of the sync began

    def next_action(self) -> Action:
        """Return what is done now, or until when nothing is."""
        return next_action(self.due, self._facts, self._clock.monotonic_s())

    def newer_events(self) -> NewerEvents:
        """Return the events to which a sync may give way."""
        return newer_events(self.due, self._facts, self._clock.monotonic_s())

    @property
    def _facts(self) -> Facts:
        """What others have this loop do, or leave, as of now."""
        shared, cycle = self._shared, self._cycle
        rescan_at_s = min(shared.dirty.rescan_at_s, cycle.provider.replace_at_s)
        return Facts(
            requested=self.requests.has_fresh,
            paused=self.is_paused,
            # Nor does a sync begin while a reload waits for a writer alone.
            has_writer=shared.reload or shared.workspace.keeps_from_syncing(cycle.name),
            reloads=shared.reload or shared.delays_reload(cycle.name),
            slept=self.has_slept,
            rescan_at_s=-inf if cycle.snapshotter.misses_a_scan else rescan_at_s,
            save_at_s=cycle.save_at_s,
        )

    @property
    def is_paused(self) -> bool:
        """True if a person paused, and nobody waits for a sync: given up, that would be begun again without end."""
        return self._shared.paused and not self.requests.is_awaited

    @property
    def bars_looks(self) -> bool:
        """True if the sandbox is not to be asked: a person paused, or the key is refused."""
        return self.is_paused or self.due.awaits_person

    # -- what happened

    def add(self, request: SyncRequest) -> None:
        self.requests.add(request)
        self.asked_s = self._clock.monotonic_s()

    def sync_soon(self) -> None:
        """Sync as after a change."""
        self.due = self.due.with_change(self._clock.monotonic_s())

    def woke(self, slept_s: float) -> None:
        """The machine slept."""
        self.due = self.due.woken(slept_s, self._clock.monotonic_s())
        self.has_slept = True

    def begin(self) -> SyncMode:
        """A sync begins, for all that is due and asked for. Returns what the requests ask of it."""
        self.due, self.has_slept = self.due.begun(), False
        return self.requests.begin()
