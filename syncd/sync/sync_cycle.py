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
from syncd.archive.snapshotter import Demand, Look, Photographer, described
from syncd.core.clock import Clock, stamp
from syncd.core.errors import SandboxGone, TryLater
from syncd.core.text import shown_path
from syncd.core.warning import Problem
from syncd.remote.acquired_sandbox import over_in_s
from syncd.remote.failure import StepFailed
from syncd.remote.failure_action import Verdict
from syncd.remote.target import Target
from syncd.sandbox.blocked_paths import BlockedPaths, PathsBlocked
from syncd.sandbox.blocked_paths_rules import without
from syncd.sandbox.deletions import Clearing
from syncd.sandbox.overwrite_check import Inspector
from syncd.sandbox.partial_archives import SmallArchives
from syncd.sandbox.provider import Lodging
from syncd.sandbox.remote_changes import Question, question
from syncd.sandbox.removal_plan import Versions
from syncd.scan.manifest import Difference, Manifest, count_files, difference, replaced, unknown
from syncd.selection.secret_scanner import sent_before
from syncd.sync.delivery import Attendant, Delivery
from syncd.sync.follow_up import torn_copy
from syncd.sync.status_document import LastSync, State
from syncd.sync.sync_state import Journal

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
class Premises:
    """One sandbox, and what works there."""

    target: Target
    delivery: Delivery
    clearing: Clearing
    small: SmallArchives
    inspection: Inspector
    blocked: BlockedPaths


