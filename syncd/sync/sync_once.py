"""One sync of one sandbox: scan, archive, upload and a look beside it, save, remove, verdict, initialize, record.

scan → equal to what the sandbox holds? unchanged
     → archive → upload URL → upload, and a look beside it → save, remove → verdict → initialize → record: initialized
          ↑                                                                    │
          └────────── something there is to stay, or was lost ─────────────────┘
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from msgspec import Struct, field, structs

from syncd.archive.base_store import BaseStore
from syncd.archive.chunk_store import DamagedPiece
from syncd.archive.packer import Packed
from syncd.archive.snapshotter import EVERYTHING, ScanPlan, ScanResult, Snapshotter, SyncMode, described
from syncd.core.choices import AgentChanges
from syncd.core.clock import Clock, stamp
from syncd.core.errors import SyncWarning, TryLater
from syncd.core.text import counted, shown_path
from syncd.model.entry import ABSENT, ALL_BITS, Entry, arrived_digest, same
from syncd.model.manifest import (
    Difference,
    Manifest,
    difference,
    directories_above,
    is_within,
    removed_paths,
    replaced_entries,
)
from syncd.model.reconcile import Forced, Policy
from syncd.remote.failure import FailureAction, StepFailed
from syncd.sandbox.followed_work import FollowedStore
from syncd.sandbox.leftovers import Versions
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest, LookResult, was_emptied
from syncd.sandbox.partial_archives import Kept
from syncd.sandbox.sandbox_state import SandboxState
from syncd.sandbox.saved_versions import SentEntry, Why
from syncd.selection.secret_scanner import secret_warning, sent_secret_warning
from syncd.sync.delivery import SyncObserver, Verdict
from syncd.sync.outcome import Outcome, SentContent, arrived_changes, torn_copy
from syncd.sync.preparation import Preparation
from syncd.sync.sandbox import Sandbox
from syncd.sync.status_document import LastSync, State
from syncd.sync.sync_plan import SAMPLE, least_of, partial_paths, without_held
from syncd.sync.work_saver import WorkSaver

_log = logging.getLogger("syncd.sync")
# A disk that damages the same archive more often than this is beyond repair.
_REPAIRS = 3
# So many of the paths that the archive of the proof lacks are counted afterwards.
_PROOF = 2000
# The agent would have to change other paths before each of these.
_ROUNDS = 5


class _Round(Struct, frozen=True):
    """One round of a sync.

    `number` counts the rounds before it, `withheld` those that ended as paths stay as they are in the sandbox, and
    `unsaved` are paths that `push --force` leaves as they are there, as they could not be saved. `is_repeated`: it
    sends everything once more, as the sandbox may have lost something by the archive before.
    """

    mode: SyncMode
    observer: SyncObserver
    scan_plan: ScanPlan
    number: int = 0
    withheld: int = 0
    unsaved: frozenset[str] = frozenset()
    is_repeated: bool = False


class _Archived(Struct, frozen=True):
    """An archive to deliver: `only` are the paths that a partial one holds, None for a whole one.

    `stays` are paths that it leaves out since they stay as they are in the sandbox.
    """

    scanned: ScanResult
    packed: Packed
    only: Collection[str] | None
    stays: frozenset[str]


class _Delivered(Struct, frozen=True):
    """An archive that was initialized, and the manifest that the sandbox holds since.

    `only_there` are paths that were there before it and that it did not hold; `goes_over` says of what paths nothing
    is left there, and `looked` is the last look before it.
    """

    packed: Packed
    manifest: Manifest
    sha256: str
    is_partial: bool
    only_there: Collection[str]
    goes_over: Callable[[str], bool]
    looked: LookResult | None


class SandboxSync(Struct):
    """The syncs of one sandbox, one after the other.

    `turn` is held while a snapshot is taken, and `other_bases` are those of the workspace's other sandboxes.
    """

    services: Sandbox
    snapshotter: Snapshotter
    base_store: BaseStore
    work_saver: WorkSaver
    clock: Clock
    turn: Callable[[], AbstractContextManager[None]] = nullcontext
    other_bases: Callable[[], list[Manifest]] = list
    _here: Manifest = field(default_factory=Manifest)  # all that was here at the last scan
    _held_here: dict[str, Entry] = field(default_factory=dict)  # of it, what both sides changed
    _unsent_here: dict[str, Entry] = field(default_factory=dict)  # of it, what an obstacle there holds
    _told: SentContent = field(default_factory=SentContent)  # what the sandbox held at the last outcome
    _whole_next: bool = False  # set from an initialize on until its sync has succeeded
    _was_asked: bool = False  # the sandbox by this process if it has what was put there, or it was sent something
    _is_unknown: bool = False  # nobody could look if it has that

    def __post_init__(self) -> None:
        self._told = self._sent_content
        if self.services.remote_changes.agent_changes is AgentChanges.SAVE:
            self.state.seen.try_again_after_start(self.clock.monotonic_s())

    @property
    def state(self) -> SandboxState:
        return self.services.state

    @property
    def _sent_content(self) -> SentContent:
        return SentContent(self.state.base, self.state.leftovers.entries)

    def read_again(self) -> None:
        """Read what commands saw there, and what counts as sent by now if one brought something home meanwhile."""
        self.state.seen.recall()
        before = self.state.base
        if before is None or not self.state.was_changed:
            return
        self.state.read()
        now = self.state.base or Manifest()
        self.services.deletion_sync.retry(replaced_entries(before, now))
        if self._told.base is not None:
            told = self._told.base | {path: now[path] for path in replaced_entries(before, now)}
            self._told = structs.replace(self._told, base=told.without(removed_paths(before, now)))

    def forget_stamps(self, paths: Collection[str]) -> None:
        """Have the next sync read these files whatever their stamps say."""
        base = self.snapshotter.forget_stamps(self.state.base or Manifest(), paths)
        if self.state.base is not None:
            self.state.base = base

    # -- the rounds

    def run(self, mode: SyncMode, observer: SyncObserver, scan_plan: ScanPlan) -> Outcome:
        """Sync once. A path that must not be written never stops others.

        Raises `StepFailed`, `SyncdError`, `Superseded`, `Stop`; nothing is recorded by half.
        """
        try:
            return self._run(_Round(mode, observer, scan_plan))
        finally:
            self.snapshotter.release()

    def _run(self, this: _Round) -> Outcome:
        mode = this.mode
        if self.state.base is None:  # the sandbox that it was told of is gone
            self._told = SentContent()
        for number in range(_ROUNDS):
            whole_next, this = self._whole_next, structs.replace(this, number=number)
            ended = self._sync(this)
            if isinstance(ended, Outcome) and ended.sync is None and self._was_emptied(this):
                ended = Verdict.SEND_ALL
            if isinstance(ended, Outcome):
                return self._completed(ended, mode)
            if ended is Verdict.LEAVE_OUT:
                self._whole_next = whole_next  # nothing was put there
                seen = self.state.seen
                unsaved = seen.kept.union(seen.both_changed) if mode is SyncMode.FORCED else set()
                this = structs.replace(this, withheld=this.withheld + 1, unsaved=this.unsaved | unsaved)
            elif ended is Verdict.SEND_ALL:
                _log.warning("the sandbox lost what was put there: everything is sent again")
                self._whole_next, self._told = True, SentContent()
                self.services.delivery.mark_uncertain()
                self.services.setup.forget()
                this = structs.replace(this, scan_plan=EVERYTHING)
        raise TryLater("more and more paths in the sandbox must not be written", "it is tried again by itself")

    def _completed(self, outcome: Outcome, mode: SyncMode) -> Outcome:
        """Add what became of the paths that stay, and what is other there since the last outcome."""
        seen = self.state.seen
        told, self._told = self._told, self._sent_content
        arrived = arrived_changes(told, self._told) if outcome.sync else None
        saved = self.services.remote_changes.take_saved()
        overwritten = len(saved.get(Why.OVERWRITTEN, ())) + len(saved.get(Why.REMOVED, ()))
        return structs.replace(
            outcome,
            follow_up=(*outcome.follow_up, *seen.released),
            obstructed=tuple(seen.obstacles),
            held=seen.both_changed,
            saved=tuple(sorted(path for paths in saved.values() for path in paths)),
            overwritten=0 if mode is SyncMode.FORCED else overwritten,
            change=None if told.base is None else arrived,
            arrived=arrived,
        )

    def _sync(self, this: _Round) -> Outcome | Verdict:
        started_s = self.clock.monotonic_s()
        with self.turn():
            archived = self._take_snapshot(this)
        if isinstance(archived, Outcome):
            return archived
        delivered = self._deliver(this, archived)
        if isinstance(delivered, Verdict):
            return delivered
        outcome = self._recorded(delivered, started_s)
        proved = delivered.is_partial or this.is_repeated or self._prove(this, delivered)
        if isinstance(proved, Verdict):
            return proved
        if not proved:
            # The mark `uncertain` is still set: a process that dies at this point is followed by a whole archive too.
            _log.info("after a partial archive, a whole one follows")
            # Once: a single path that is missing there proves nothing, however often it is.
            return self._sync(structs.replace(this, scan_plan=EVERYTHING, is_repeated=True))
        return outcome

    def _was_emptied(self, this: _Round) -> bool:
        """Ask the sandbox for a sample of what was put there, as nothing has to be sent; True if it was emptied.

        It is asked on request, and once in each process. Without a request it is asked at another sync if the API is
        not to be reached. Raises `StepFailed`, `Superseded`, `Stop`.
        """
        if self._was_asked and this.mode is not SyncMode.ASKED:
            return False
        services, seen = self.services, self.state.seen
        paths = (self.state.base or Manifest()).spread(SAMPLE)
        sample = [path for path in paths if not is_within(path, seen.kept) and not is_within(path, seen.held)]
        items = dict.fromkeys(sample, LookItem((), LookAction.EXISTS))
        if not items:
            return False
        look = partial(services.remote_changes.finish, LookRequest(items, most_copied_bytes=0))
        try:
            result = services.delivery.asked(look, this.observer) if this.mode is SyncMode.ASKED else look()
        except StepFailed as failure:
            if this.mode is SyncMode.ASKED or failure.action is FailureAction.REFUSED:
                raise
            _log.info("the sandbox could not be asked if it still has what was sent: %s", failure)
            return False
        self._was_asked, self._is_unknown = True, result is None
        if result is None or not was_emptied(result.missing, len(items)):
            return False
        services.partial_archives.withdraw()
        return True

    # -- scan and archive

    def _take_snapshot(self, this: _Round) -> _Archived | Outcome:
        """Scan, and pack what is to be sent; the outcome if there is nothing."""
        this.scan_plan.before()
        scanned = self._scan(this)
        this.scan_plan.after()
        if this.mode is not SyncMode.FORCED and self._is_unchanged(scanned.manifest, scanned.difference):
            if self.state.base != scanned.manifest:
                self._record(scanned.manifest)  # new times, so that later scans need not read the contents again
            return Outcome(None, files=scanned.manifest.files)
        archived = self._archive(this, scanned)
        if this.mode is not SyncMode.FORCED and self._was_reverted(archived):
            return Outcome(None, files=scanned.manifest.files)
        return archived

    def _scan(self, this: _Round) -> ScanResult:
        """Scan the workspace, without what is not sent, and with what is held as the sandbox got it."""
        services, state, seen = self.services, self.state, self.state.seen
        if this.mode is SyncMode.FORCED:
            services.deletion_sync.retry_all()
            services.remote_changes.retry()
            seen.retry(state.leftovers.entries)
            base = self.snapshotter.forget_all_stamps(state.base or Manifest())
            state.base = None if state.base is None else base
        if not services.remote_changes.looks:
            seen.release_changed()
        this.observer.stage(State.SNAPSHOTTING)
        state.base = None if state.base is None else self.snapshotter.shared(state.base)
        scanned = self.snapshotter.scan(state.base, this.mode, this.scan_plan.to_scan, self.other_bases())
        self._here = scanned.manifest
        seen.forget_deleted(self._here, state.content.versions_of)
        self._unsent_here = self._here.within(seen.obstacles)
        held = seen.both_changed
        if self.services.partial_archives.replaces:
            held = ()  # nothing stays as it is there
        if this.mode is SyncMode.FORCED:
            held = tuple(this.unsaved)
        self._held_here = self.snapshotter.with_digests(self._here.within(held))  # they may be as there by now
        if not self._unsent_here and not self._held_here:
            return scanned
        base = state.base or Manifest()
        manifest = without_held(self._here.without(self._unsent_here), self._held_here, state.base)
        scanned = ScanResult(manifest, difference(base, manifest))
        return scanned if scanned.difference.certain else self.snapshotter.resolved(scanned, base)

    def _is_unchanged(self, manifest: Manifest, found: Difference) -> bool:
        """True if the sandbox holds the manifest already, and nothing is left to be done there."""
        state = self.state
        if state.base is None or state.content.may_differ(found) or self.services.remote_changes.unseen:
            return False
        if state.seen.wants_look(self._here, self.clock.monotonic_s()):
            return False
        unread = {*self.snapshotter.unread, *state.seen.obstacles}
        return not self.services.deletion_sync.has_pending(manifest | self._unsent_here, unread)

    def _was_reverted(self, archived: _Archived) -> bool:
        """True if a change was taken back before it was packed, so that the sandbox holds what was packed."""
        if archived.packed.follow_up or self.state.base is None:
            return False
        manifest = self._sandbox_manifest(archived, archived.packed)
        return self._is_unchanged(manifest, difference(self.state.base, manifest))

    def _archive(self, this: _Round, scanned: ScanResult) -> _Archived:
        """Pack what the sandbox lacks, or all, into an archive in the spool."""
        base = self.state.base or Manifest()
        unsure = "; an earlier sync may have reached the sandbox unanswered" if self.state.uncertain else ""
        _log.info("packing %s: %s%s", counted(scanned.manifest.files, "file"), described(scanned.difference), unsure)
        is_partial = self._partial_is_enough(this, scanned.manifest)
        # Contents that turn out unchanged are not compressed again; and only what is unchanged here stays as is there,
        # with all that is in it.
        kept = self.state.seen.kept
        may_stay = any(is_within(path, kept) for path in scanned.difference.uncertain) if kept else False
        if is_partial or this.mode is SyncMode.FORCED or may_stay:
            scanned = self.snapshotter.resolved(scanned, base)
        stays = self._stays(this, scanned)
        only = partial_paths(scanned.manifest, scanned.difference, stays) if is_partial else None
        if only is None:
            # The bytes of what was sent and differs here now, before the chunks that hold them are replaced.
            found = scanned.difference
            replaced = [*found.changed, *found.uncertain, *found.removed, *self._held_here]
            self.base_store.keep_replaced(base, replaced, base.content_bytes)
            for other in self.other_bases():
                differing = difference(other, scanned.manifest)
                replaced = [*differing.changed, *differing.uncertain, *differing.removed]
                self.base_store.keep_replaced(other, replaced, other.content_bytes)
        # What stays there differs here from what the sandbox got, or is as it got it: in neither case it is sent.
        manifest = scanned.manifest.without(stays)
        packed = self.snapshotter.pack(manifest, only, this.observer.packed)
        return _Archived(scanned, packed, only, stays)

    def _partial_is_enough(self, this: _Round, manifest: Manifest) -> bool:
        """True if an archive of what changed may be sent; after any uncertainty the whole is sent."""
        certain = self.state.base is not None and not self.state.uncertain and not self._whole_next
        usable = self.services.partial_archives.usable
        return certain and this.mode is not SyncMode.FORCED and usable and bool(manifest)

    def _stays(self, this: _Round, scanned: ScanResult) -> frozenset[str]:
        """The paths that stay as they are in the sandbox, with all below them."""
        if this.mode is SyncMode.FORCED:
            return frozenset(self._held_here)
        if self.services.partial_archives.replaces:
            return frozenset()
        stays, kept = {*self._held_here}, self.state.seen.kept
        if kept:
            found = scanned.difference
            changed = {*found.added, *found.changed, *found.uncertain}
            stays |= kept - changed - directories_above(changed)
        return frozenset(scanned.manifest.paths_within(stays))

    def _paths_to_delete(self, wanted: Manifest, follow_up: Collection[str]) -> Versions:
        wanted |= self._unsent_here  # what is held is no deleted path
        return self.services.deletion_sync.paths_to_delete(wanted, {*self.snapshotter.unread, *follow_up})

    # -- upload, look, initialize

    def _deliver(self, this: _Round, archived: _Archived) -> _Delivered | Verdict:
        """Upload the archive and have it initialized. An archive that proves damaged is made again."""
        delivery = self.services.delivery
        for _ in range(_REPAIRS):
            packed, only = archived.packed, archived.only
            manifest = self._sandbox_manifest(archived, packed)
            sent = packed.manifest
            if only is not None:
                sent = Manifest({path: manifest[path] for path in only if path in manifest})
            preparation = self._preparation(this, manifest, sent, packed.follow_up, is_whole=only is None)
            archive = packed.archive
            try:
                ended = delivery.deliver(
                    archive,
                    preparation.written,
                    this.observer,
                    before_upload=preparation.begin,
                    before_initialize=partial(self._prepare, preparation, preparation.complete),
                    find_reason=preparation.find_reason,
                )
            except DamagedPiece as damage:
                _log.warning("%s: it is made again", damage)
                whole = archived.scanned.manifest.without(archived.stays)
                with self.turn():
                    packed = self.snapshotter.repack(whole)
                archived = structs.replace(archived, packed=packed, only=None)
                continue
            if isinstance(ended, Verdict):
                return ended
            if only is not None:
                self.base_store.keep_sent(archive, manifest.content_bytes)
            only_there, goes_over = preparation.only_there, preparation.goes_over
            return _Delivered(packed, manifest, ended, only is not None, only_there, goes_over, preparation.looked)
        raise TryLater("files in the spool are damaged again and again", "check the disk that holds it")

    def _prepare(self, preparation: Preparation, prepare: Callable[[], Verdict]) -> Verdict:
        """Do all that must be done before initialize is requested: `prepare`, and what is written after it."""
        verdict = prepare()
        if verdict is Verdict.INITIALIZE:
            self.services.delivery.mark_uncertain(preparation.written)
            self._whole_next = True  # until this sync has succeeded
            verdict = preparation.renew()  # a slow disk takes its time
        return verdict

    def _sandbox_manifest(self, archived: _Archived, packed: Packed) -> Manifest:
        """The manifest of the sandbox after the initialize: what stays there counts as it was put there."""
        if not archived.stays:
            return packed.manifest
        stays = without_held(archived.scanned.manifest, archived.stays, self.state.base)
        found = packed.manifest.copy()
        for path in archived.stays:
            if path in stays:
                found[path] = stays[path]
            else:
                found.pop(path, None)
        return found

    def _preparation(
        self, this: _Round, manifest: Manifest, written: Manifest, follow_up: Collection[str], *, is_whole: bool
    ) -> Preparation:
        given = self.services.remote_changes.agent_changes
        policy: Policy = Forced.FORCE if this.mode is SyncMode.FORCED and given is not AgentChanges.OVERWRITE else given
        return Preparation(
            services=self.services,
            content=self.state.content,
            manifest=manifest,
            written=written,
            paths_to_delete=self._paths_to_delete(manifest, follow_up),
            held_here=self._held_here,
            unsent_here=self._unsent_here,
            is_whole=is_whole,
            policy=policy,
            work_saver=self.work_saver,
            base_of=self._sent_entry,
            repeated=this.number,
            withheld=this.withheld,
        )

    def _sent_entry(self, path: str) -> SentEntry | None:
        """Return what was sent as this path, with its bytes if they are known."""
        entry = self.state.content.base_of(path)
        return None if entry is None else (entry, self.base_store.get(path, arrived_digest(entry)))

    def _prove(self, this: _Round, delivered: _Delivered) -> bool | Verdict:
        """Find out if the sandbox keeps what an archive does not hold. False if it must be sent everything again."""
        manifest, delivery = delivered.manifest, self.services.delivery
        partial_archives, seen = self.services.partial_archives, self.state.seen
        left_alone = {*self._held_here, *seen.kept}
        stays = frozenset((self.state.base or Manifest()).paths_within(left_alone))
        only = least_of(manifest, stays) if partial_archives.wants_proof else set()
        if not only or partial_paths(manifest, Difference(added=[*only])) is None:
            left_out = [*seen.both_changed, *seen.kept, *delivered.only_there]
            if not (partial_archives.may_replace and left_out and partial_archives.prove(left_out) is Kept.NO):
                return True
            self._whole_next = True
            delivery.mark_uncertain()
            return False
        with self.turn():
            packed = self.snapshotter.pack(manifest.without(stays), only)
        if packed.follow_up or not all(same(packed.manifest[path], manifest[path], ALL_BITS) for path in only):
            return True  # it changed meanwhile: the sync that follows finds that
        entries = Manifest({path: packed.manifest[path] for path in only})
        preparation = self._preparation(this, manifest, entries, (), is_whole=False)
        preparation = structs.replace(preparation, repeated=0, looked=delivered.looked)
        self._whole_next = True
        prepare = partial(self._prepare, preparation, preparation.renew)
        ended = delivery.deliver(packed.archive, entries, this.observer, before_initialize=prepare)
        if ended is Verdict.LEAVE_OUT:
            self._whole_next = False  # nothing was sent, as the agent is at work just there
            if self.state.uncertain:
                self._record(self.state.base or manifest, self.state.torn)
            return True
        if isinstance(ended, Verdict):
            return ended
        written = {*only, *directories_above(only)}
        others = [path for path in manifest.spread(_PROOF) if path not in written]
        if partial_archives.prove(others) is not Kept.YES:
            return False
        self._record(self.state.base or manifest, self.state.torn, preparation.goes_over)
        self._whole_next = False
        return True

    # -- the record

    def _recorded(self, delivered: _Delivered, started_s: float) -> Outcome:
        """Record what the sandbox holds now."""
        self._whole_next, self._was_asked, self._is_unknown = False, True, False
        packed, follow_up = delivered.packed, delivered.packed.follow_up
        sync = LastSync(
            finished_at=stamp(self.clock.wall_s()),
            files=delivered.manifest.files,
            archive_bytes=packed.archive.size_bytes,
            sha256=delivered.sha256,
            seconds=round(self.clock.monotonic_s() - started_s, 3),
        )
        if self.services.partial_archives.replaces:  # what a set-up made is gone
            self.services.setup.forget()
        self._record(delivered.manifest, follow_up, delivered.goes_over)
        if follow_up:
            what = counted(len(follow_up), "file")
            _log.info("%s changed while read (%s): a sync follows", what, shown_path(follow_up[0]))
        return Outcome(sync, tuple(follow_up), sync.files, torn=self.state.torn)

    def _record(
        self,
        manifest: Manifest,
        follow_up: Collection[str] = (),
        goes_over: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Record that the sandbox holds the manifest, and what it does not hold any more of the agent's.

        A state folder that cannot be written becomes a warning.
        """
        state, unread = self.state, {*self.snapshotter.unread, *follow_up, *self._unsent_here, *self._held_here}
        self._save_followed(manifest, goes_over)
        before = state.base
        if state.is_released:
            self.services.setup.forget()
        self.services.deletion_sync.note_arrived(manifest, unread, set(self.snapshotter.secret_files))
        state.note_arrived(manifest, follow_up)
        if state.overwritten is not None:
            state.overwritten.append(goes_over)
        try:
            with state.db.transaction():
                state.record()
                self.services.setup.note_arrived(before, manifest)
                FollowedStore(state.db, state.target).drop(goes_over)
            state.warnings = []
        except OSError as failure:
            what = f"what was synced cannot be recorded ({failure.strerror})"
            remedy = "make the state folder writable; until then a restart uploads everything again"
            state.warnings = [SyncWarning("state:write", what, remedy)]

    def _save_followed(self, arrived: Manifest, goes_over: Callable[[str], bool]) -> None:
        """Save what following kept after this sync's own look, and the archive went over."""
        remote_changes = self.services.remote_changes
        work = FollowedStore(self.state.db, self.state.target).load() if remote_changes.looks else None
        there = {} if work is None else work.savable(self.state.content)
        lost = {
            path: entry
            for path, entry in there.items()
            if goes_over(path) and not same(entry, arrived.get(path, ABSENT))
        }
        remote_changes.save(Why.OVERWRITTEN, lost, self._sent_entry)

    # -- what is told

    @property
    def warnings(self) -> list[SyncWarning]:
        return [
            *self._secret_warnings(),
            *map(torn_copy, self.state.torn),
            *self._unknown_warnings(),
            *self.services.warnings,
            *self.state.warnings,
        ]

    def _unknown_warnings(self) -> list[SyncWarning]:
        """The warning that the sandbox may have been emptied, where no look would say that nobody could look."""
        if not self._is_unknown or self.services.remote_changes.looks:
            return []
        what = "nobody could look if the sandbox still has what was sent"
        return [SyncWarning("unknown", what, "the next request asks again; `syncd push --force` sends everything")]

    def _secret_warnings(self) -> list[SyncWarning]:
        """The warnings about files that are excluded for a secret, and about copies of such files in the sandbox."""
        secret_files, content, leftovers = self.snapshotter.secret_files, self.state.content, self.state.leftovers

        def may_be_sent(path: str) -> bool:
            return content.may_hold(path) or path in leftovers.entries

        left = leftovers.secret - set(secret_files)
        found = [secret_warning(path, each, sent=may_be_sent(path)) for path, (_, each) in secret_files.items()]
        return [*found, *map(sent_secret_warning, sorted(left))]
