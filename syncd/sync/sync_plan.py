"""The decisions of one round: is a partial archive enough, what to look at before it, what follows from the look."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from itertools import chain

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.choices import AgentChanges
from syncd.model.entry import ABSENT, ALL_BITS, Entry, Kind, SeenEntry, same
from syncd.model.manifest import Difference, Manifest, directories_above, is_within
from syncd.model.reconcile import Forced, PathOutcome, Plan, Policy, Sides, Versions, plan_sync
from syncd.sandbox.look_request import (
    FRESH_S,
    LookAction,
    LookItem,
    LookItems,
    LookRequest,
    LookResult,
    Obstacle,
    was_emptied,
)
from syncd.sandbox.sandbox_content import SandboxContent
from syncd.sandbox.saved_versions import Why

# A look at few paths also counts how many of so many others are missing, to notice a sandbox that was emptied.
SAMPLE = 200

# How often is what against an agent that goes on meanwhile. A sync has so many archives at most, and a round so many
# looks, if each is outdated again by what comes after it: the agent would have to change other paths before each.
ROUNDS = 5
# It must not keep all else from arriving: once the archive was made again so often, without what it had written or as a
# removal found other things than the look before, what it writes now is saved and overwritten. Less than the rounds.
_GIVES_WAY_FROM = 3
# Where a look itself takes longer than it is fresh, it is repeated only so often. One that is older than any look takes
# is of before a suspend.
_REPEATED, _OLDEST_S = 3, 60.0


def partial_paths(
    manifest: Mapping[str, Entry], found: Difference, stays: Collection[str] = ()
) -> frozenset[str] | None:
    """The paths of a partial archive: those that differ.

    Where none does, as only deletions are to be sent, it is one that overwrites as little as possible, since a server
    may refuse an empty archive; never one that `stays` as it is in the sandbox. None if it would lack nothing: such an
    archive is whole, and proves nothing about partial ones. Directories come with the paths in them.
    """
    paths = {*found.added, *found.changed, *found.to_read} or least_of(manifest, stays)
    with_directories = paths | directories_above(paths)
    lacks_some = sum(path in manifest for path in with_directories) < len(manifest)
    return frozenset(paths) if paths and lacks_some else None


def least_of(manifest: Mapping[str, Entry], stays: Collection[str] = ()) -> set[str]:
    """The path whose sending changes least: a directory, else the smallest file; none if all of them stay."""
    least, least_bytes = "", -1
    for path, entry in manifest.items():
        if not is_within(path, stays):
            if entry.kind is Kind.DIRECTORY:
                return {path}
            if not least or entry.size_bytes < least_bytes:
                least, least_bytes = path, entry.size_bytes
    return {least} if least else set()


def staying_paths(
    manifest: Manifest, found: Difference, held: Collection[str], kept: Collection[str]
) -> frozenset[str]:
    """The paths that stay as they are in the sandbox, with all below them: kept ones if nothing in them changed."""
    changed = {*found.added, *found.changed, *found.to_read} if kept else set()
    unchanged = {path for path in kept if path not in changed} - directories_above(changed)
    return frozenset(manifest.paths_within(unchanged.union(held)))


def without_held(manifest: Manifest, held: Collection[str], base: Mapping[str, Entry]) -> Manifest:
    """Return the manifest with the held paths as the sandbox got them last; those that it never got are left out."""
    found = manifest.copy()
    for path in held:
        if path not in manifest:
            continue
        if path in base:
            found[path] = base[path]
        else:
            del found[path]
    return found


def with_staying(packed: Manifest, stays: Collection[str], scanned: Manifest, base: Mapping[str, Entry]) -> Manifest:
    """Return the manifest of the sandbox after the initialize: what stays there counts as it was put there."""
    if not stays:
        return packed
    found, there = packed.copy(), without_held(scanned, stays, base)
    for path in stays:
        if path in there:
            found[path] = there[path]
        else:
            found.pop(path, None)
    return found


class Verdict(Enum):
    """The verdict on an archive: right before its initialize is requested, or once it has arrived."""

    INITIALIZE = "nothing speaks against it"
    PACK_AGAIN = "it holds paths that must stay as they are in the sandbox, or lacks some that need not any more"
    SEND_ALL = "the sandbox lost nearly all that was put there"


class Attempt(Struct, frozen=True):
    """One archive, and what it meets there: all that is decided upon before it is initialized.

    Of the paths that are `here`, the sandbox holds after the initialize

    - those of `manifest` as that says: those `written` come with the archive, the others are there already
    - those `held`, which both sides changed, as they are there: if they are in `manifest`, then as they were put there
    - those `obstructed` not at all, as something else has their place there

    The first and the last are `wanted` there. Those of `to_delete` are gone here. `content` is known to be there.
    `is_whole`: only what stays there is not written. `all_may_go`: an initialize may remove what its archive lacks.
    `number` counts the rounds of this sync before.
    """

    content: SandboxContent
    manifest: Manifest
    written: Manifest
    to_delete: Versions
    held: Mapping[str, Entry]
    obstructed: Mapping[str, Entry]
    is_whole: bool
    all_may_go: bool
    policy: Policy
    number: int = 0

    @property
    def wanted(self) -> Manifest:
        """All that the workspace has: an obstructed path is no deleted one."""
        return self.manifest | self.obstructed

    @property
    def here(self) -> Manifest:
        return self.wanted | self.held

    @property
    def is_first(self) -> bool:
        """True if nothing was ever sent there."""
        return not any((*self.content.versions, self.to_delete, self.held, self.obstructed))

    @property
    def is_made_again(self) -> bool:
        """True if it is made again for what someone there goes on to change, and not too often by now."""
        return self.number < _GIVES_WAY_FROM

    @property
    def policy_of_written(self) -> Policy:
        """The policy for the paths in the archive; for all others, `policy` itself holds."""
        gives_way = self.policy is AgentChanges.SAVE and not self.is_made_again
        return Forced.FORCE if gives_way else self.policy

    def may_lose(self, path: str) -> bool:
        """True if this initialize, or a late one, may take away what stays there as it is."""
        return self.all_may_go or any(path in sent for sent in self.content.unanswered)

    def is_as_here(self, path: str, there: SeenEntry) -> bool:
        entry = self.held.get(path) or self.manifest.get(path)
        return entry is not None and same(entry, there)

    def is_ours(self, path: str, there: SeenEntry) -> bool:
        """True if what is there was put there, and is gone here."""
        return any(same(there, version) for version in self.content.versions_of(path))


# -- before the look


def look_request(attempt: Attempt, kept: Collection[str], places: Mapping[str, LookItem]) -> LookRequest:
    """Return what to look at before an archive is initialized: what it writes, what is deleted, and what stays there.

    What is held or `kept` is looked at to find out if it may be written, or removed, by now. `places` are those to
    check for obstacles. Of what syncd put there, a sample is counted, but for what is below a path that stays; a whole
    archive fills an emptied sandbox anyway, and of what it writes a sample is reported where it is missing.
    """
    items = _items_of(attempt)
    written = items.written
    in_the_way = {path: item for path, item in places.items() if path in written}
    listed = {**items.deleted(), **items.above_written(), **in_the_way}
    sample = [path for path in attempt.content.base.spread(SAMPLE) if path not in listed]
    staying = {**items.kept(kept), **places, **items.held()}
    last = {path: item for path, item in staying.items() if path not in listed and path not in written}
    if attempt.is_whole:
        listed |= items.to_be_there([path for path in sample if path in written])
    elif not attempt.all_may_go:
        stays = {*attempt.held, *kept, *places}
        others = [path for path in sample if path not in written and not is_within(path, stays)]
        listed |= dict.fromkeys(others, LookItem((), LookAction.EXISTS))
    if attempt.is_whole or not attempt.all_may_go:
        # Last, so that what is written is looked at in any case, and they are once that is done.
        return LookRequest(LookItems(listed, written, items.written_item, last))
    # Until it is known that an initialize leaves the rest alone, the rest is looked at, too.
    first = {path: items.written_item(path, entry) for path, entry in written.items() if path not in listed}
    return LookRequest(LookItems(listed | first | last, attempt.manifest, items.written_item))


class _Items(Struct, frozen=True):
    """The items of the look before an archive is initialized.

    `written` are the entries of it that are looked at, and in `changed_in` something is not as it was put there.
    """

    attempt: Attempt
    written: Manifest
    changed_in: Collection[str]

    @property
    def _is_forced(self) -> bool:
        return self.attempt.policy_of_written is Forced.FORCE

    @property
    def _fetch(self) -> LookAction:
        """The action at what differs: what is not saved need not come here."""
        return LookAction.COMPARE if self.attempt.policy_of_written is AgentChanges.HOLD else LookAction.FETCH

    def _item(self, path: str, versions: Iterable[Entry], action: LookAction) -> LookItem:
        return LookItem(_distinct(versions), LookAction.FETCH if self.attempt.may_lose(path) else action)

    def written_item(self, path: str, entry: Entry) -> LookItem:
        """The item of a path that is as this entry after the initialize."""
        content = self.attempt.content
        is_as_base = content.is_as_base(path, entry) and path not in self.changed_in
        action = LookAction.COMPARE if is_as_base and not self._is_forced else self._fetch
        return self._item(path, (ABSENT, *content.versions_of(path), entry), action)

    def deleted(self) -> dict[str, LookItem]:
        """The items of what is gone here, and is removed.

        A place that is to be filled again, and all that is removed by force, is removed by a second look, once it is
        saved.
        """
        items = {}
        for path, versions in self.attempt.to_delete.items():
            if path in self.written:
                filled = self.written_item(path, self.written[path]).versions
                items[path] = self._item(path, (*versions, *filled[1:]), self._fetch)
            else:
                items[path] = self._item(path, versions, self._fetch if self._is_forced else LookAction.REMOVE)
        return items

    def above_written(self) -> dict[str, LookItem]:
        """The items of the directories in which something is written.

        Each may be a link or a file by now, which is not written through or over.
        """
        written, manifest = self.written, self.attempt.manifest
        above = [path for path, _ in written.top.directories() if path not in written and path in manifest]
        return {path: self.written_item(path, manifest[path]) for path in sorted(above)}

    def held(self) -> dict[str, LookItem]:
        """The items of what both sides changed, which is as here if someone there made it so."""
        versions_of = self.attempt.content.versions_of
        held = self.attempt.held.items()
        return {path: self._item(path, (*versions_of(path), entry), self._fetch) for path, entry in held}

    def kept(self, kept: Collection[str]) -> dict[str, LookItem]:
        """The items of what only someone there changed; by force it is not left alone, and no reason to look."""
        attempt = self.attempt
        if attempt.policy is Forced.FORCE:
            return {}
        here = {path: [attempt.manifest[path]] if path in attempt.manifest else [] for path in kept}
        ours = {path: [*attempt.content.versions_of(path), *now] for path, now in here.items()}
        return {path: self._item(path, versions, LookAction.COMPARE) for path, versions in ours.items() if versions}

    def to_be_there(self, paths: Iterable[str]) -> dict[str, LookItem]:
        """The items of written paths that are reported where they are missing."""
        items = {path: self.written_item(path, self.written[path]) for path in paths}
        return {path: replace(item, versions=item.versions[1:]) for path, item in items.items()}


def _items_of(attempt: Attempt) -> _Items:
    written = Manifest() if attempt.policy_of_written is AgentChanges.OVERWRITE else attempt.written
    return _Items(attempt, written, attempt.content.changed_in(chain(written.items(), attempt.held.items())))


# -- what follows from the look


class Actions(Struct, frozen=True):
    """What follows from a look: `saves` first, by the reason, then `removals`, with what may be there, by the plan."""

    plan: Plan
    saves: Mapping[Why, Mapping[str, SeenEntry]]
    removals: Versions

    @property
    def replaces_directory(self) -> bool:
        """True if a directory here has something else in its place there, so that all in it is missing."""
        return any(each.here.is_directory for each in self.plan.of(PathOutcome.SAVE))


def actions_after(
    attempt: Attempt,
    request: LookRequest,
    result: LookResult,
    new: Mapping[str, SeenEntry],
    unsaved: Collection[str] = (),
) -> Actions:
    """Return what follows from a look; `new` has what only the sandbox has, and `unsaved` cannot be saved."""
    plan = plan_look(attempt, result, unsaved)
    versions, here = plan.there(PathOutcome.SAVE), attempt.here
    may_go = {path: there for path, there in plan.stays.items() if attempt.may_lose(path)}
    saves = {
        Why.CONFLICT: {**new, **may_go},
        Why.OVERWRITTEN: {path: there for path, there in versions.items() if path in here},
        Why.REMOVED: {path: there for path, there in versions.items() if path not in here},
    }
    found = {why: there for why, there in saves.items() if there}
    return Actions(plan, found, removals_after(attempt, request, result, plan))


def verdict_on(
    attempt: Attempt, before: Collection[str], staying: Collection[str], gone: Collection[str] | None
) -> Verdict:
    """Return the verdict on an archive, by the paths that stayed there `before` the look and that are `staying` now.

    `gone` has what was removed there; None: nothing is removed only since it was deleted here.
    """
    if staying and any(is_within(path, staying) for path in attempt.written):
        return Verdict.PACK_AGAIN
    freed = {path for path in before if path not in staying and path not in attempt.written}
    lacking = {path for path in freed if path in attempt.held or path in attempt.obstructed}
    if attempt.is_whole:
        lacking |= {path for path in freed if path in attempt.manifest}
    if gone is not None:
        left = {path for path in freed if path not in attempt.here and path not in attempt.to_delete}
        lacking |= (left | directories_above(left)) & attempt.content.leftovers - set(gone)
    return Verdict.PACK_AGAIN if lacking else Verdict.INITIALIZE


def is_filled(attempt: Attempt, result: LookResult) -> bool:
    """True if a look that only lists found something that a first archive could meet, or take away."""
    met = [path for path in result.pruned if path == "." or path in attempt.manifest]
    return bool(result.new or met or result.unlisted or result.unseen)


def lost_all(attempt: Attempt, request: LookRequest, result: LookResult) -> bool:
    """True if next to nothing is there of the sample of what syncd had put there."""
    sample = [
        path
        for path in (*request.with_action(LookAction.COMPARE), *request.with_action(LookAction.FETCH))
        if path in attempt.written and ABSENT not in request.items[path].versions
    ]
    missing = sum(path in result.differing and result.differing[path].kind is Kind.ABSENT for path in sample)
    return was_emptied(result.missing + missing, len(request.with_action(LookAction.EXISTS)) + len(sample))


def plan_look(attempt: Attempt, result: LookResult, unsaved: Collection[str] = ()) -> Plan:
    """Return what becomes of each path that a look found to differ; `unsaved` are versions that cannot be saved."""
    content, policy, of_written = attempt.content, attempt.policy, attempt.policy_of_written
    differing = {path: there for path, there in result.differing.items() if not attempt.is_as_here(path, there)}
    if not differing:
        return Plan()
    here = ChainMap(dict(attempt.held), attempt.manifest)
    changed_below = content.changed_in(chain(attempt.written.items(), attempt.held.items()))
    base = {path: entry for path in differing if (entry := content.base_of(path)) is not None}

    def plan(there: Mapping[str, SeenEntry], by: Policy) -> Plan:
        return plan_sync(Sides(base, here, there), by, changed_below, unsaved)

    if of_written is not policy:
        in_the_way = {path: there for path, there in differing.items() if path in attempt.written}
        others = {path: there for path, there in differing.items() if path not in in_the_way}
        return Plan(plan(others, policy).paths + plan(in_the_way, of_written).paths)
    if policy is not Forced.FORCE:
        return plan(differing, policy)
    # A person wants these as they are here.
    found = plan(differing, policy)
    stays = [each.path for each in found.of(PathOutcome.KEEP) if each.here.kind is not Kind.ABSENT]
    return found.with_outcome(stays, PathOutcome.HOLD, "")


def removals_after(attempt: Attempt, request: LookRequest, result: LookResult, plan: Plan) -> Versions:
    """Return what a look did not remove itself and is to be removed, now that it is saved, with what may be there."""
    stays = plan.stays
    seen = {path: there for path, there in result.differing.items() if is_exact(there)}
    again: Versions = {}
    for path, versions in attempt.to_delete.items():
        if request.items[path].action is not LookAction.REMOVE and path not in stays:
            again[path] = [*versions, *([seen[path]] if path in seen else [])]
    for path, there in plan.there(PathOutcome.SAVE).items():
        # No extractor replaces a directory; some write through a link, or refuse whatever a link leads out from.
        if path not in attempt.written or path not in seen:
            continue
        if there.kind is Kind.SYMLINK or there.kind is not attempt.manifest[path].kind:
            again.setdefault(path, []).append(seen[path])
    return again


def changed_since(attempt: Attempt, look: LookResult, later: LookResult) -> set[str]:
    """Return what someone has changed since the look, as a later one found, and what the initialize may take away.

    A file that no version to remove is as long as was not read by the later look. It is known if the first one found
    it as it was put there, and it is as long as it is here: it has come by an archive that was not answered.
    """

    def is_known(path: str, there: SeenEntry) -> bool:
        before, here = look.differing.get(path, ABSENT), attempt.manifest.get(path, ABSENT)
        if there.kind is Kind.FILE and not there.digest and path not in look.differing:
            return (there.kind, there.size_bytes) == (here.kind, here.size_bytes)
        return attempt.is_as_here(path, there) or attempt.is_ours(path, there) or same(before, there)

    differing = {path: there for path, there in later.differing.items() if there.kind is not Kind.ABSENT}
    return {path for path, there in differing.items() if attempt.may_lose(path) and not is_known(path, there)}


def is_exact(there: SeenEntry) -> bool:
    """True if a removal can name what is there exactly."""
    return there.kind in (Kind.DIRECTORY, Kind.SYMLINK) or (there.kind is Kind.FILE and there.digest != b"")


def obstacles_seen(
    result: LookResult | None, known: Mapping[str, Obstacle], repositories: Collection[str]
) -> dict[str, Obstacle]:
    """Return what keeps paths from being extracted, by a look; None: nobody could look.

    What it did not come to is as it was `known` before; and the workspace's `repositories`, whose places were to be
    looked at, may then take the place of commits.
    """
    if result is None or result.unseen:
        return dict.fromkeys(repositories, Obstacle.UNKNOWN) | dict(known)
    if result.kinds_only:  # an archive does not tell that a directory is read-only
        read_only = [path for path, obstacle in known.items() if obstacle is Obstacle.READ_ONLY]
        return dict.fromkeys(read_only, Obstacle.READ_ONLY) | dict(result.blocked)
    return dict(result.blocked)


def is_outdated(look_age_s: float, repeated: int) -> bool:
    """True if a look that was repeated so often is to be made once more, as its agent may have gone on since then."""
    return look_age_s > (FRESH_S if repeated < _REPEATED else _OLDEST_S)


def _distinct(versions: Iterable[Entry]) -> tuple[Entry, ...]:
    found: list[Entry] = []
    for entry in versions:
        if not any(same(entry, other, ALL_BITS) for other in found):
            found.append(entry)
    return tuple(found)
