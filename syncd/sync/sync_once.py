"""One sync of one sandbox: scan, archive, upload and a look beside it, save, remove, initialize, record.

scan → equal to what the sandbox holds? unchanged
     → archive → upload URL → upload, and a look beside it → save, remove → initialize → record: initialized
          ↑                                                       │
          └────────── something there is to stay, or was lost ────┘
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from functools import partial

from msgspec import Struct, structs

from syncd.archive.chunk_store import DamagedPiece
from syncd.archive.packer import Packed
from syncd.archive.snapshotter import ScanResult, Snapshotter, SyncMode, described
from syncd.core.choices import AgentChanges
from syncd.core.clock import Clock, stamp
from syncd.core.errors import SyncWarning, TryLater
from syncd.core.text import counted, shown_path
from syncd.model.entry import Entry
from syncd.model.manifest import Difference, Manifest, difference, is_within
from syncd.model.reconcile import Forced
from syncd.sandbox.sandbox_content import UNKNOWN
from syncd.sandbox.sandbox_state import SandboxState
from syncd.sandbox.saved_versions import Why
from syncd.sync.delivery import SyncObserver
from syncd.sync.following import FollowedStore
from syncd.sync.outcome import Outcome, arrived_changes, secret_warnings, torn_copy
from syncd.sync.proof import prove
from syncd.sync.sandbox import Sandbox
from syncd.sync.status_document import LastSync, Progress, State
from syncd.sync.sync_plan import (
    ROUNDS,
    Attempt,
    Verdict,
    partial_paths,
    staying_paths,
    with_staying,
    without_held,
)
from syncd.sync.sync_round import SyncRound
from syncd.sync.work_saver import WorkSaver
from syncd.sync.workspace import Workspace

_log = logging.getLogger("syncd.sync")
_NO_LESS = "no smaller archive would do"


class _Here(Struct, frozen=True):
    """The workspace as a scan found it.

    `held` is what both sides changed, and `obstructed` what has no place there. The sandbox is to hold `to_hold`, which
    lacks what is obstructed, and has what is held as the sandbox got it last.
    """

    manifest: Manifest
    held: Mapping[str, Entry]
    obstructed: Mapping[str, Entry]
    to_hold: ScanResult


class SandboxSync(Struct):
    """The syncs of one sandbox, one after the other."""

    sandbox: Sandbox
    workspace: Workspace
    snapshotter: Snapshotter
    work_saver: WorkSaver

    def __post_init__(self) -> None:
        if self.sandbox.looks.agent_changes is AgentChanges.SAVE:
            self.state.seen.try_again_after_start(self.clock.monotonic_s())

    @property
    def state(self) -> SandboxState:
        return self.sandbox.state

    @property
    def clock(self) -> Clock:
        return self.workspace.waiter.clock

    def read_again(self) -> None:
        """Read what commands saw there, and what counts as sent by now if one brought something home meanwhile."""
        self.state.seen.recall()
        if self.state.content.is_known and self.state.was_changed:
            self.state.read()

    def run(self, mode: SyncMode, observer: SyncObserver) -> Outcome:
        """Sync once: list what is here, decide what to send, look there and send it, until nothing speaks against it.

        What must not be written there stops no others: the archive is made again without it.

        Raises `StepFailed`, `SyncdError`, `Superseded`, `Stop`; nothing is recorded by half.
        """
        started_s = self.clock.monotonic_s()
        before = self.sandbox.before or self.state.content
        self.sandbox.before = before if self.state.content.is_known else UNKNOWN
        unsaved: set[str] = set()  # that `push --force` leaves as it is there, since it cannot be saved
        with self.workspace.snapshot_turn():
            self._begin(mode)
        try:
            for number in range(ROUNDS):
                with self.workspace.snapshot_turn():
                    here = self._scan(mode, observer, unsaved)
                    sync_round = self._packed(mode, observer, here, number)
                if sync_round is not None:
                    ended = self._deliver(sync_round, observer, started_s)
                elif self.sandbox.ask_if_emptied(mode, observer.wait_out):
                    ended = Verdict.SEND_ALL
                else:
                    ended = Outcome(None, files=self.state.content.base.files)
                if isinstance(ended, Outcome):
                    return self._completed(ended, mode)
                if ended is Verdict.SEND_ALL:
                    _log.warning("the sandbox lost what was put there: everything is sent again")
                elif mode is SyncMode.FORCED:
                    unsaved = self.state.seen.stays.keys() - self.state.seen.obstacles.keys()
        finally:
            self.snapshotter.release()
        raise TryLater("the sandbox changes faster than it is looked at", "it is tried again by itself")

    def _begin(self, mode: SyncMode) -> None:
        """Forget what is known, as far as this sync is to find out anew."""
        sandbox, state = self.sandbox, self.state
        if mode is not SyncMode.CHANGED:
            sandbox.removals.hasten()
            sandbox.looks.retry()
            state.seen.hasten()
        if mode is SyncMode.FORCED:
            state.unremoved = {}  # each may be as it was sent by now, or absent
            state.seen.retry(state.content.leftovers)
            base = self.snapshotter.forget_all_stamps(state.content.base)
            if state.content.is_known:
                state.renew_base(base)
        if not sandbox.looks.are_made:
            state.seen.release_changed()

    def _completed(self, outcome: Outcome, mode: SyncMode) -> Outcome:
        """Add what became of the paths that stay, and what is other there since the last outcome."""
        seen = self.state.seen
        before, self.sandbox.before = self.sandbox.before or UNKNOWN, None
        arrived = arrived_changes(before, self.state.content) if outcome.sync else None
        self.sandbox.looks.sync_ended()
        saved = self.sandbox.saver.take()
        overwritten = len(saved.get(Why.OVERWRITTEN, ())) + len(saved.get(Why.REMOVED, ()))
        return structs.replace(
            outcome,
            obstructed=tuple(seen.obstacles),
            held=seen.both_changed,
            saved=tuple(sorted(path for paths in saved.values() for path in paths)),
            overwritten=0 if mode is SyncMode.FORCED else overwritten,
            change=arrived if before.is_known else None,
            arrived=arrived,
        )

    # -- list, and decide what is sent

    def _scan(self, mode: SyncMode, observer: SyncObserver, unsaved: Collection[str]) -> _Here:
        """Scan the workspace, without what is not sent, and with what is held as the sandbox got it."""
        state, seen, snapshotter = self.state, self.state.seen, self.snapshotter
        observer.stage(State.SNAPSHOTTING)
        if state.content.is_known:
            state.renew_base(snapshotter.shared(state.content.base))
        base, other_bases = state.content.base, self.workspace.other_bases(self.sandbox.name)
        scanned = snapshotter.scan(base, mode, observer.to_scan(), other_bases)
        here = scanned.manifest
        seen.forget_deleted(here, state.content.versions_of)
        obstructed = here.within(seen.obstacles)
        stays = unsaved if mode is SyncMode.FORCED else seen.both_changed
        # Some may be as there by now; and nothing outlives an archive that takes the place of all.
        held = snapshotter.with_digests(here.within(() if self.sandbox.partial_archives.replaces else stays))
        if obstructed or held:
            manifest = without_held(here.without(obstructed), held, base)
            scanned = ScanResult(manifest, difference(base, manifest))
            if not scanned.difference.certain:
                scanned = snapshotter.resolved(scanned, base)
        observer.scanned()
        return _Here(here, held, obstructed, scanned)

    def _is_unchanged(self, here: _Here, manifest: Manifest, found: Difference) -> bool:
        """True if the sandbox holds the manifest already, and nothing is left to be done there."""
        state = self.state
        if state.content.may_differ(found) or self.sandbox.looks.unseen:
            return False
        if state.seen.wants_look(here.manifest, self.clock.monotonic_s()):
            return False
        return not self.sandbox.removals.has_pending(manifest | here.obstructed, self.snapshotter.unread)

    def _packed(self, mode: SyncMode, observer: SyncObserver, here: _Here, number: int) -> SyncRound | None:
        """Pack what the sandbox lacks, or all, into an archive in the spool; None if nothing is to be sent."""
        content, to_hold, is_forced = self.state.content, here.to_hold, mode is SyncMode.FORCED
        if not is_forced and self._is_unchanged(here, to_hold.manifest, to_hold.difference):
            if content.base != to_hold.manifest:
                self._record(to_hold.manifest)  # new times: later scans need not read the contents again
            return None
        to_hold, stays, only = self._to_send(here, mode)
        why = "" if only is not None else f"; all is sent, as {self._whole_because(mode) or _NO_LESS}"
        _log.info("packing %s: %s%s", counted(to_hold.manifest.files, "file"), described(to_hold.difference), why)
        if only is None:
            self._keep_replaced(here, to_hold)
        # What stays there differs here from what the sandbox got, or is as it got it: in neither case it is sent.
        packed = self.snapshotter.pack(
            to_hold.manifest.without(stays), only, lambda *done: observer.progressed(Progress(*done))
        )
        manifest = with_staying(packed.manifest, stays, to_hold.manifest, content.base)
        is_comparable = not is_forced and not packed.follow_up and content.is_known
        if is_comparable and self._is_unchanged(here, manifest, difference(content.base, manifest)):
            return None  # a change was taken back before it was packed
        attempt = self._attempt(mode, here, packed, manifest, only, number=number)
        return SyncRound(self.sandbox, packed, attempt, self.work_saver)

    def _to_send(self, here: _Here, mode: SyncMode) -> tuple[ScanResult, frozenset[str], frozenset[str] | None]:
        """Return what is here, the paths of it that stay as they are there, and those of a partial archive, else None.

        What decides is read for that, where the scan could not tell.
        """
        to_hold, archives, is_forced = here.to_hold, self.sandbox.partial_archives, mode is SyncMode.FORCED
        kept = set[str]() if is_forced or archives.replaces else self.state.seen.kept
        is_partial = not self._whole_because(mode)
        # Contents that turn out unchanged are not compressed again; and only what is unchanged here stays as is there,
        # with all that is in it.
        if is_partial or is_forced or (kept and any(is_within(path, kept) for path in to_hold.difference.to_read)):
            to_hold = self.snapshotter.resolved(to_hold, self.state.content.base)
        stays = staying_paths(to_hold.manifest, to_hold.difference, here.held, kept)
        only = partial_paths(to_hold.manifest, to_hold.difference, stays) if is_partial else None
        return to_hold, stays, only

    def _whole_because(self, mode: SyncMode) -> str:
        """Return the reason, for people, that all is sent whatever changed; empty: what changed may be enough."""
        if mode is SyncMode.FORCED:
            return "was asked for"
        if not self.state.content.is_known:
            return "nothing is known to be there"
        if self.state.content.uncertain:
            return "it is not certain what is there"
        return self.sandbox.partial_archives.whole_because

    def _keep_replaced(self, here: _Here, to_hold: ScanResult) -> None:
        """Keep the bytes of what was sent and differs here now, before the chunks that hold them are replaced."""
        sent = partial(self.workspace.sent_digests, self.sandbox.name, self.state.content.base)
        for base in filter(None, (self.state.content.base, *self.workspace.other_bases(self.sandbox.name))):
            found = difference(base, to_hold.manifest)
            replaced = [*found.changed, *found.to_read, *found.removed, *here.held]
            self.workspace.base_store.keep_replaced(base, replaced, sent)

    def _attempt(
        self,
        mode: SyncMode,
        here: _Here,
        packed: Packed,
        manifest: Manifest,
        only: Collection[str] | None,
        *,
        number: int,
    ) -> Attempt:
        """Return the attempt with an archive, after which the sandbox holds `manifest`; `only` are a partial one's."""
        looks = self.sandbox.looks
        written = packed.manifest
        if only is not None:
            written = Manifest({path: manifest[path] for path in only if path in manifest})
        unread = {*self.snapshotter.unread, *packed.follow_up}
        return Attempt(
            content=self.state.content,
            manifest=manifest,
            written=written,
            to_delete=self.sandbox.removals.due(manifest | here.obstructed, unread),
            held=here.held,
            obstructed=here.obstructed,
            is_whole=only is None,
            all_may_go=self.sandbox.partial_archives.may_replace and looks.are_made,
            policy=Forced.FORCE if mode is SyncMode.FORCED and looks.are_made else looks.agent_changes,
            number=number,
        )

    # -- act

    def _deliver(self, sync_round: SyncRound, observer: SyncObserver, started_s: float) -> Outcome | Verdict:
        """Upload the archive, have it initialized, and record it; return a verdict if it is to be made again."""
        attempt = sync_round.attempt
        try:
            ended = self.sandbox.delivery.deliver(sync_round.packed.archive, attempt.written, sync_round, observer)
        except DamagedPiece as damage:
            if attempt.number == ROUNDS - 1:
                what = "files in the spool are damaged again and again"
                raise TryLater(what, "check the disk that holds it") from None
            _log.warning("%s: it is made again", damage)
            with self.workspace.snapshot_turn():
                self.snapshotter.discard()
            self.state.mark_uncertain()  # the next one is whole
            return Verdict.PACK_AGAIN
        if isinstance(ended, Verdict):
            return ended
        if not attempt.is_whole:
            sent = partial(self.workspace.sent_digests, self.sandbox.name, attempt.manifest)
            self.workspace.base_store.keep_sent(sync_round.packed.archive, attempt.manifest.content_bytes, sent)
        outcome = self._recorded(sync_round, ended, started_s)
        if attempt.is_whole and attempt.number < ROUNDS - 1:
            proved = prove(sync_round, self.snapshotter, observer)
            if isinstance(proved, SyncRound):
                self._record(self.state.content.base, self.state.torn, proved)
            elif proved is not Verdict.INITIALIZE:
                return proved
        has_pending = self.sandbox.removals.has_pending
        if attempt.content.uncertain and has_pending(attempt.wanted, self.snapshotter.unread):
            return Verdict.PACK_AGAIN  # to remove it once more, now that no archive is unanswered
        return outcome

    # -- the record

    def _recorded(self, sync_round: SyncRound, sha256: str, started_s: float) -> Outcome:
        """Record what the sandbox holds now."""
        if sync_round.attempt.is_whole or sync_round.last_look is not None:  # a part tells nothing of the rest
            self.sandbox.note_filled()
        packed, manifest = sync_round.packed, sync_round.attempt.manifest
        follow_up = packed.follow_up
        sync = LastSync(
            finished_at=stamp(self.clock.wall_s()),
            files=manifest.files,
            archive_bytes=packed.archive.size_bytes,
            sha256=sha256,
            seconds=round(self.clock.monotonic_s() - started_s, 3),
        )
        if self.sandbox.partial_archives.replaces:  # what a set-up made is gone
            self.sandbox.setup.forget()
        self._record(manifest, follow_up, sync_round)
        if follow_up:
            what = counted(len(follow_up), "file")
            _log.info("%s changed while read (%s): a sync follows", what, shown_path(follow_up[0]))
        return Outcome(sync, tuple(follow_up), sync.files, torn=self.state.torn)

    def _record(self, manifest: Manifest, follow_up: Collection[str] = (), sync_round: SyncRound | None = None) -> None:
        """Record that the sandbox holds the manifest, and what it does not hold any more of the agent's.

        `sync_round` is that of the archive that has arrived. A state folder that cannot be written becomes a warning.
        """
        state, before = self.state, self.state.content.base
        gone = frozenset[str]()
        if sync_round is not None:
            sync_round.save_followed()
            # What was removed while another archive was unanswered may be there again, by that one.
            gone = gone if sync_round.attempt.content.uncertain else sync_round.gone
        if state.is_released:
            self.sandbox.setup.forget()
        is_doubted = state.is_doubted if sync_round is None else sync_round.may_have_taken_away
        state.note_arrived(manifest, follow_up, gone=gone, secret_files=self.snapshotter.secret_files)
        if is_doubted:
            state.doubt()
        if sync_round is not None and state.overwritten is not None:
            state.overwritten.append(sync_round.goes_over)

        def beside() -> None:
            self.sandbox.setup.note_arrived(before.without(sync_round.replaced) if sync_round else before, manifest)
            if sync_round is not None:
                FollowedStore(state.db, state.target).drop(sync_round.goes_over)

        try:
            state.record(beside)
            state.warnings = []
        except OSError as failure:
            what = f"what was synced cannot be recorded ({failure.strerror})"
            remedy = "make the state folder writable; until then a restart uploads everything again"
            state.warnings = [SyncWarning("state:write", what, remedy)]

    # -- what is told

    @property
    def warnings(self) -> list[SyncWarning]:
        state, secret_files = self.state, self.snapshotter.secret_files
        secrets = secret_warnings(secret_files, state.content, state.secret)
        return [*secrets, *map(torn_copy, state.torn), *self.sandbox.warnings, *state.warnings]
