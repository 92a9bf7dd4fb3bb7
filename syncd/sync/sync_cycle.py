"""One sync: snapshot, deliver, record. Its outcome is a value; what went wrong is raised.

look → equal to what the sandbox holds? unchanged
     → pack → lease → upload → verify → make way → initialize → record: initialized
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial

from syncd.archive.archive import DamagedPiece
from syncd.archive.packer import Packed
from syncd.archive.snapshotter import ScanResult, Snapshotter, SyncMode, described
from syncd.core.clock import Clock, stamp
from syncd.core.errors import SandboxNotFound, TryLater
from syncd.core.text import shown_path
from syncd.core.warning import SyncWarning
from syncd.remote.acquired_sandbox import replace_in_s
from syncd.remote.failure import FailureAction, StepFailed
from syncd.remote.target import Target
from syncd.sandbox.blocked_paths import BlockedPaths, PathsBlocked
from syncd.sandbox.blocked_paths_rules import without
from syncd.sandbox.deletions import DeletionSync
from syncd.sandbox.overwrite_check import OverwriteCheck
from syncd.sandbox.partial_archives import PartialArchives
from syncd.sandbox.provider import SandboxProvider
from syncd.sandbox.remote_changes import CheckList, check_list
from syncd.sandbox.removal_plan import Versions
from syncd.scan.manifest import Difference, Manifest, count_files, difference, replaced_entries, without_digest
from syncd.selection.secret_scanner import sent_secret_warning
from syncd.sync.delivery import Delivery, SyncObserver
from syncd.sync.follow_up import torn_copy
from syncd.sync.status_document import LastSync, State
from syncd.sync.sync_state import SyncState

_log = logging.getLogger("syncd.cycle")
# A disk that damages the same archive more often than this is beyond repair.
_REPAIRS = 3
# Each time more of the workspace is left out, as the sandbox has no place for it.
_TIMES_LEFT_OUT = 3


@dataclass(frozen=True)
class Outcome:
    """How a sync ended. `sync` is None where nothing had to be sent; `follow_up`: files changed while being read,
    or may be sent only now. `blocked` are paths whose place in the sandbox is taken: they, and what is below them, are
    left out.

    Those that are `torn` are in the sandbox, maybe half old and half new; the others had vanished when they were read.
    `change` is how the snapshot differs from the one before, None where nobody knows what the sandbox held.
    """

    sync: LastSync | None
    follow_up: tuple[str, ...] = ()
    files: int = 0
    change: Difference | None = None
    torn: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """The outcome's name in logs and in `push --json`."""
        return "initialized" if self.sync else "unchanged"


@dataclass(frozen=True)
class SandboxServices:
    """One sandbox, and what works there."""

    target: Target
    delivery: Delivery
    deletion_sync: DeletionSync
    small: PartialArchives
    inspection: OverwriteCheck
    blocked: BlockedPaths


