"""One sync: scan, archive, upload, initialize, record. Its outcome is a value; a failure is raised.

scan → equal to what the sandbox holds? unchanged
     → archive → upload URL → upload, and a look beside it → deletions → initialize → record: initialized
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection

from msgspec import Struct, field, structs

from syncd.archive.base_store import BaseStore
from syncd.archive.chunk_store import DamagedPiece
from syncd.archive.packer import Packed
from syncd.archive.snapshotter import ScanResult, Snapshotter, SyncMode, described
from syncd.core.choices import AgentChanges
from syncd.core.clock import Clock, stamp
from syncd.core.errors import SandboxNotFound, TryLater
from syncd.core.text import MOST_NAMED, counted, shown_path
from syncd.core.warning import SyncWarning
from syncd.model.entry import ALL_BITS, Entry, arrived_digest, same
from syncd.model.manifest import (
    Difference,
    Manifest,
    difference,
    directories_above,
    removed_paths,
    replaced_entries,
    without_digest,
)
from syncd.model.reconcile import Forced, Policy
from syncd.remote.failure import FailureAction, StepFailed
from syncd.remote.target import Target, margin_s
from syncd.sandbox.blocked_paths import PathsBlocked
from syncd.sandbox.blocked_paths_rules import entries_within, without
from syncd.sandbox.leftovers import Versions
from syncd.sandbox.partial_archives import Kept
from syncd.sandbox.provider import SandboxProvider
from syncd.sandbox.saved_versions_rules import SentEntry, Why
from syncd.selection.secret_scanner import sent_secret_warning
from syncd.sync.arrived_changes import SentContent, arrived_changes
from syncd.sync.delivery import SyncObserver
from syncd.sync.follow_up import torn_copy
from syncd.sync.outcome import Outcome
from syncd.sync.preparation import ContentLost, LookIsOld, PathsWithheld, Preparation
from syncd.sync.sandbox_services import SandboxServices
from syncd.sync.stages import ArchivedSnapshot, DeliveredArchive, RequestedSync
from syncd.sync.status_document import AgentStatus, LastSync, State
from syncd.sync.sync_plan import MOST_UNANSWERED, SandboxContent, least_of, partial_paths, without_held
from syncd.sync.sync_state import SyncState
from syncd.sync.work_saver import WorkSaver

_log = logging.getLogger("syncd.cycle")
# A disk that damages the same archive more often than this is beyond repair.
_REPAIRS = 3
# So many of the paths that the archive of the proof lacks are counted afterwards.
_PROOF = 2000
# How often one sync is begun again: paths are blocked or stay as they are in the sandbox, or the look is too old.
_TIMES_LEFT_OUT = 4


class SyncCycle(Struct):
    """The syncs of one workspace, one after the other, to the sandbox that its provider names."""

    provider: SandboxProvider
    build_services: Callable[[Target], SandboxServices]
    snapshotter: Snapshotter
    sync_state: SyncState
    base_store: BaseStore
    work_saver: WorkSaver
    clock: Clock
    services: SandboxServices | None = None
    baseline: Manifest | None = None
    state_warnings: list[SyncWarning] = field(default_factory=list)
    torn: tuple[str, ...] = ()  # files whose copy in the sandbox may be half old and half new
    _possibly_applied: tuple[Manifest, ...] = ()  # what was sent since the baseline, and not answered
    _held_here: dict[str, Entry] = field(default_factory=dict)  # the entries here of held paths, at the last scan
    _told: SentContent = field(default_factory=SentContent)  # what the sandbox held at the last outcome
    _whole_next: bool = False  # set from an initialize on until its sync has succeeded

    # -- the sandbox

    @property
    def target(self) -> Target | None:
        """The sandbox, once there is one."""
        return self.services.target if self.services else self.provider.known

    @property
    def url_expires_at(self) -> str | None:
        """The time when the upload URL expires, for people."""
        return self.services.delivery.url_expires_at if self.services else None

    @property
    def leftover_files(self) -> int:
        """The number of files that were deleted in the workspace and are still in the sandbox."""
        return self.services.deletion_sync.leftover_files if self.services else 0

    @property
    def agent_status(self) -> AgentStatus:
        """The agent's side, as far as it is known."""
        if self.services is None:
            return AgentStatus()
        remote_changes = self.services.remote_changes
        held, known = remote_changes.held, remote_changes.changes_there.load()
        named = tuple(os.fsencode(path).decode("utf-8", "backslashreplace") for path in held[:MOST_NAMED])
        return AgentStatus(remote_changes.saved_versions.count, named, len(held), known.looked_at, len(known.paths))

    def recall(self) -> None:
        """Read what an earlier process recorded: the manifest that the sandbox holds, as far as it is known."""
        target = self.provider.known
        if target is None:
            return
        recorded = self.sync_state.recorded_target()
        if recorded is None or recorded.same_sandbox(target) or recorded.base_url != target.base_url:
            self._switch_to(target)

    @property
    def save_in_s(self) -> float:
        """Seconds until the agent's work is to be saved, as an acquired sandbox ends; infinity if it never is."""
        save_in_s = self.work_saver.due_s - self.clock.monotonic_s()
        if self.services is None or self.work_saver.is_begun(self.services.target):
            return save_in_s
        ends_in_s = self.provider.replace_in_s
        return save_in_s if ends_in_s is None else min(save_in_s, ends_in_s)

    def save_before_end(self) -> None:
        """Save the agent's work in a sandbox that ends soon, and again until its end. Raises `Stop`."""
        acquired_sandbox = self.provider.acquired_sandbox
        if self.services is not None and acquired_sandbox is not None and self.provider.replace_in_s == 0.0:
            self.work_saver.begin(self.services, self._content, margin_s(acquired_sandbox))
        self.work_saver.save_due()

    def _leave_recorded_sandbox(self, target: Target) -> None:
        """Save the agent's work in the sandbox of the last record, if another one takes its place now."""
        recorded = self.sync_state.recorded_target()
        if recorded is None or recorded.same_sandbox(target) or recorded.base_url != target.base_url:
            return
        if self.services is None or not self.services.target.same_sandbox(recorded):
            self._switch_to(recorded)
        if self.services is not None:
            self.work_saver.before_move(self.services, self._content)

    def _current_services(self, observer: SyncObserver) -> SandboxServices:
        if self.provider.known is None:
            self.save_before_end()
        target = self.provider.target(observer)
        if self.services is not None and self.services.target == target:
            return self.services
        self._leave_recorded_sandbox(target)
        return self._switch_to(target)

    def _switch_to(self, target: Target) -> SandboxServices:
        self.services = self.build_services(target)
        self.baseline, self.state_warnings = self.sync_state.initialized(target)
        self.torn = tuple(without_digest(self.baseline or Manifest()))
        if self.baseline is not None:
            self.services.agent_repository.recall(self.baseline, self.sync_state.base_identity)
        self._possibly_applied, self._whole_next = self.sync_state.unanswered(target), False
        self._told = SentContent(self.baseline, self.services.deletion_sync.leftovers)
        return self.services

    def _leave_sandbox(self, failure: StepFailed) -> bool:
        """Forget the sandbox if the failure says that it is gone. True if another one may be acquired."""
        gone = failure.action is FailureAction.REFUSED and issubclass(failure.refusal, SandboxNotFound)
        if not gone or self.services is None:
            return False
        self.services.forget()
        if not self.provider.mark_lost(self.services.target):
            return False
        self.services = None
        return True

    # -- one sync

    def run(self, sync_mode: SyncMode, observer: SyncObserver, changed: Collection[str] | None = None) -> Outcome:
        """Sync once; `changed` are the only directories to scan.

        Raises `NeedsPerson`, `TryLater`, `StepFailed`, `Superseded`, `Stop`; nothing is recorded by half.
        """
        self._read_again()
        try:
            return self._sync_unblocked(RequestedSync(self._current_services(observer), sync_mode, observer, changed))
        except StepFailed as failure:
            if not self._leave_sandbox(failure):
                raise
        try:
            return self._sync_unblocked(RequestedSync(self._current_services(observer), sync_mode, observer, None))
        except StepFailed as failure:
            if not self._leave_sandbox(failure):
                raise
            # The next sync acquires another sandbox, at a bounded rate.
            message = f"the sandbox ended as soon as it was acquired ({failure.message})"
            raise StepFailed(failure.step, FailureAction.RETRY, message, "it goes on with another one") from None

    def forget_stamps(self, paths: Collection[str] | None) -> None:
        """Have the next sync read these files whatever their stamps say; None: see `Snapshotter.forget_stamps`."""
        baseline = self.snapshotter.forget_stamps(self.baseline or Manifest(), paths)
        if self.baseline is not None:
            self.baseline = baseline

    def _sync_unblocked(self, run: RequestedSync) -> Outcome:
        """Sync the paths that can be written: one that is blocked, or stays as it is, never stops the others."""
        services = run.services
        for attempt in range(_TIMES_LEFT_OUT + 1):
            whole_next, run = self._whole_next, structs.replace(run, attempt=attempt)
            try:
                outcome = self._sync(run)
            except (PathsBlocked, LookIsOld):
                continue
            except PathsWithheld:
                self._whole_next = whole_next  # nothing was put there
                run = structs.replace(run, withheld=run.withheld + 1)
                if run.mode is SyncMode.FORCED:
                    remote_changes = services.remote_changes
                    run = structs.replace(run, unsaved=remote_changes.kept.union(remote_changes.held))
                continue
            except ContentLost:
                _log.warning("the sandbox lost what was put there: everything is sent again")
                self._whole_next = True
                services.delivery.mark_uncertain()
                self._told = SentContent()
                run = structs.replace(run, changed=None)
                continue
            told, self._told = self._told, SentContent(self.baseline, services.deletion_sync.leftovers)
            arrived = arrived_changes(told, self._told) if outcome.sync else None
            follow_up = (*outcome.follow_up, *services.blocked_paths.unblocked, *services.remote_changes.released)
            blocked, held = services.blocked_paths.paths, services.remote_changes.held
            counts = services.remote_changes.take_saved()
            saved, overwritten = sum(counts.values()), counts.get(Why.OVERWRITTEN, 0) + counts.get(Why.REMOVED, 0)
            if run.mode is SyncMode.FORCED:
                overwritten = 0
            outcome = structs.replace(outcome, follow_up=follow_up, blocked=blocked, held=held)
            return structs.replace(outcome, saved=saved, overwritten=overwritten, arrived=arrived)
        raise TryLater("more and more paths in the sandbox must not be written", "it is tried again by itself")

    def _sync(self, run: RequestedSync) -> Outcome:
        """Scan, compare, archive, deliver, record."""
        started_s = self.clock.monotonic_s()
        scanned = self._scan(run)
        files = scanned.manifest.files
        if run.mode is SyncMode.CHANGED and self._is_unchanged(run.services, scanned.manifest, scanned.difference):
            self._record_new_times(run.services, scanned.manifest)
            return Outcome(None, files=files)
        archived = self._archive(run, scanned)
        if run.mode is SyncMode.CHANGED and self._was_reverted(run.services, archived):
            return Outcome(None, files=files)
        delivered = self._deliver(run, archived)
        outcome = self._finish(run.services, archived.scanned.difference, delivered, started_s)
        if not delivered.is_partial and not self._prove(run, delivered):
            # The mark `uncertain` is still set: a process that dies at this point is followed by a whole archive too.
            _log.info("after a partial archive, a whole one follows")
            return self._sync(structs.replace(run, changed=None))
        return outcome

    def _scan(self, run: RequestedSync) -> ScanResult:
        """Scan the workspace, and leave out the paths that are known to be blocked or held."""
        services, baseline = run.services, self.baseline or Manifest()
        if self.baseline is not None and not self.sync_state.uncertain:
            self._possibly_applied = ()  # no initialize was asked for with it
        if run.mode is SyncMode.FORCED:
            services.deletion_sync.retry_all()
            services.remote_changes.retry()
            services.blocked_paths.forget_repositories()
            baseline = self.snapshotter.forget_all_stamps(baseline)
            if self.baseline is not None:
                self.baseline = baseline
        run.observer.stage(State.SNAPSHOTTING)
        scanned = self.snapshotter.scan(self.baseline, run.mode, run.changed)
        blocked = services.blocked_paths.withhold(scanned.manifest)
        services.remote_changes.forget_deleted(scanned.manifest)
        self._held_here = services.remote_changes.held_here(scanned.manifest)
        if self._wipes(services, scanned.manifest):
            self._held_here = {}  # nothing stays as it is there
        if run.mode is SyncMode.FORCED:
            self._held_here = entries_within(scanned.manifest, run.unsaved)
        self._held_here = self.snapshotter.with_digests(self._held_here)  # they may be as there by now
        if not blocked and not self._held_here:
            return scanned
        manifest = without_held(without(scanned.manifest, blocked), self._held_here, self.baseline)
        scanned = ScanResult(manifest, difference(baseline, manifest))
        return scanned if scanned.difference.certain else self.snapshotter.resolved(scanned, baseline)

    def _archive(self, run: RequestedSync, scanned: ScanResult) -> ArchivedSnapshot:
        """Pack what the sandbox lacks, or all, into an archive in the spool."""
        unsure = "; an earlier sync may have reached the sandbox unanswered" if self.sync_state.uncertain else ""
        _log.info("packaging %s: %s%s", counted(scanned.manifest.files, "file"), described(scanned.difference), unsure)
        is_partial = self._partial_is_enough(run, scanned.manifest)
        # Contents that turn out unchanged are not compressed again; and only what is unchanged here stays as is there.
        kept = run.services.remote_changes.kept.intersection(scanned.difference.uncertain)
        if is_partial or run.mode is SyncMode.FORCED or kept:
            scanned = self.snapshotter.resolved(scanned, self.baseline or Manifest())
        stays = self._stays(run, scanned)
        only = partial_paths(scanned.manifest, scanned.difference, stays) if is_partial else None
        codec = run.services.delivery.uplink.codec
        if only is None:
            self._keep_base_contents(scanned.difference)
        # What stays there differs here from what the sandbox got, or is as it got it: in neither case it is sent.
        manifest = without(scanned.manifest, stays) if stays else scanned.manifest
        packed = self.snapshotter.pack(manifest, codec, only, run.observer.packed)
        return ArchivedSnapshot(scanned, packed, only, stays)

    def _stays(self, run: RequestedSync, scanned: ScanResult) -> frozenset[str]:
        """The paths that stay as they are in the sandbox, with all below them."""
        if run.mode is SyncMode.FORCED:
            return frozenset(self._held_here)
        kept = run.services.remote_changes.kept
        if self._wipes(run.services, scanned.manifest):
            return frozenset()
        if not kept:
            return frozenset(scanned.manifest.paths_within(self._held_here))
        found = scanned.difference
        changed = {*found.added, *found.changed, *found.uncertain}
        changed |= directories_above(changed)
        stays = {*self._held_here, *(kept - changed)}
        return frozenset(scanned.manifest.paths_within(stays))

    def _deliver(self, run: RequestedSync, archived: ArchivedSnapshot) -> DeliveredArchive:
        """Upload the archive and have it initialized. An archive that proves damaged is made again."""
        services, delivery = run.services, run.services.delivery
        packed = archived.packed
        for _ in range(_REPAIRS):
            manifest = self._sandbox_manifest(archived, packed)
            sent = packed.manifest
            if archived.only is not None:
                sent = Manifest({path: manifest[path] for path in archived.only if path in manifest})
            is_whole = archived.only is None
            preparation = self._preparation(run, manifest, sent, packed.follow_up, is_whole=is_whole)

            def before_initialize(preparation: Preparation = preparation, sent: Manifest = sent) -> None:
                preparation.complete()
                self._whole_next = True  # until this sync has succeeded
                self._record_possibly_applied(services, sent)

            def find_reason(manifest: Manifest = manifest, only: Collection[str] | None = archived.only) -> bool:
                return services.blocked_paths.find(manifest, only)

            archive = packed.archive
            try:
                sha256 = delivery.deliver(
                    archive,
                    preparation.sent_archive(archive.identity),
                    run.observer,
                    before_upload=preparation.begin,
                    before_initialize=before_initialize,
                    find_reason=find_reason,
                )
            except DamagedPiece as damage:
                _log.warning("%s: it is made again", damage)
                sent = without(archived.scanned.manifest, archived.stays)
                packed = self.snapshotter.repack(sent, damage.piece, delivery.uplink.codec)
                archived = structs.replace(archived, only=None)
            else:
                if archived.only is not None:
                    self.base_store.keep_sent(archive, manifest.content_bytes)
                return DeliveredArchive(packed, manifest, sha256, archived.only is not None, preparation.only_there)
        raise TryLater("files in the spool are damaged again and again", "check the disk that holds it")

    def _sandbox_manifest(self, archived: ArchivedSnapshot, packed: Packed) -> Manifest:
        """The manifest of the sandbox after the initialize: what stays there counts as it was put there."""
        if not archived.stays:
            return packed.manifest
        stays = without_held(archived.scanned.manifest, archived.stays, self.baseline)
        found = packed.manifest.copy()
        for path in archived.stays:
            if path in stays:
                found[path] = stays[path]
            else:
                found.pop(path, None)
        return found

    def _preparation(
        self,
        run: RequestedSync,
        manifest: Manifest,
        written: Manifest,
        follow_up: Collection[str],
        *,
        is_whole: bool,
    ) -> Preparation:
        given = run.services.remote_changes.agent_changes
        policy: Policy = Forced.FORCE if run.mode is SyncMode.FORCED and given is not AgentChanges.OVERWRITE else given
        return Preparation(
            run.services,
            self._content,
            manifest,
            written,
            self._paths_to_delete(run.services, manifest, follow_up),
            self._held_here,
            is_whole,
            policy,
            self._save_agent_work,
            self._base_content,
            self.work_saver.leave_out,
            run.attempt,
            run.withheld,
        )

    def _base_content(self, path: str) -> SentEntry | None:
        """Return what was sent as this path, with its bytes if they are known."""
        entry = (self.baseline or Manifest()).get(path)
        return None if entry is None else (entry, self.base_store.get(path, arrived_digest(entry)))

    def _prove(self, run: RequestedSync, delivered: DeliveredArchive) -> bool:
        """Find out if the sandbox keeps what an archive does not hold. False if it must be sent everything again."""
        partial_archives, manifest = run.services.partial_archives, delivered.manifest
        if not partial_archives.wants_proof:
            remote_changes = run.services.remote_changes
            left_out = [*remote_changes.held, *remote_changes.kept, *delivered.left_out]
            if not (partial_archives.may_replace and left_out and partial_archives.prove(left_out) is Kept.NO):
                return True
            self._whole_next = True
            run.services.delivery.mark_uncertain()
            return False
        left_alone = {*self._held_here, *run.services.remote_changes.kept}
        stays = frozenset((self.baseline or Manifest()).paths_within(left_alone))
        only = least_of(manifest, stays)
        if partial_paths(manifest, Difference(added=[*only])) is None or not only:
            return True
        sent = without(manifest, stays)
        packed = self.snapshotter.pack(sent, run.services.delivery.uplink.codec, only)
        if packed.follow_up or not all(same(packed.manifest[path], manifest[path], ALL_BITS) for path in only):
            return True  # it changed meanwhile: the sync that follows finds that
        entries = Manifest({path: packed.manifest[path] for path in only})
        preparation = self._preparation(run, manifest, entries, (), is_whole=False)
        proof, self._whole_next = preparation.sent_archive(packed.archive.identity), True
        try:
            run.services.delivery.deliver(packed.archive, proof, run.observer, before_initialize=preparation.renew)
        except PathsWithheld:
            self._whole_next = False  # nothing was sent, as the agent is at work just there
            return True
        written = {*only, *directories_above(only)}
        others = [path for path in manifest.spread(_PROOF) if path not in written]
        if partial_archives.prove(others) is not Kept.YES:
            return False
        self._record(run.services, self.baseline or manifest, self.torn)
        self._whole_next = False
        return True

    def _keep_base_contents(self, found: Difference) -> None:
        """Keep the bytes of what was sent and differs here now, before the chunks that hold them are replaced."""
        base = self.baseline or Manifest()
        paths = [*found.changed, *found.uncertain, *found.removed, *self._held_here]
        self.base_store.keep_replaced(base, paths, base.content_bytes)

    def _finish(
        self, services: SandboxServices, found: Difference, delivered: DeliveredArchive, started_s: float
    ) -> Outcome:
        """Record what the sandbox holds now."""
        self._whole_next = False
        packed, follow_up = delivered.packed, delivered.packed.follow_up
        sync = LastSync(
            finished_at=stamp(self.clock.wall_s()),
            files=delivered.manifest.files,
            archive_bytes=packed.archive.size_bytes,
            sha256=delivered.sha256,
            seconds=round(self.clock.monotonic_s() - started_s, 3),
        )
        change = found if self.baseline is not None else None
        self._record(services, delivered.manifest, follow_up)
        if follow_up:
            _log.info("%d files changed while read (%s): a sync follows", len(follow_up), shown_path(follow_up[0]))
        return Outcome(sync, tuple(follow_up), sync.files, change, self.torn)

    # -- the agent's side

    def follow_in_repository(self) -> None:
        """Have the sandbox's git repository follow what was sent; newer changes end this. Raises `Stop`."""
        services = self.services
        if services is None or self.baseline is None or self.sync_state.uncertain:
            return
        if not services.partial_archives.replaces:  # such a sandbox would lose the repository with each archive
            services.agent_repository.follow(self.baseline, self.sync_state.base_identity)

    def _read_again(self) -> None:
        """Read what counts as sent by now, where a command brought something home meanwhile."""
        services, before = self.services, self.baseline
        if services is None or before is None or not self.sync_state.was_changed(services.target):
            return
        marked = self.sync_state.uncertain
        now, _ = self.sync_state.initialized(services.target)
        self.sync_state.uncertain = self.sync_state.uncertain or marked
        if now is None:
            return
        self.baseline = now
        if self._told.base is not None:
            told = self._told.base | {path: now[path] for path in replaced_entries(before, now)}
            self._told = structs.replace(self._told, base=without(told, removed_paths(before, now)))
        services.remote_changes.recall()
        services.deletion_sync.recall()

    def _save_agent_work(self, why: Why) -> None:
        if self.services is not None:
            self.work_saver.before_reset(self.services, self._content, why)

    # -- decisions

    @property
    def _content(self) -> SandboxContent:
        return SandboxContent(self.baseline, self._possibly_applied, self.sync_state.uncertain)

    def _is_unchanged(self, services: SandboxServices, manifest: Manifest, found: Difference) -> bool:
        """True if the sandbox holds the manifest already, and nothing is left to be done there."""
        if self._content.may_differ(found) or services.blocked_paths.changed:
            return False
        if services.remote_changes.wants_look(self._held_here):
            return False
        unread = {*self.snapshotter.unread, *services.blocked_paths.paths}
        return not services.deletion_sync.has_pending(services.blocked_paths.with_withheld(manifest), unread)

    def _was_reverted(self, services: SandboxServices, archived: ArchivedSnapshot) -> bool:
        """True if a change was taken back before it was packed, so that the sandbox holds what was packed."""
        if archived.packed.follow_up or self.baseline is None:
            return False
        manifest = self._sandbox_manifest(archived, archived.packed)
        return self._is_unchanged(services, manifest, difference(self.baseline, manifest))

    def _partial_is_enough(self, run: RequestedSync, manifest: Manifest) -> bool:
        """True if an archive of what changed may be sent; after any uncertainty the whole is sent."""
        certain = self.baseline is not None and not self.sync_state.uncertain and not self._whole_next
        if not certain or run.mode is not SyncMode.CHANGED or not run.services.partial_archives.usable or not manifest:
            return False
        return not self._wipes(run.services, manifest)

    def _wipes(self, services: SandboxServices, manifest: Manifest) -> bool:
        """True if nothing of what is in the sandbox outlives this sync: it is reset, or replaces all it has."""
        if services.partial_archives.replaces or not services.deletion_sync.may_reset:
            return services.partial_archives.replaces
        return services.deletion_sync.resets(self._paths_to_delete(services, manifest, ()))

    def _paths_to_delete(self, services: SandboxServices, wanted: Manifest, follow_up: Collection[str]) -> Versions:
        wanted = services.blocked_paths.with_withheld(wanted)  # a blocked path is no deleted one
        unread = {*self.snapshotter.unread, *follow_up}
        return services.deletion_sync.paths_to_delete(self._content.versions, wanted, unread)

    # -- records

    def _record_possibly_applied(self, services: SandboxServices, sent: Manifest) -> None:
        """Record what is about to be sent: it counts as ours even if no answer comes, in later processes too."""
        base = self.baseline or Manifest()
        new = Manifest({path: sent[path] for path in replaced_entries(base, sent)}) if base else sent.copy()
        if new in self._possibly_applied:
            return
        self._possibly_applied = (*self._possibly_applied, new)[-MOST_UNANSWERED:]
        if new:
            services.delivery.mark_uncertain(self._possibly_applied)

    def _record_new_times(self, services: SandboxServices, manifest: Manifest) -> None:
        """Record the same contents under new times, so that later scans need not read them again."""
        if self.baseline is not None and self.baseline != manifest:
            self._record(services, manifest)

    def _record(self, services: SandboxServices, manifest: Manifest, follow_up: Collection[str] = ()) -> None:
        """Record that the sandbox holds the manifest. A state folder that cannot be written becomes a warning."""
        versions = self._content.versions
        unread = {*self.snapshotter.unread, *follow_up, *services.blocked_paths.withheld, *self._held_here}
        self.baseline = manifest
        self.torn = tuple(path for path in follow_up if path in manifest)
        self._possibly_applied = ()
        try:
            secret_files = set(self.snapshotter.secret_files)
            with self.sync_state.db.transaction():
                services.deletion_sync.record(versions, manifest, unread, secret_files)
                self.sync_state.record_initialized(services.target, manifest)
            self.state_warnings = []
        except OSError as failure:
            what = f"what was synced cannot be recorded ({failure.strerror})"
            remedy = "make the state folder writable; until then a restart uploads everything again"
            self.state_warnings = [SyncWarning("state:write", what, remedy)]

    # -- warnings

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warnings about the last scan, the sandbox and the state folder."""
        return [
            *self.snapshotter.warnings,
            *self._secret_warnings(),
            *map(torn_copy, self.torn),
            *(self.services.warnings if self.services else ()),
            *self.state_warnings,
            *self.work_saver.warnings,
        ]

    def _secret_warnings(self) -> list[SyncWarning]:
        """The warnings about files that are excluded for a secret, and about copies of such files in the sandbox."""
        secret_files, content = self.snapshotter.secret_files, self._content
        deletion_sync = self.services.deletion_sync if self.services else None

        def may_be_sent(path: str) -> bool:
            return content.may_hold(path) or (deletion_sync is not None and deletion_sync.has_leftover(path))

        left = deletion_sync.secret_leftovers - set(secret_files) if deletion_sync else ()
        return [*secret_files.warnings(may_be_sent), *map(sent_secret_warning, sorted(left))]
