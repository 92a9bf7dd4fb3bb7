"""Prepares the sandbox for an archive: looks, saves what would be overwritten, removes what was deleted here.

A look that only reads runs beside the upload. What it finds is acted on right before initialize, as the look is then as
fresh as it can be. A path that must stay as it is there ends the attempt: the archive is made again without it.
"""

from __future__ import annotations

import logging
from collections import ChainMap
from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import chain

from msgspec import Struct, field, structs

from syncd.archive.exported_files import NotKeptHere
from syncd.core.choices import AgentChanges
from syncd.core.text import counted, shown_path
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry, same
from syncd.model.manifest import Manifest, directories_above, in_archive_order, is_within
from syncd.model.reconcile import Forced, PathOutcome, Plan, Policy, Sides, plan_sync, withheld
from syncd.remote.failure import StepFailed
from syncd.sandbox.leftovers import Versions
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest, LookResult, Missing, Obstacle, was_emptied
from syncd.sandbox.sandbox_state import SandboxContent
from syncd.sandbox.saved_versions import SentEntry, Why
from syncd.sandbox.seen_paths import place_items
from syncd.selection.ignore_files import GIT
from syncd.sync.agent_work import pruned_names
from syncd.sync.delivery import Verdict
from syncd.sync.sandbox import Sandbox
from syncd.sync.sync_plan import SAMPLE, is_outdated, look_request, obstacles_seen
from syncd.sync.work_saver import WorkSaver

_log = logging.getLogger("syncd.preparation")
# An agent that writes all the time must not keep all else from arriving: once the archive was made again so often
# without what it had written, what it writes now is saved and overwritten.
_GIVES_WAY_FROM = 3
# If each look is outdated again by what comes after it, the sync begins another round.
_MOST_RENEWALS = 5
# So that the list stays a small upload. Obstacles beyond are not found.
_MOST_CHECKED = 200_000
_PLACES = (LookAction.PLACE, LookAction.COMMITS)


