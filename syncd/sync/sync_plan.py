"""The decisions of one sync: must anything be sent, and is a partial archive enough."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import chain
from types import MappingProxyType

from msgspec.structs import replace

from syncd.core.choices import AgentChanges
from syncd.model.entry import (
    ALL_BITS,
    Entry,
    Kind,
    same,
)
from syncd.model.manifest import Difference, Manifest, directories_above, is_within
from syncd.model.reconcile import Forced, Policy
from syncd.sandbox.leftovers import Versions
from syncd.sandbox.look_request import (
    LookAction,
    LookItem,
    LookItems,
    LookRequest,
    LookResult,
    Missing,
    Obstacle,
)
from syncd.sandbox.sandbox_state import SandboxContent

# A look at few paths also counts how many of so many others are missing, to notice a sandbox that was emptied.
SAMPLE = 200
# A look is no older than this when the initialize is requested …
_FRESH_S = 2.0
# … but where a look itself takes so long, it is repeated only so often. One that is older than any look takes is of
# before a suspend.
_REPEATED, _OLDEST_S = 3, 60.0


def partial_paths(
    manifest: Mapping[str, Entry], found: Difference, stays: Collection[str] = ()
) -> frozenset[str] | None:
    """The paths of a partial archive: those that differ.

    Where none does, as only deletions are to be sent, it is one that overwrites as little as possible, since a server
    may refuse an empty archive; never one that `stays` as it is in the sandbox. None if it would lack nothing: such an
    archive is whole, and proves nothing about partial ones. Directories come with the paths in them.
    """
    paths = {*found.added, *found.changed, *found.uncertain} or least_of(manifest, stays)
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


def without_held(manifest: Manifest, held: Collection[str], base: Mapping[str, Entry] | None) -> Manifest:
    """Return the manifest with the held paths as the sandbox got them last; those that it never got are left out."""
    found = manifest.copy()
    for path in held:
        if path not in manifest:
            continue
        if base is not None and path in base:
            found[path] = base[path]
        else:
            del found[path]
    return found


def look_request(
    content: SandboxContent,
    manifest: Manifest,
    written: Manifest,
    paths_to_delete: Versions,
    *,
    held_here: Mapping[str, Entry],
    kept: Collection[str] = (),
    places: Mapping[str, LookItem] = MappingProxyType({}),
    most_counted: int = SAMPLE,
    most_missed: int = 0,
    policy: Policy,
    compared: Manifest | None = None,
) -> LookRequest:
    """Return what to look at before `written` entries of `manifest` are put there, and other paths deleted.

    `held_here` are entries here of paths that are not written, to find out if they may be, or removed, and so are those
    of `kept`. `places` are those to check for obstacles. Of what syncd put there, a sample of
    `most_counted` paths is counted, but for what is below a path that stays. Of what is written, a sample of
    `most_missed` is reported where it is missing. `compared` are more entries of the manifest to compare, though not
    written.
    """
    force = policy is Forced.FORCE
    # What is not saved need not come here.
    fetch = LookAction.COMPARE if policy is AgentChanges.HOLD else LookAction.FETCH
    items: dict[str, LookItem] = {}
    for path, versions in paths_to_delete.items():
        # A place that is to be filled again, and all that is removed by force, is removed by a second look, once it is
        # saved.
        action = fetch if force or path in written else LookAction.REMOVE
        items[path] = LookItem(tuple(versions), action)
    changed_in = content.changed_in(chain(written.items(), held_here.items()))

    def item_of(path: str, entry: Entry) -> LookItem:
        versions_there = (*content.versions_of(path), entry)
        is_as_base = content.is_as_base(path, entry) and path not in changed_in
        action = LookAction.COMPARE if is_as_base and not force else fetch
        return LookItem(_distinct(versions_there), action, Missing.AS_WANTED)

    for path in paths_to_delete:
        if path in written:
            versions_there = (*items[path].versions, *item_of(path, written[path]).versions)
            items[path] = LookItem(_distinct(versions_there), fetch)
    # A directory in which something is written may be a link or a file by now, which is not written through or over.
    above = [path for path, _ in written.top.directories() if path not in written and path in manifest]
    items.update((path, item_of(path, manifest[path])) for path in sorted(above))
    items |= {path: item for path, item in places.items() if path in written}
    # Last, so that what is written is looked at in any case, and they are once that is done.
    last = {path: item for path, item in places.items() if path not in items and path not in written}
    for path, entry in held_here.items():
        if path not in items and path not in written:
            last[path] = LookItem(_distinct((*content.versions_of(path), entry)), fetch)
    for path in kept:
        here = [manifest[path]] if path in manifest else []
        ours = _distinct((*content.versions_of(path), *here))
        if ours and path not in items and path not in last and path not in written:
            last[path] = LookItem(ours, LookAction.COMPARE)
    base = content.base
    if most_counted and base is not None:
        stays = {*held_here, *kept, *places}
        sample = [path for path in base.spread(most_counted) if path not in items and path not in written]
        others = [path for path in sample if not is_within(path, stays)]
        items |= dict.fromkeys(others, LookItem((), LookAction.EXISTS))
    if most_missed and base is not None:
        for path in base.spread(most_missed):
            if path in written and path not in items:
                items[path] = replace(item_of(path, written[path]), missing=Missing.DIFFERS)
    if compared is None:
        return LookRequest(LookItems(items, written, item_of, last))
    first = {path: item_of(path, entry) for path, entry in written.items() if path not in items}
    return LookRequest(LookItems(items | first | last, compared, item_of))


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
    return look_age_s > (_FRESH_S if repeated < _REPEATED else _OLDEST_S)


def _distinct(versions: tuple[Entry, ...]) -> tuple[Entry, ...]:
    found: list[Entry] = []
    for entry in versions:
        if not any(same(entry, other, ALL_BITS) for other in found):
            found.append(entry)
    return tuple(found)