@dataclass
class SyncCycle:
    """The syncs of one workspace, one after the other, to the sandbox that its lodging names."""

    provider: SandboxProvider
    equip: Callable[[Target], SandboxServices]
    snapshotter: Snapshotter
    sync_state: SyncState
    clock: Clock
    services: SandboxServices | None = None
    baseline: Manifest | None = None
    state_warnings: list[SyncWarning] = field(default_factory=list)
    torn: tuple[str, ...] = ()  # files whose copy in the sandbox may be half old and half new
    _possibly_applied: Manifest = field(default_factory=dict)  # sent since the baseline, without an answer that counts
    _whole_next: bool = False  # after a failure

    @property
    def target(self) -> Target | None:
        """The sandbox, once there is one."""
        return self.services.target if self.services else self.provider.known

    @property
    def moves_in_s(self) -> float | None:
        """Seconds until the next sandbox is due, whatever happens at home; None where that is not known."""
        acquired_sandbox = self.provider.acquired_sandbox
        return None if acquired_sandbox is None else replace_in_s(acquired_sandbox, self.clock.wall_s())

    @property
    def url_expires_at(self) -> str | None:
        """When the upload URL ends, for people."""
        return self.services.delivery.url_expires_at if self.services else None

    def recall(self) -> None:
        """Read what an earlier process left: which manifest the sandbox holds, as far as that is known."""
        target = self.provider.known
        if target is not None:
            self._move_into(target)

    def run(self, sync_mode: SyncMode, observer: SyncObserver, changed: Collection[str] | None = None) -> Outcome:
        """One sync, `changed` naming the only directories to look at.

        Raises `NeedsPerson`, `TryLater`, `StepFailed`, `Superseded`, `Stop`; nothing is half recorded.
        """
        try:
            return self._sync_the_rest(self._services_for_target(observer), sync_mode, observer, changed)
        except StepFailed as failure:
            if not self._moved_out(failure):
                raise
        try:
            return self._sync_the_rest(self._services_for_target(observer), sync_mode, observer, None)
        except StepFailed as failure:
            if not self._moved_out(failure):
                raise
            # Nobody has to mend that: another one is acquired for the next sync, at a bounded rate.
            message = f"the sandbox ended as soon as it was acquired ({failure.message})"
            raise StepFailed(failure.step, FailureAction.RETRY, message, "it goes on with another one") from None

    def forget_stamps(self, paths: Collection[str] | None) -> None:
        """Have the next sync read these files whatever their times say; None: all of which that may not be true."""
        self.snapshotter.forget_stamps(self.baseline or {}, paths)

    def _moved_out(self, failure: StepFailed) -> bool:
        """Whether the failure says that the sandbox is gone, and another one may follow."""
        gone = failure.action is FailureAction.REFUSED and issubclass(failure.refusal, SandboxNotFound)
        if not gone or self.services is None:
            return False
        self.services.deletion_sync.forget()
        self.services.blocked.forget()
        if not self.provider.mark_lost(self.services.target):
            return False
        self.services = None
        return True

    def _services_for_target(self, observer: SyncObserver) -> SandboxServices:
        target = self.provider.target(observer)
        if self.services is not None and self.services.target == target:
            return self.services
        return self._move_into(target)

    def _move_into(self, target: Target) -> SandboxServices:
        self.services = self.equip(target)
        self.baseline, self.state_warnings = self.sync_state.initialized(target)
        self.torn = tuple(without_digest(self.baseline or {}))
        self._possibly_applied, self._whole_next = self.sync_state.possibly_applied(target), False
        return self.services

    @property
    def leftover_files(self) -> int:
        """How many files that were deleted here are still in the sandbox."""
        return self.services.deletion_sync.leftover_files if self.services else 0

    def _sync_the_rest(
        self, services: SandboxServices, sync_mode: SyncMode, observer: SyncObserver, changed: Collection[str] | None
    ) -> Outcome:
        """One sync of all whose place in the sandbox is free: one path never stops the others."""
        for _ in range(_TIMES_LEFT_OUT + 1):
            try:
                outcome = self._sync(services, sync_mode, observer, changed)
            except PathsBlocked:
                services.inspection.exclude(services.blocked.paths)
                continue
            follow_up = (*outcome.follow_up, *services.blocked.unblocked)
            return replace(outcome, follow_up=follow_up, blocked=services.blocked.paths)
        raise TryLater("more and more places in the sandbox are taken", "it is tried again by itself")

    def _sync(
        self, services: SandboxServices, sync_mode: SyncMode, observer: SyncObserver, changed: Collection[str] | None
    ) -> Outcome:
        started_s = self.clock.monotonic_s()
        if self.baseline is not None and not self.sync_state.uncertain:
            self._possibly_applied = {}  # no initialize was asked for with it
        if sync_mode is SyncMode.FORCED:
            services.deletion_sync.retry_all()
            services.inspection.forget()
            self.snapshotter.disbelieve_all(self.baseline or {})
        observer.stage(State.SNAPSHOTTING)
        look = self._set_aside(services, self.snapshotter.look(self.baseline, sync_mode, changed))
        files = count_files(look.manifest.values())
        if sync_mode is SyncMode.CHANGED and self._unchanged(services, look):
            return Outcome(None, files=files)
        uncertain = "; an earlier sync may have reached the sandbox unanswered" if self.sync_state.uncertain else ""
        _log.info("packaging %d files: %s%s", files, described(look.difference), uncertain)
        only = None
        if sync_mode is SyncMode.FORCED:
            look = self.snapshotter.resolved(look, self.baseline or {})  # what stands need not be compressed again
        if not self._whole_next and self._part_will_do(services, look, sync_mode):
            look = self.snapshotter.resolved(look, self.baseline or {})
            only = _part(look)
        packed = self.snapshotter.pack(look.manifest, services.delivery.uplink.codec, only, observer.packed)
        if sync_mode is SyncMode.CHANGED and not packed.follow_up and self._same(services, packed):
            return Outcome(None, files=files)
        paths_to_delete = self._paths_to_delete(services, packed.manifest, packed.follow_up)
        before_initialize = partial(
            _before_initialize, services, self._asked(packed.manifest, only), paths_to_delete, packed.manifest
        )
        find_reason = partial(services.blocked.find, packed.manifest, only)
        self._expect(services, packed.manifest)
        self._whole_next = True  # until this one has succeeded
        small = packed if only is not None else None  # what is made anew on the way is whole, and proves nothing
        packed, sha256 = self._deliver(services, packed, look.manifest, (before_initialize, find_reason), observer)
        services.inspection.initialized()
        if packed is small and not services.small.proved(packed.manifest):
            # The journal's mark stands all the while: after a death here, too, the whole is sent.
            _log.info("after a small archive, a whole one follows")
            return self._sync(services, sync_mode, observer, None)
        self._whole_next = False
        sync = LastSync(
            finished_at=stamp(self.clock.wall_s()),
            files=count_files(packed.manifest.values()),
            archive_bytes=packed.archive.size_bytes,
            sha256=sha256,
            seconds=round(self.clock.monotonic_s() - started_s, 3),
        )
        change = look.difference if self.baseline is not None else None
        self._remember(services, packed.manifest, packed.follow_up)
        if packed.follow_up:
            _log.info(
                "%d files changed while being read (%s): another sync follows",
                len(packed.follow_up),
                shown_path(packed.follow_up[0]),
            )
        return Outcome(sync, tuple(packed.follow_up), sync.files, change, self.torn)

    def _part_will_do(self, services: SandboxServices, look: ScanResult, sync_mode: SyncMode) -> bool:
        """Whether it is enough to send what changed; the whole is sent after any doubt."""
        sure = self.baseline is not None and not self.sync_state.uncertain
        if not sure or sync_mode is not SyncMode.CHANGED or not services.small.usable or not look.manifest:
            return False
        return not services.deletion_sync.resets(self._paths_to_delete(services, look.manifest, ()))

    def _set_aside(self, services: SandboxServices, look: ScanResult) -> ScanResult:
        """The look without what is known to be blocked."""
        aside, baseline = services.blocked.withhold(look.manifest), self.baseline or {}
        if not aside:
            return look
        manifest = without(look.manifest, aside)
        look = ScanResult(manifest, difference(baseline, manifest))
        return look if look.difference.certain else self.snapshotter.resolved(look, baseline)

    def _paths_to_delete(self, services: SandboxServices, wanted: Manifest, follow_up: Collection[str]) -> Versions:
        held = (self.baseline or {}, self._possibly_applied)
        wanted = services.blocked.with_withheld(wanted)  # nobody deleted that
        return services.deletion_sync.paths_to_delete(held, wanted, {*self.snapshotter.unread, *follow_up})

    def _asked(self, manifest: Manifest, only: Collection[str] | None) -> Callable[[], CheckList]:
        """What is to be known of the sandbox before this is put over what is there, worked out only if it is asked."""
        baseline, possibly_applied = self.baseline or {}, dict(self._possibly_applied)
        missed = () if self.sync_state.uncertain else baseline.keys()  # what a reset may have taken is no one's doing
        return lambda: check_list(manifest, only, (baseline, possibly_applied), missed)

    def _expect(self, services: SandboxServices, manifest: Manifest) -> None:
        """What comes without an answer is ours, too, in this process and the next."""
        new = {path: manifest[path] for path in replaced_entries(self.baseline or {}, manifest)}
        self._possibly_applied |= new
        if new and (services.deletion_sync.removes or services.inspection.enabled):
            with contextlib.suppress(OSError):  # then it counts as someone else's if this process dies meanwhile
                self.sync_state.record_possibly_applied(services.target, self._possibly_applied)

    def _deliver(
        self,
        services: SandboxServices,
        packed: Packed,
        manifest: Manifest,
        context: tuple[Callable[[], None], Callable[[], bool]],
        observer: SyncObserver,
    ) -> tuple[Packed, str]:
        """What was delivered, and its SHA-256. Damaged chunks are made anew: what went out of them was never whole."""
        delivery = services.delivery
        for _ in range(_REPAIRS):
            try:
                return packed, delivery.deliver(packed.archive, packed.archive.identity, observer, *context)
            except DamagedPiece as damage:
                _log.warning("%s: it is made anew", damage)
                packed = self.snapshotter.repack(manifest, damage.piece, delivery.uplink.codec)
        raise TryLater("the spool keeps losing what is written to it", "look at the disk that holds it")

    def _unchanged(self, services: SandboxServices, look: ScanResult) -> bool:
        if self.sync_state.uncertain or look.difference.certain or look.difference.uncertain:
            return False
        if services.blocked.changed or self._owes(services, look.manifest):
            return False
        if self.baseline is not None and self.baseline != look.manifest:
            # The same contents under new times: later scans need not read them again.
            self._remember(services, look.manifest)
        return True

    def _same(self, services: SandboxServices, packed: Packed) -> bool:
        """What was packed is what the sandbox holds: a change was taken back in the meantime."""
        if self.sync_state.uncertain or self.baseline is None:
            return False
        if services.blocked.changed or self._owes(services, packed.manifest):
            return False
        found = difference(self.baseline, packed.manifest)
        return not found.certain and not found.uncertain

    def _owes(self, services: SandboxServices, manifest: Manifest) -> bool:
        unread = {*self.snapshotter.unread, *services.blocked.paths}
        return services.deletion_sync.has_pending(services.blocked.with_withheld(manifest), unread)

    def _remember(self, services: SandboxServices, manifest: Manifest, follow_up: Collection[str] = ()) -> None:
        held = (self.baseline or {}, self._possibly_applied)
        unread = {*self.snapshotter.unread, *follow_up, *services.blocked.withheld}
        self.baseline = manifest
        self.torn = tuple(path for path in follow_up if path in manifest)
        self._possibly_applied = {}
        try:
            secret_files = set(self.snapshotter.secret_files)
            with services.deletion_sync.recording(held, manifest, unread, secret_files):
                self.sync_state.record_initialized(services.target, manifest)
            self.state_warnings = []
        except OSError as failure:
            self.state_warnings = [
                SyncWarning(
                    "state:write",
                    f"what was synced cannot be recorded ({failure.strerror})",
                    "make the state folder writable; until then a restart uploads everything anew",
                )
            ]

    @property
    def warnings(self) -> list[SyncWarning]:
        """What the last scan, the sandbox and the state folder give reason to complain about."""
        return [
            *self.snapshotter.warnings,
            *self._secrets(),
            *map(torn_copy, self.torn),
            *(self.services.deletion_sync.warnings if self.services else ()),
            *(self.services.blocked.warnings if self.services else ()),
            *(self.services.small.warnings if self.services else ()),
            *(self.services.inspection.warnings if self.services else ()),
            *self.state_warnings,
        ]

    def _secrets(self) -> list[SyncWarning]:
        """What stays home for a secret in it, and what may be in the sandbox of it, be it gone here by now."""
        deletion_sync, secret_files = (
            self.services.deletion_sync if self.services else None,
            set(self.snapshotter.secret_files),
        )

        def may_be_there(path: str) -> bool:
            sent = path in (self.baseline or {}) or path in self._possibly_applied
            return sent or (deletion_sync is not None and deletion_sync.has_leftover(path))

        left = deletion_sync.secret_leftovers - secret_files if deletion_sync else ()
        return [*self.snapshotter.secret_files.warnings(may_be_there), *map(sent_secret_warning, sorted(left))]


def _before_initialize(
    services: SandboxServices, ask: Callable[[], CheckList], paths_to_delete: Versions, manifest: Manifest
) -> None:
    services.inspection.check(ask)
    suspects = services.deletion_sync.remove(paths_to_delete, services.blocked.with_withheld(manifest))
    services.blocked.recheck(suspects, manifest)


def _part(look: ScanResult) -> set[str] | None:
    """What a small archive holds; with something little besides, since one of nothing may be none to a server.

    None where it would lack nothing: such a one is no small one, and proves nothing. Folders come with what is in them.
    """
    found = look.difference
    least = min(look.manifest, key=lambda path: look.manifest[path].size_bytes)
    part = {*found.added, *found.changed, *found.uncertain, least}
    with_folders = set(part)
    for path in part:
        while path := path.rpartition("/")[0]:
            with_folders.add(path)
    return part if any(path not in with_folders for path in look.manifest) else None