class Preparation(Struct):
    """The preparation for one archive.

    `manifest` is what the sandbox is to hold, `written` are its entries in the archive. `held_here` are the entries
    here of paths that both sides changed, `unsent_here` those of paths that an obstacle
    holds, or another archive is to hold. `repeated` counts
    the rounds of this sync before, `withheld` those in which something stayed there.
    """

    services: Sandbox
    content: SandboxContent
    manifest: Manifest
    written: Manifest
    paths_to_delete: Versions
    held_here: Mapping[str, Entry]
    unsent_here: Mapping[str, Entry]
    is_whole: bool
    policy: Policy
    work_saver: WorkSaver
    base_of: Callable[[str], SentEntry | None]
    repeated: int
    withheld: int
    only_there: frozenset[str] = frozenset()  # what was found that only the sandbox has, if it was looked for
    looked: LookResult | None = None  # the last look, if somebody could
    is_cleared: bool = False  # nothing of what was there outlives the archive
    _removed: set[str] = field(default_factory=set)
    _saved: dict[str, SeenEntry] = field(default_factory=dict)  # there, where nothing is to be left of what is there
    _request: LookRequest | None = None
    _may_be_empty: bool = False  # nothing was ever sent there, so what is there is listed first

    def __post_init__(self) -> None:
        known = self.content.leftovers, self.paths_to_delete, self.held_here, self.unsent_here
        self._may_be_empty = not any((*self.content.versions, *known, self.services.state.seen.kept))

    def begin(self) -> None:
        """Start the look, if it may run beside the upload. Raises `Stop`."""
        if self._looks:
            self._request = self._look_request()
            self.services.remote_changes.begin(self._request)

    def complete(self) -> Verdict:
        """Do what must be done before initialize. Raises `StepFailed`, `TryLater`, `Stop`."""
        deletion_sync, partial_archives = self.services.deletion_sync, self.services.partial_archives
        state = self.services.state
        deletion_sync.settle_pending(self._wanted)
        if partial_archives.replaces:
            self.is_cleared = True
            self._save_all()
            gone = {**state.leftovers.entries, **self.paths_to_delete}
            deletion_sync.removed([LookResult(removed=[*gone])], gone, self._wanted)
            state.seen.forget()
            return Verdict.INITIALIZE
        if self._looks or self.paths_to_delete or self.unsent_here:
            verdict = self._look()
            if verdict is not Verdict.INITIALIZE:
                return verdict
        if not self._looks:
            state.seen.note_written(self.written)
        if self._looks and (partial_archives.may_replace or self.content.unanswered):
            self._save_what_stays()
        if self._is_outdated:
            return Verdict.LOOK_AGAIN
        return Verdict.INITIALIZE

    def renew(self) -> Verdict:
        """Complete it once more if its look is outdated by now, and again if that took too long itself.

        Raises as `complete` does.
        """
        if not self._is_outdated:
            return Verdict.INITIALIZE
        for _ in range(_MOST_RENEWALS):
            verdict = self.complete()
            if verdict is not Verdict.LOOK_AGAIN:
                return verdict
            self.repeated += 1
        return Verdict.LOOK_AGAIN

    @property
    def _is_outdated(self) -> bool:
        """True if there was a look, and the agent may have gone on since."""
        if self.policy is AgentChanges.OVERWRITE:
            return False
        return is_outdated(self.services.remote_changes.age_s(self.looked), self.repeated)

    def goes_over(self, path: str) -> bool:
        """True if the archive, once it is initialized, has taken the place of what anyone had made there."""
        return self.is_cleared or path in self.written or is_within(path, self._removed)

    def find_reason(self) -> Verdict | None:
        """Find out if an obstacle there made the initialize fail; None if nobody could look. Raises `Stop`."""
        paths = in_archive_order({*self.written, *directories_above(self.written)})
        checked = {path: self.manifest[path] for path in paths[:_MOST_CHECKED] if path in self.manifest}
        try:
            request = LookRequest(place_items(checked, self._is_ours_there), most_copied_bytes=0)
            result = self.services.remote_changes.look_aside(request)
        except (StepFailed, NotKeptHere) as failure:
            _log.debug("cannot find out what keeps %d paths from being extracted there: %s", len(checked), failure)
            return None
        if result.unseen:
            return None
        return self._judged(self.services.state.seen.obstacles | dict(result.blocked))

    @property
    def _wanted(self) -> Manifest:
        """All that the workspace has: an obstructed path is no deleted one."""
        return self.manifest | self.unsent_here

    @property
    def _here(self) -> Manifest:
        return self.manifest | self.unsent_here | self.held_here

    def _judged(self, obstacles: Mapping[str, Obstacle]) -> Verdict:
        """Remember these obstacles, and return the verdict on an archive that may hold what they are in the way of."""
        seen = self.services.state.seen
        seen.note_obstacles(obstacles, self._here, self.written)
        obstructed = seen.obstacles
        is_obstructed = bool(obstructed) and any(is_within(path, obstructed) for path in self.written)
        return Verdict.LEAVE_OUT if is_obstructed else Verdict.INITIALIZE

    @property
    def _places(self) -> dict[str, LookItem]:
        """The places to look at: of what an obstacle held before, and of a repository that is sent for the first time.

        The workspace's repository must not take the place of commits there.
        """
        content, entries = self.content, dict(self.unsent_here)
        looks = self.policy in (AgentChanges.SAVE, AgentChanges.HOLD)
        if looks and content.base is not None and GIT in self.written and not content.may_hold(GIT):
            entries[GIT] = self.written[GIT]
        return place_items(entries, self._is_ours_there, (GIT,))

    def _is_ours_there(self, path: str) -> bool:
        """True if the path is here, and nothing of someone else's stays in its place there."""
        seen = self.services.state.seen
        return path in self._here and not (is_within(path, seen.held) or is_within(path, seen.kept))

    def _save_all(self) -> None:
        """Save all that differs there, as nothing of it stays. Where nobody can look, `save` goes on."""
        if self.policy is AgentChanges.OVERWRITE:
            return
        self.looked = None
        try:
            self.looked = self.work_saver.before_replacing(self.services, self._saved)
        except StepFailed as failure:
            self.services.remote_changes.could_not_look(failure)

    def _save_what_stays(self) -> None:
        """Save what stays as it is there, while an initialize may not leave it alone, this one or a late one."""
        seen = self.services.state.seen
        paths = [*seen.both_changed, *seen.kept]
        if not self.services.partial_archives.may_replace:
            paths = [path for path in paths if any(path in sent for sent in self.content.unanswered)]
        items = {path: LookItem(tuple(self.content.versions_of(path)), LookAction.FETCH) for path in paths}
        if not items:
            return
        try:
            there = self.services.remote_changes.look(LookRequest(items)).differing
        except StepFailed as failure:
            self.services.remote_changes.could_not_look(failure)
        else:
            self.services.remote_changes.save(Why.CONFLICT, there, self.base_of)
            self.services.remote_changes.drop_copies()

    def _look(self) -> Verdict:
        """Look, save and remove, and return the verdict on the archive."""
        remote_changes, seen = self.services.remote_changes, self.services.state.seen
        deletion_sync = self.services.deletion_sync
        request = self._look_request()
        if not request.items and not request.find_new:
            return Verdict.INITIALIZE
        if request.with_action(LookAction.REMOVE):
            self.services.delivery.mark_uncertain()
        if self.unsent_here:
            remote_changes.retry()  # nothing else finds out that a place is free
        try:
            self.looked = result = remote_changes.finish(request)
        finally:
            self._request = None  # the next attempt looks at what is there then
        if result is None:
            why = "nobody could look there"
            taken = deletion_sync.not_removed(self.paths_to_delete, self._wanted, why)
            self._plan_removals()
            return self._judged(taken | self._obstacles_seen(None))
        if self._may_be_empty and not request.items and not self._is_empty(result):
            self._may_be_empty = False
            return self._look()
        if self._was_emptied(request, result):
            self.work_saver.save_followed(self.services, Why.SANDBOX_ENDED)
            is_believed = not self.services.partial_archives.may_replace
            self.services.partial_archives.withdraw()
            if is_believed or not self.is_whole:
                return Verdict.SEND_ALL  # with a look at what only the sandbox has
        differing = {path: there for path, there in result.differing.items() if not self._is_as_here(path, there)}
        self._save_only_there(result)
        plan = self._plan(differing)
        unsaved = self._save(plan)
        if unsaved:
            plan = self._plan(differing, unsaved)
        remote_changes.drop_copies()
        if not self.is_whole and any(each.here.is_directory for each in plan.of(PathOutcome.SAVE)):
            return Verdict.SEND_ALL  # with a directory went all that was in it
        taken = self._remove(result, plan, request)
        kept = set(seen.kept)
        saves = remote_changes.agent_changes is AgentChanges.SAVE or self.policy is Forced.FORCE
        seen.note(
            plan,
            partial(_is_looked_at, request),
            here=self._here,
            written=self.written,
            now_s=self.work_saver.clock.monotonic_s(),
            why_unsaved=remote_changes.why_unsaved if saves else None,
        )
        self._put_back(plan)
        stays = withheld(self.written, plan)
        if stays:
            _log.info("the sandbox's version of %s stays (%s)", counted(len(stays), "path"), shown_path(min(stays)))
            return Verdict.LEAVE_OUT
        released = [path for path in kept - seen.kept if path not in self.written]
        deleted = {path for path in released if path not in self._here and path not in self.paths_to_delete}
        gone_there = deleted & result.differing.keys()  # the others are as they were sent again
        deletion_sync.gone |= gone_there
        left = (deleted | directories_above(deleted)) - gone_there
        seen.released += sorted(left & self.content.leftovers.keys())
        if self.is_whole and any(path in self.manifest for path in released):
            return Verdict.LEAVE_OUT
        gone = deletion_sync.gone  # some by a removal after the look
        in_the_way = {path: each for path, each in self._obstacles_seen(result).items() if path not in gone}
        return self._judged(taken | in_the_way)

    def _is_empty(self, result: LookResult) -> bool:
        """True if a look that only lists found nothing that an archive could meet, or take away."""
        met = [path for path in result.pruned if path == "." or path in self.manifest]
        return not (result.new or met or result.unlisted or result.unseen)

    def _put_back(self, plan: Plan) -> None:
        """Have what is here again as it was put there, and was changed there meanwhile, be a kept path as any other.

        With a directory in whose place something else is there, so is what is in it.
        """
        base, content = self.content.base, self.content
        if base is not None:
            kept = self.written.paths_within([each.path for each in plan.of(PathOutcome.KEEP)])
            again = {path: content.base_of(path) for path in kept if path not in base}
            returned = {p: entry for p, entry in again.items() if entry is not None and same(entry, self.written[p])}
            if returned:
                self.services.state.put_back(returned)

    def _was_emptied(self, request: LookRequest, result: LookResult) -> bool:
        """True if next to nothing is there of the sample of what syncd had put there."""
        sample = [
            path
            for path in (*request.with_action(LookAction.COMPARE), *request.with_action(LookAction.FETCH))
            if path in self.written and request.items[path].missing is Missing.DIFFERS
        ]
        missing = sum(path in result.differing and result.differing[path].kind is Kind.ABSENT for path in sample)
        return was_emptied(result.missing + missing, len(request.with_action(LookAction.EXISTS)) + len(sample))

    def _obstacles_seen(self, result: LookResult | None) -> dict[str, Obstacle]:
        """Return what keeps paths from being extracted, as far as a look, if there was one, came to it."""
        repositories = [path for path, item in self._places.items() if item.action is LookAction.COMMITS]
        return obstacles_seen(result, self.services.state.seen.obstacles, repositories)

    @property
    def _policy_of_written(self) -> Policy:
        """The policy for the paths in the archive; for all others, `policy` itself holds."""
        gives_way = self.policy is AgentChanges.SAVE and self.withheld >= _GIVES_WAY_FROM
        return Forced.FORCE if gives_way else self.policy

    def _plan(self, differing: Mapping[str, SeenEntry], unsaved: Collection[str] = ()) -> Plan:
        if not differing:
            return Plan()
        here = ChainMap(dict(self.held_here), self.manifest)
        changed_below = self.content.changed_in(chain(self.written.items(), self.held_here.items()))
        base = {path: entry for path in differing if (entry := self.content.base_of(path)) is not None}
        if self._policy_of_written is self.policy:
            plan = plan_sync(Sides(base, here, differing), self.policy, changed_below, unsaved)
            if self.policy is not Forced.FORCE:
                return plan
            # A person wants these as they are here.
            stays = [each.path for each in plan.of(PathOutcome.KEEP) if each.here.kind is not Kind.ABSENT]
            return plan.with_outcome(stays, PathOutcome.HOLD, "")
        in_the_way = {path: there for path, there in differing.items() if path in self.written}
        others = {path: there for path, there in differing.items() if path not in self.written}
        given_way = plan_sync(Sides(base, here, in_the_way), self._policy_of_written, changed_below, unsaved)
        kept = plan_sync(Sides(base, here, others), self.policy, changed_below, unsaved)
        return Plan(kept.paths + given_way.paths)

    def _save_only_there(self, result: LookResult) -> None:
        """Save what only the sandbox has, until it is known that an initialize leaves it alone."""
        if result.new:
            leave_out = self.work_saver.leave_out()
            new = {
                path: there
                for path, there in result.new.items()
                if not leave_out(path, there.is_directory) and not self._is_ours(path, there)
            }
            self.services.remote_changes.save(Why.CONFLICT, new)
            self.only_there = frozenset(new)

    def _is_ours(self, path: str, there: SeenEntry) -> bool:
        """True if the path was put there, and is gone here."""
        return any(same(there, version) for version in self.content.versions_of(path))

    def _save(self, plan: Plan) -> frozenset[str]:
        """Save what is about to be overwritten or removed, and return the paths that cannot be saved."""
        versions = plan.there(PathOutcome.SAVE)
        here = self._here  # what was held is written by the next round
        removed = {path: there for path, there in versions.items() if path not in here}
        overwritten = {path: there for path, there in versions.items() if path in here}
        unsaved = self.services.remote_changes.save(Why.OVERWRITTEN, overwritten, self.base_of)
        return unsaved | self.services.remote_changes.save(Why.REMOVED, removed)

    def _remove(self, result: LookResult, plan: Plan, request: LookRequest) -> dict[str, Obstacle]:
        """Remove what the look itself did not, now that it is saved; return what still has a wanted path's place."""
        stays = plan.stays
        seen = {path: there for path, there in result.differing.items() if _is_known(there)}
        again: Versions = {}
        for path, versions in self.paths_to_delete.items():
            if request.items[path].action is not LookAction.REMOVE and path not in stays:
                again[path] = [*versions, *([seen[path]] if path in seen else [])]
        for path, there in plan.there(PathOutcome.SAVE).items():
            # No extractor replaces a directory; some write through a link, or refuse whatever a link leads out from.
            if path not in self.written or path not in seen:
                continue
            if there.kind is Kind.SYMLINK or there.kind is not self.manifest[path].kind:
                again.setdefault(path, []).append(seen[path])
        if self.policy is AgentChanges.OVERWRITE:
            again |= self._changed_there(result)
        for path in directories_above(again).intersection(result.kept):  # what it held goes only now
            again[path] = self.paths_to_delete[path]
        removals = [result]
        if again:
            self.services.delivery.mark_uncertain()
            items = {path: LookItem(tuple(again[path]), LookAction.REMOVE) for path in sorted(again, reverse=True)}
            removals.append(self.services.remote_changes.look(LookRequest(items)))
        self._removed.update(*(each.removed for each in removals))
        taken = self.services.deletion_sync.removed(removals, self.paths_to_delete, self._wanted)
        self._plan_removals()
        return {path: obstacle for path, obstacle in taken.items() if path not in stays}

    def _plan_removals(self) -> None:
        if self.paths_to_delete:
            self.services.deletion_sync.plan_next(self.services.remote_changes.programs)

    def _changed_there(self, result: LookResult) -> Versions:
        """Return what is there of the paths to delete that someone changed: a removal names it exactly.

        What is of the kind that is wanted there is in nobody's way.
        """
        wanted = self._wanted
        changed = {path: result.differing.get(path, ABSENT) for path in self.paths_to_delete}
        items = {
            path: LookItem((), LookAction.FETCH)
            for path, there in changed.items()
            if there != ABSENT and (path not in wanted or there.kind is not wanted[path].kind)
        }
        found = self.services.remote_changes.look(LookRequest(items)).differing if items else {}
        return {path: [there] for path, there in found.items() if _is_known(there)}

    def _is_as_here(self, path: str, there: SeenEntry) -> bool:
        entry = self.manifest.get(path) or self.held_here.get(path)
        return entry is not None and same(entry, there)

    def _look_request(self) -> LookRequest:
        # Until it is known that an initialize leaves the rest alone, the rest is looked at, too.
        all_may_go = self.services.partial_archives.may_replace and self.policy is not AgentChanges.OVERWRITE
        if self._request is None and all_may_go and self._may_be_empty:
            pruned = pruned_names(self.work_saver.leave_out())
            self._request = LookRequest({}, find_new=True, pruned_names=pruned, most_copied_bytes=0)
        if self._request is None:
            self._request = look_request(
                self.content,
                self.manifest,
                Manifest() if self.policy is AgentChanges.OVERWRITE else self.written,
                self.paths_to_delete,
                held_here=self.held_here,
                kept=() if self.policy is Forced.FORCE else self.services.state.seen.kept,
                places=self._places,
                # A whole archive fills an emptied sandbox anyway, and what it lacks may well be missing there.
                most_counted=0 if self.is_whole or all_may_go else SAMPLE,
                most_missed=SAMPLE if self.is_whole else 0,
                policy=self._policy_of_written,
                compared=self.manifest if all_may_go and not self.is_whole else None,
            )
            if all_may_go:
                pruned = pruned_names(self.work_saver.leave_out())
                self._request = structs.replace(self._request, find_new=True, pruned_names=pruned)
        return self._request

    @property
    def _looks(self) -> bool:
        """True if what is there outlives the initialize, so that a look says what becomes of each path."""
        return self.policy is not AgentChanges.OVERWRITE and not self.services.partial_archives.replaces


def _is_looked_at(request: LookRequest, path: str) -> bool:
    item = request.items.get(path)
    return item is not None and item.action not in (LookAction.EXISTS, *_PLACES)


def _is_known(there: SeenEntry) -> bool:
    """True if a removal can name what is there exactly."""
    return there.kind in (Kind.DIRECTORY, Kind.SYMLINK) or (there.kind is Kind.FILE and there.digest != b"")
