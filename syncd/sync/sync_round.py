"""One round of a sync: an archive, the look beside its upload, and what is done there before its initialize.

A look that only reads runs beside the upload. What it finds is acted on right before initialize, as it is then as fresh
as it can be: `sync_plan` decides what follows from it, and it is done in this order:

look → save what goes → remove → record what stays, so that no later archive holds it → the verdict on this archive
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from msgspec import Struct, field, structs

from syncd.archive.exported_files import NotKeptHere
from syncd.archive.packer import Packed
from syncd.core.choices import AgentChanges
from syncd.model.entry import ABSENT, Kind, SeenEntry, same
from syncd.model.manifest import archive_order, directories_above, is_within
from syncd.model.reconcile import Forced, PathOutcome, Plan, Versions
from syncd.remote.failure import StepFailed
from syncd.sandbox.deletions import NOBODY, removed_by
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest, LookResult, Obstacle
from syncd.sandbox.saved_versions import Why
from syncd.sandbox.seen_paths import place_items
from syncd.selection.ignore_files import GIT
from syncd.sync.agent_work import pruned_names
from syncd.sync.following import FollowedStore, save_followed
from syncd.sync.sandbox import Sandbox
from syncd.sync.sync_plan import (
    ROUNDS,
    Actions,
    Attempt,
    Verdict,
    actions_after,
    changed_since,
    is_exact,
    is_filled,
    is_outdated,
    look_request,
    lost_all,
    obstacles_seen,
    verdict_on,
)
from syncd.sync.work_saver import WorkSaver

_log = logging.getLogger("syncd.sync")
# So that the list stays a small upload. Obstacles beyond are not found.
_MOST_CHECKED = 200_000
_PLACES = (LookAction.PLACE, LookAction.COMMITS)


class SyncRound(Struct):
    """The round for one archive.

    `last_look` is the last one, if somebody could, and `only_there` what it found that only the sandbox has, if it was
    looked for. `gone` is what was deleted here and is there no more.
    """

    sandbox: Sandbox
    packed: Packed
    attempt: Attempt
    work_saver: WorkSaver
    last_look: LookResult | None = None
    only_there: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    _removed: set[str] = field(default_factory=set)
    _saved: dict[str, SeenEntry] = field(default_factory=dict)  # there, where nothing is to be left of what is there
    _request: LookRequest | None = None  # that runs beside the upload
    _repeated: int = 0

    def begin(self) -> None:
        """Start the look, if it may run beside the upload. Raises `Stop`."""
        if self._compares:
            self._request = self._look_request()
            self.sandbox.looks.begin(self._request)

    def prepare(self) -> Verdict:
        """Do what must be done before initialize, again if that took so long that the agent may have gone on.

        Raises `StepFailed`, `TryLater`, `Superseded`, `Stop`.
        """
        for _ in range(ROUNDS):
            verdict = self._complete()
            if verdict is not Verdict.INITIALIZE or self._mark_in_time():
                return verdict
            self._repeated += 1
        return Verdict.PACK_AGAIN

    def goes_over(self, path: str) -> bool:
        """True if the archive, once it is initialized, has taken the place of what anyone had made there."""
        replaces = self.sandbox.partial_archives.replaces
        return replaces or path in self.attempt.written or is_within(path, self._removed)

    @property
    def may_have_taken_away(self) -> bool:
        """True if the archive, once it is initialized, may have taken away what stays and it lacked."""
        seen, may_replace = self.sandbox.state.seen, self.sandbox.partial_archives.may_replace
        return self.attempt.is_whole and may_replace and bool(seen.kept or seen.both_changed)

    @property
    def replaced(self) -> list[str]:
        """The paths at which the last look found another version, and that the archive has gone over."""
        found = (self.last_look or LookResult()).differing
        return [path for path, there in found.items() if there.kind is not Kind.ABSENT and self.goes_over(path)]

    def find_reason(self) -> Verdict | None:
        """Find out if an obstacle there made the initialize fail; None if nobody could look. Raises `Stop`."""
        manifest, written, seen = self.attempt.manifest, self.attempt.written, self.sandbox.state.seen
        paths = sorted({*written, *directories_above(written)}, key=archive_order)
        checked = {path: manifest[path] for path in paths[:_MOST_CHECKED] if path in manifest}
        try:
            request = LookRequest(place_items(checked, self._is_ours_there), most_copied_bytes=0)
            result = self.sandbox.looks.look(request)
        except (StepFailed, NotKeptHere) as failure:
            _log.debug("cannot find out what keeps %d paths from being extracted there: %s", len(checked), failure)
            return None
        if result.unseen:
            return None
        before = seen.stays
        seen.note_obstacles(seen.obstacles | dict(result.blocked), self.attempt.here)
        return self._verdict(before)

    def save_followed(self) -> None:
        """Save what following kept after this sync's own look, and the archive, which has arrived, went over."""
        state, arrived = self.sandbox.state, self.attempt.manifest
        store = FollowedStore(state.db, state.target)
        work = store.load(self.goes_over) if self.sandbox.looks.are_made else None
        there = {} if work is None else work.savable(state.content)
        lost = {path: entry for path, entry in there.items() if not same(entry, arrived.get(path, ABSENT))}
        self.sandbox.saver.save(Why.OVERWRITTEN, lost, self.attempt.content.base_of)

    # -- before initialize

    @property
    def _compares(self) -> bool:
        """True if what is there outlives the initialize, so that a look says what becomes of each path."""
        return self.attempt.policy is not AgentChanges.OVERWRITE and not self.sandbox.partial_archives.replaces

    @property
    def _is_outdated(self) -> bool:
        """True if there was a look, and the agent may have gone on since."""
        if self.attempt.policy is AgentChanges.OVERWRITE:
            return False
        return is_outdated(self.sandbox.looks.age_s(self.last_look), self.attempt.number + self._repeated)

    def _mark_in_time(self) -> bool:
        """Record that what is written may be there from now on; False if a slow disk took too long for that."""
        if self._is_outdated:
            return False
        self.sandbox.state.mark_uncertain(self.attempt.written)
        return not self._is_outdated

    def _complete(self) -> Verdict:
        attempt, partial_archives = self.attempt, self.sandbox.partial_archives
        self.sandbox.removals.settle_pending(attempt.wanted)
        self.gone = frozenset()
        if partial_archives.replaces:
            return self._clear()
        if self._compares or attempt.to_delete or attempt.obstructed:
            request = self._request or self._look_request()
            self._request = None  # the next one is of what is there then
            verdict = self._look(request) if request.asks_something else Verdict.INITIALIZE
            if verdict is not Verdict.INITIALIZE:
                return verdict
        if not self._compares:
            self.sandbox.state.seen.note_written(attempt.written)
        return Verdict.INITIALIZE

    def _clear(self) -> Verdict:
        """Save all that differs there, as nothing of it stays. Where nobody can look, `save` goes on."""
        state, attempt = self.sandbox.state, self.attempt
        if attempt.policy is not AgentChanges.OVERWRITE:
            self.last_look = None
            try:
                self.last_look = self.work_saver.before_replacing(self.sandbox, self._saved)
            except StepFailed as failure:
                self.sandbox.looks.could_not_look(failure)
        gone = {**{path: state.content.versions_of(path) for path in state.content.leftovers}, **attempt.to_delete}
        self._note_removed([LookResult(removed=[*gone])], gone)
        was_obstructed = bool(state.seen.obstacles)
        state.seen.forget()
        return Verdict.PACK_AGAIN if was_obstructed else Verdict.INITIALIZE

    # -- the look

    @property
    def _places(self) -> dict[str, LookItem]:
        """The places to look at: of what an obstacle held before, and of a repository that is sent for the first time.

        The workspace's repository must not take the place of commits there.
        """
        attempt = self.attempt
        content, entries = attempt.content, dict(attempt.obstructed)
        looks = attempt.policy in (AgentChanges.SAVE, AgentChanges.HOLD)
        if looks and content.is_known and GIT in attempt.written and not content.may_hold(GIT):
            entries[GIT] = attempt.written[GIT]
        return place_items(entries, self._is_ours_there, (GIT,))

    def _is_ours_there(self, path: str) -> bool:
        """True if the path is here, and nothing of someone else's stays in its place there."""
        return path in self.attempt.here and not is_within(path, self.sandbox.state.seen.stays)

    def _look_request(self) -> LookRequest:
        """Return the first look of this round: a first archive asks only what is there at all."""
        attempt = self.attempt
        if attempt.is_first and attempt.all_may_go and not self.sandbox.state.seen.kept:
            return LookRequest({}, find_new=True, pruned_names=self._pruned_names(), most_copied_bytes=0)
        return self._full_request()

    def _full_request(self) -> LookRequest:
        attempt = self.attempt
        request = look_request(attempt, self.sandbox.state.seen.kept, self._places)
        if not attempt.all_may_go:
            return request
        # Until it is known that an initialize leaves the rest alone, the rest is looked at, too.
        return structs.replace(request, find_new=True, pruned_names=self._pruned_names())

    def _pruned_names(self) -> list[str]:
        return pruned_names(self.work_saver.workspace.is_excluded())

    def _look(self, request: LookRequest) -> Verdict:
        """Look, do in their order the things that follow from it, and return the verdict on the archive."""
        attempt, state, stayed = self.attempt, self.sandbox.state, self.sandbox.state.seen.stays
        request, result = self._complete_look(request)
        if result is None:
            unremoved = LookResult(failed=dict.fromkeys(attempt.to_delete, NOBODY))
            return self._judged(stayed, self._note_removed([unremoved], attempt.to_delete), None)
        if lost_all(attempt, request, result) and self._note_emptied():
            return Verdict.SEND_ALL  # with a look at what only the sandbox has
        actions = self._save(request, result)
        if not attempt.is_whole and actions.replaces_directory:
            state.mark_uncertain()  # so the next one is whole: with the directory went all that was in it
            return Verdict.PACK_AGAIN
        later = self._remove(actions, result)
        occupied = self._note_removed([result, later], attempt.to_delete)
        if self._compares and attempt.is_made_again and changed_since(attempt, result, later):
            return Verdict.PACK_AGAIN  # with a look that saves what someone changed since this one
        self._note_staying(request, actions.plan)
        not_free = {path: each for path, each in occupied.items() if path not in actions.plan.stays}
        return self._judged(stayed, not_free, result)

    def _complete_look(self, request: LookRequest) -> tuple[LookRequest, LookResult | None]:
        """Look, and once more in full where a look that only lists found something; return the last one."""
        result = self._finish_look(request)
        if result is not None and self.attempt.is_first and not request.items and is_filled(self.attempt, result):
            request = self._full_request()
            result = self._finish_look(request)
        return request, result

    def _finish_look(self, request: LookRequest) -> LookResult | None:
        if request.with_action(LookAction.REMOVE):
            self.sandbox.state.mark_uncertain()
        if self.attempt.obstructed:
            self.sandbox.looks.retry()  # nothing else finds out that a place is free
        self.last_look = self.sandbox.looks.finish(request)
        return self.last_look

    def _note_emptied(self) -> bool:
        """Note that the sandbox was emptied; True if that ends this archive: it is a partial one, or it is certain."""
        sandbox = self.sandbox
        is_certain = not sandbox.partial_archives.may_replace
        save_followed(sandbox.saver, sandbox.state, Why.SANDBOX_ENDED)
        sandbox.note_emptied()
        return is_certain or not self.attempt.is_whole

    def _save(self, request: LookRequest, result: LookResult) -> Actions:
        """Save what is about to be overwritten or removed, and return what is done then."""
        attempt = self.attempt
        new: dict[str, SeenEntry] = {}
        if result.new:  # what only the sandbox has, until it is known that an initialize leaves it alone
            is_excluded = self.work_saver.workspace.is_excluded()
            new = {
                path: there
                for path, there in result.new.items()
                if not is_excluded(path, there.is_directory) and not attempt.is_ours(path, there)
            }
            self.only_there = frozenset(new)
        actions = actions_after(attempt, request, result, new)
        unsaved = frozenset[str]()
        for why, versions in actions.saves.items():
            # What is gone here is no side of a merge.
            bases = () if why is Why.REMOVED else (attempt.content.base_of,)
            unsaved |= self.sandbox.saver.save(why, versions, *bases)
        self.sandbox.looks.drop_copies()
        return actions_after(attempt, request, result, new, unsaved) if unsaved else actions

    def _remove(self, actions: Actions, result: LookResult) -> LookResult:
        """Remove what the look itself did not, by a later one at that."""
        removals = dict(actions.removals)
        if self.attempt.policy is AgentChanges.OVERWRITE:
            removals |= self._changed_there(result)
        for path in directories_above(removals).intersection(result.holding_more):  # what it held goes only now
            removals[path] = self.attempt.to_delete[path]
        if not removals:
            return LookResult()
        self.sandbox.state.mark_uncertain()
        items = {path: LookItem(tuple(removals[path]), LookAction.REMOVE) for path in sorted(removals, reverse=True)}
        return self.sandbox.looks.look(LookRequest(items))

    def _note_removed(self, results: Sequence[LookResult], to_delete: Versions) -> Mapping[str, Obstacle]:
        """Note what these looks removed; return what still has a wanted path's place."""
        self._removed.update(*(each.removed for each in results))
        removed = removed_by(results, to_delete, self.attempt.wanted)
        self.sandbox.removals.note(removed, to_delete.keys())
        self.gone = removed.gone
        return removed.occupied

    def _changed_there(self, result: LookResult) -> Versions:
        """Return what is there of the paths to delete that someone changed: a removal names it exactly.

        What is of the kind that is wanted there is in nobody's way.
        """
        wanted = self.attempt.wanted
        changed = {path: result.differing.get(path, ABSENT) for path in self.attempt.to_delete}
        items = {
            path: LookItem((), LookAction.FETCH)
            for path, there in changed.items()
            if there != ABSENT and (path not in wanted or there.kind is not wanted[path].kind)
        }
        found = self.sandbox.looks.look(LookRequest(items)).differing if items else {}
        return {path: [there] for path, there in found.items() if is_exact(there)}

    def _note_staying(self, request: LookRequest, plan: Plan) -> None:
        """Record what stays as it is there.

        What is here again as it was put there, and was changed there meanwhile, is then a kept path as any other. So
        is what was in a directory in whose place something else is there.
        """
        attempt, state = self.attempt, self.sandbox.state
        saves = self.sandbox.looks.agent_changes is AgentChanges.SAVE or attempt.policy is Forced.FORCE
        state.seen.note(
            plan,
            partial(_is_looked_at, request),
            here=attempt.here,
            now_s=self.work_saver.access.clock.monotonic_s(),
            why_unsaved=self.sandbox.why_unsaved if saves else None,
        )
        content = attempt.content
        if content.is_known:
            kept = attempt.written.paths_within([each.path for each in plan.of(PathOutcome.KEEP)])
            again = {path: content.base_of(path) for path in kept if path not in content.base}
            returned = {p: old for p, old in again.items() if old is not None and same(old, attempt.written[p])}
            if returned:
                state.put_back(returned)

    def _judged(self, before: Collection[str], occupied: Mapping[str, Obstacle], result: LookResult | None) -> Verdict:
        """Note what is in the way there, and return the verdict on the archive.

        `before` are the paths that stayed as they are until this look, and `occupied` the places that are not free.
        """
        attempt, seen = self.attempt, self.sandbox.state.seen
        if result is not None:  # what is gone there was kept, or held, until now
            freed = {*before} - seen.stays.keys() - attempt.to_delete.keys()
            self.gone |= {path for path in freed & result.differing.keys() if path not in attempt.here}
        repositories = [path for path, item in self._places.items() if item.action is LookAction.COMMITS]
        in_the_way = obstacles_seen(result, seen.obstacles, repositories)
        others = {path: each for path, each in in_the_way.items() if path not in self.gone}
        seen.note_obstacles({**occupied, **others}, attempt.here)
        return self._verdict(before)

    def _verdict(self, before: Collection[str]) -> Verdict:
        gone = self.gone if self.sandbox.removals.removes else None
        return verdict_on(self.attempt, before, self.sandbox.state.seen.stays, gone)


def _is_looked_at(request: LookRequest, path: str) -> bool:
    item = request.items.get(path)
    return item is not None and item.action not in (LookAction.EXISTS, *_PLACES)