@dataclass
class Cycle:
    """The syncs of one workspace, one after the other, to the sandbox that its lodging names."""

    lodging: Lodging
    equip: Callable[[Target], Premises]
    photographer: Photographer
    journal: Journal
    clock: Clock
    premises: Premises | None = None
    baseline: Manifest | None = None
    state_problems: list[Problem] = field(default_factory=list)
    torn: tuple[str, ...] = ()  # files whose copy in the sandbox may be half old and half new
    _perhaps_there: Manifest = field(default_factory=dict)  # sent since the baseline, without an answer that counts
    _whole_next: bool = False  # after a failure

    @property
    def target(self) -> Target | None:
        """The sandbox, once there is one."""
        return self.premises.target if self.premises else self.lodging.known

    @property
    def moves_in_s(self) -> float | None:
        """Seconds until the next sandbox is due, whatever happens at home; None where that is not known."""
        tenancy = self.lodging.tenancy
        return None if tenancy is None else over_in_s(tenancy, self.clock.wall_s())

    @property
    def url_expires_at(self) -> str | None:
        """When the upload URL ends, for people."""
        return self.premises.delivery.url_expires_at if self.premises else None

    def recall(self) -> None:
        """Read what an earlier process left: which manifest the sandbox holds, as far as that is known."""
        target = self.lodging.known
        if target is not None:
            self._move_into(target)

    def run(self, demand: Demand, attendant: Attendant, changed: Collection[str] | None = None) -> Outcome:
        """One sync, `changed` naming the only directories to look at.

        Raises `NeedsPerson`, `TryLater`, `StepFailed`, `Superseded`, `Stop`; nothing is half recorded.
        """
        try:
            return self._sync_the_rest(self._lodged(attendant), demand, attendant, changed)
        except StepFailed as failure:
            if not self._moved_out(failure):
                raise
        try:
            return self._sync_the_rest(self._lodged(attendant), demand, attendant, None)
        except StepFailed as failure:
            if not self._moved_out(failure):
                raise
            # Nobody has to mend that: another one is acquired for the next sync, at a bounded rate.
            message = f"the sandbox ended as soon as it was acquired ({failure.message})"
            raise StepFailed(failure.step, Verdict.RETRY, message, "it goes on with another one") from None

    def disbelieve(self, paths: Collection[str] | None) -> None:
        """Have the next sync read these files whatever their times say; None: all of which that may not be true."""
        self.photographer.disbelieve(self.baseline or {}, paths)

    def _moved_out(self, failure: StepFailed) -> bool:
        """Whether the failure says that the sandbox is gone, and another one may follow."""
        gone = failure.verdict is Verdict.REFUSED and issubclass(failure.refusal, SandboxGone)
        if not gone or self.premises is None:
            return False
        self.premises.clearing.forget()
        self.premises.blocked.forget()
        if not self.lodging.lost(self.premises.target):
            return False
        self.premises = None
        return True

    def _lodged(self, attendant: Attendant) -> Premises:
        target = self.lodging.target(attendant)
        if self.premises is not None and self.premises.target == target:
            return self.premises
        return self._move_into(target)

    def _move_into(self, target: Target) -> Premises:
        self.premises = self.equip(target)
        self.baseline, self.state_problems = self.journal.initialized(target)
        self.torn = tuple(unknown(self.baseline or {}))
        self._perhaps_there, self._whole_next = self.journal.perhaps_there(target), False
        return self.premises

    @property
    def lingering_files(self) -> int:
        """How many files that were deleted here are still in the sandbox."""
        return self.premises.clearing.lingering_files if self.premises else 0

    def _sync_the_rest(
        self, premises: Premises, demand: Demand, attendant: Attendant, changed: Collection[str] | None
    ) -> Outcome:
        """One sync of all whose place in the sandbox is free: one path never stops the others."""
        for _ in range(_TIMES_LEFT_OUT + 1):
            try:
                outcome = self._sync(premises, demand, attendant, changed)
            except PathsBlocked:
                premises.inspection.spare(premises.blocked.paths)
                continue
            follow_up = (*outcome.follow_up, *premises.blocked.freed)
            return replace(outcome, follow_up=follow_up, blocked=premises.blocked.paths)
        raise TryLater("more and more places in the sandbox are taken", "it is tried again by itself")

    def _sync(
        self, premises: Premises, demand: Demand, attendant: Attendant, changed: Collection[str] | None
    ) -> Outcome:
        started_s = self.clock.monotonic_s()
        if self.baseline is not None and not self.journal.unsure:
            self._perhaps_there = {}  # no initialize was asked for with it
        if demand is Demand.FORCED:
            premises.clearing.try_all_again()
            premises.inspection.forget()
            self.photographer.disbelieve_all(self.baseline or {})
        attendant.stage(State.SNAPSHOTTING)
        look = self._set_aside(premises, self.photographer.look(self.baseline, demand, changed))
        files = count_files(look.manifest.values())
        if demand is Demand.CHANGED and self._unchanged(premises, look):
            return Outcome(None, files=files)
        unsure = "; an earlier sync may have reached the sandbox unanswered" if self.journal.unsure else ""
        _log.info("packaging %d files: %s%s", files, described(look.difference), unsure)
        only = None
        if demand is Demand.FORCED:
            look = self.photographer.resolved(look, self.baseline or {})  # what stands need not be compressed again
        if not self._whole_next and self._part_will_do(premises, look, demand):
            look = self.photographer.resolved(look, self.baseline or {})
            only = _part(look)
        packed = self.photographer.pack(look.manifest, premises.delivery.uplink.codec, only, attendant.packed)
        if demand is Demand.CHANGED and not packed.follow_up and self._same(premises, packed):
            return Outcome(None, files=files)
        doomed = self._doomed(premises, packed.manifest, packed.follow_up)
        make_way = partial(_make_way, premises, self._asked(packed.manifest, only), doomed, packed.manifest)
        look_into = partial(premises.blocked.find, packed.manifest, only)
        self._expect(premises, packed.manifest)
        self._whole_next = True  # until this one has succeeded
        small = packed if only is not None else None  # what is made anew on the way is whole, and proves nothing
        packed, sha256 = self._deliver(premises, packed, look.manifest, (make_way, look_into), attendant)
        premises.inspection.overwritten()
        if packed is small and not premises.small.proved(packed.manifest):
            # The journal's mark stands all the while: after a death here, too, the whole is sent.
            _log.info("after a small archive, a whole one follows")
            return self._sync(premises, demand, attendant, None)
        self._whole_next = False
        sync = LastSync(
            finished_at=stamp(self.clock.wall_s()),
            files=count_files(packed.manifest.values()),
            archive_bytes=packed.archive.size_bytes,
            sha256=sha256,
            seconds=round(self.clock.monotonic_s() - started_s, 3),
        )
        change = look.difference if self.baseline is not None else None
        self._remember(premises, packed.manifest, packed.follow_up)
        if packed.follow_up:
            _log.info(
                "%d files changed while being read (%s): another sync follows",
                len(packed.follow_up),
                shown_path(packed.follow_up[0]),
            )
        return Outcome(sync, tuple(packed.follow_up), sync.files, change, self.torn)

    def _part_will_do(self, premises: Premises, look: Look, demand: Demand) -> bool:
        """Whether it is enough to send what changed; the whole is sent after any doubt."""
        sure = self.baseline is not None and not self.journal.unsure
        if not sure or demand is not Demand.CHANGED or not premises.small.usable or not look.manifest:
            return False
        return not premises.clearing.empties(self._doomed(premises, look.manifest, ()))

    def _set_aside(self, premises: Premises, look: Look) -> Look:
        """The look without what is known to be blocked."""
        aside, baseline = premises.blocked.set_aside(look.manifest), self.baseline or {}
        if not aside:
            return look
        manifest = without(look.manifest, aside)
        look = Look(manifest, difference(baseline, manifest))
        return look if look.difference.certain else self.photographer.resolved(look, baseline)

    def _doomed(self, premises: Premises, wanted: Manifest, follow_up: Collection[str]) -> Versions:
        held = (self.baseline or {}, self._perhaps_there)
        wanted = premises.blocked.and_aside(wanted)  # nobody deleted that
        return premises.clearing.doomed(held, wanted, {*self.photographer.unread, *follow_up})

    def _asked(self, manifest: Manifest, only: Collection[str] | None) -> Callable[[], Question]:
        """What is to be known of the sandbox before this is put over what is there, worked out only if it is asked."""
        baseline, perhaps_there = self.baseline or {}, dict(self._perhaps_there)
        missed = () if self.journal.unsure else baseline.keys()  # what a reset may have taken is no one's doing
        return lambda: question(manifest, only, (baseline, perhaps_there), missed)

    def _expect(self, premises: Premises, manifest: Manifest) -> None:
        """What comes without an answer is ours, too, in this process and the next."""
        new = {path: manifest[path] for path in replaced(self.baseline or {}, manifest)}
        self._perhaps_there |= new
        if new and (premises.clearing.removes or premises.inspection.looks):
            with contextlib.suppress(OSError):  # then it counts as someone else's if this process dies meanwhile
                self.journal.record_perhaps_there(premises.target, self._perhaps_there)

    def _deliver(
        self,
        premises: Premises,
        packed: Packed,
        manifest: Manifest,
        around: tuple[Callable[[], None], Callable[[], bool]],
        attendant: Attendant,
    ) -> tuple[Packed, str]:
        """What was delivered, and its SHA-256. Damaged chunks are made anew: what went out of them was never whole."""
        delivery = premises.delivery
        for _ in range(_REPAIRS):
            try:
                return packed, delivery.deliver(packed.archive, packed.archive.identity, attendant, *around)
            except DamagedPiece as damage:
                _log.warning("%s: it is made anew", damage)
                packed = self.photographer.repack(manifest, damage.piece, delivery.uplink.codec)
        raise TryLater("the spool keeps losing what is written to it", "look at the disk that holds it")

    def _unchanged(self, premises: Premises, look: Look) -> bool:
        if self.journal.unsure or look.difference.certain or look.difference.doubtful:
            return False
        if premises.blocked.changed or self._owes(premises, look.manifest):
            return False
        if self.baseline is not None and self.baseline != look.manifest:
            # The same contents under new times: later scans need not read them again.
            self._remember(premises, look.manifest)
        return True

    def _same(self, premises: Premises, packed: Packed) -> bool:
        """What was packed is what the sandbox holds: a change was taken back in the meantime."""
        if self.journal.unsure or self.baseline is None:
            return False
        if premises.blocked.changed or self._owes(premises, packed.manifest):
            return False
        found = difference(self.baseline, packed.manifest)
        return not found.certain and not found.doubtful

    def _owes(self, premises: Premises, manifest: Manifest) -> bool:
        unread = {*self.photographer.unread, *premises.blocked.paths}
        return premises.clearing.owes(premises.blocked.and_aside(manifest), unread)

    def _remember(self, premises: Premises, manifest: Manifest, follow_up: Collection[str] = ()) -> None:
        held = (self.baseline or {}, self._perhaps_there)
        unread = {*self.photographer.unread, *follow_up, *premises.blocked.aside}
        self.baseline = manifest
        self.torn = tuple(path for path in follow_up if path in manifest)
        self._perhaps_there = {}
        try:
            held_back = set(self.photographer.held_back)
            with premises.clearing.accounting(held, manifest, unread, held_back):
                self.journal.record_initialized(premises.target, manifest)
            self.state_problems = []
        except OSError as failure:
            self.state_problems = [
                Problem(
                    "state:write",
                    f"what was synced cannot be recorded ({failure.strerror})",
                    "make the state folder writable; until then a restart uploads everything anew",
                )
            ]

    @property
    def problems(self) -> list[Problem]:
        """What the last scan, the sandbox and the state folder give reason to complain about."""
        return [
            *self.photographer.problems,
            *self._secrets(),
            *map(torn_copy, self.torn),
            *(self.premises.clearing.problems if self.premises else ()),
            *(self.premises.blocked.problems if self.premises else ()),
            *(self.premises.small.problems if self.premises else ()),
            *(self.premises.inspection.problems if self.premises else ()),
            *self.state_problems,
        ]

    def _secrets(self) -> list[Problem]:
        """What stays home for a secret in it, and what may be in the sandbox of it, be it gone here by now."""
        clearing, held_back = self.premises.clearing if self.premises else None, set(self.photographer.held_back)

        def may_be_there(path: str) -> bool:
            sent = path in (self.baseline or {}) or path in self._perhaps_there
            return sent or (clearing is not None and clearing.lingers(path))

        left = clearing.secret - held_back if clearing else ()
        return [*self.photographer.held_back.problems(may_be_there), *map(sent_before, sorted(left))]


def _make_way(premises: Premises, ask: Callable[[], Question], doomed: Versions, manifest: Manifest) -> None:
    premises.inspection.look(ask)
    suspects = premises.clearing.clear(doomed, premises.blocked.and_aside(manifest))
    premises.blocked.settle(suspects, manifest)


def _part(look: Look) -> set[str] | None:
    """What a small archive holds; with something little besides, since one of nothing may be none to a server.

    None where it would lack nothing: such a one is no small one, and proves nothing. Folders come with what is in them.
    """
    found = look.difference
    least = min(look.manifest, key=lambda path: look.manifest[path].size_bytes)
    part = {*found.added, *found.changed, *found.doubtful, least}
    with_folders = set(part)
    for path in part:
        while path := path.rpartition("/")[0]:
            with_folders.add(path)
    return part if any(path not in with_folders for path in look.manifest) else None
