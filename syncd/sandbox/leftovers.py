"""Decides what to remove in the sandbox, and what is left over there: both are uploaded paths that are gone here.

Only uploaded paths that were deleted locally are removed. A path whose kind changed counts as deleted: an extractor
cannot put a file in a directory's place. Leftovers stay there because `sandbox.deletions` says so, because someone
changed them in the sandbox, or because they could not be removed. Some exist locally and could not be read: those are
remembered, and not counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from syncd.model.entry import Entry, Kind
from syncd.model.manifest import entry_changes, is_within, removed_paths

Versions = dict[str, list[Entry]]
"""Paths, each with the uploaded entries that may be there."""


def left_over(
    held: Mapping[str, Entry], wanted: Mapping[str, Entry], gone: Collection[str], failed: Collection[str]
) -> dict[str, Entry]:
    """Return what is left over of what the sandbox held, perhaps in part, once it holds `wanted`.

    `gone` were removed there, and `failed` could not be: of a path that exists locally another kind is left over then.
    """
    paths = {*removed_paths(held, wanted), *(path for path in failed if path in held)}
    return {path: held[path] for path in sorted(paths.difference(gone))}


def paths_to_delete(
    held: Iterable[Mapping[str, Entry]],
    wanted: Mapping[str, Entry],
    unread: Collection[str],
) -> Versions:
    """Return the uploaded paths to delete in the sandbox, the content of a directory before it.

    `held` are manifests of which each may be there, partly or whole. `unread` are local paths that could not be read:
    nothing is known of them and all below. What was in a `.git` stays if that alone is gone here: commits that someone
    made there are made of it.
    """
    found: Versions = {}
    for manifest in held:
        for path, now, entry in entry_changes(wanted, manifest):
            if now is None or now.kind is not entry.kind:
                found.setdefault(path, []).append(entry)
    paths = (path for path in found if not is_within(path, unread) and not _in_gone_repository(path, wanted))
    return {path: found[path] for path in sorted(paths, reverse=True)}


def _in_gone_repository(path: str, wanted: Mapping[str, Entry]) -> bool:
    above, folder, _ = f"/{path}".partition("/.git/")
    return bool(folder) and (not above or above[1:] in wanted) and f"{above}/.git"[1:] not in wanted


# -- what is in the way


def obstructing(found: Versions, wanted: Mapping[str, Entry]) -> Versions:
    """Return the versions that have a wanted path's place, or are below a wanted path that is no directory."""
    return {path: entries for path, entries in found.items() if path in wanted or _below_non_directory(path, wanted)}


def _below_non_directory(path: str, wanted: Mapping[str, Entry]) -> bool:
    while path := path.rpartition("/")[0]:
        now = wanted.get(path)
        if now is not None:
            return now.kind is not Kind.DIRECTORY
    return False


def obstructed_by(unmoved: Mapping[str, Collection[Kind]], wanted: Mapping[str, Entry]) -> dict[str, Kind]:
    """Return the wanted paths whose place is not free while one of these kinds is there, each with that kind.

    Files and links replace one another; a directory replaces nothing, and nothing replaces a directory.
    """
    found: dict[str, Kind] = {}
    for path, kinds in unmoved.items():
        now = wanted.get(path)
        if now is not None:
            for kind in kinds:
                if kind is not now.kind and Kind.DIRECTORY in (kind, now.kind):
                    found[path] = kind
    return found
