"""Decides what to remove in the sandbox: uploaded paths that were deleted locally, and nothing else.

A path whose kind changed counts as deleted: an extractor cannot put a file in a directory's place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from syncd.model.entry import Entry
from syncd.model.manifest import is_within, replaced_entries

Versions = dict[str, list[Entry]]
"""Paths, each with the uploaded entries that may be there."""


def paths_to_delete(
    held: Iterable[Mapping[str, Entry]],
    wanted: Mapping[str, Entry],
    unread: Collection[str],
    leftovers: Mapping[str, list[Entry]] = MappingProxyType({}),
) -> Versions:
    """Return the uploaded paths to delete in the sandbox, the content of a directory before it.

    `held` are manifests of which each may be there, partly or whole. `unread` are local paths that could not be read:
    nothing is known of them and all below. `leftovers` are those of earlier syncs. What was in a `.git` stays if that
    alone is gone here: commits that someone made there are made of it.
    """
    found: Versions = {}
    for path, entries in leftovers.items():
        now = wanted.get(path)
        deleted = [entry for entry in entries if now is None or now.kind is not entry.kind]
        if deleted:
            found[path] = deleted
    for manifest in held:
        for path in replaced_entries(wanted, manifest):
            now, entry = wanted.get(path), manifest[path]
            if now is None or now.kind is not entry.kind:
                found.setdefault(path, []).append(entry)
    paths = (path for path in found if not is_within(path, unread) and not _in_gone_repository(path, wanted))
    return {path: found[path] for path in sorted(paths, reverse=True)}


def _in_gone_repository(path: str, wanted: Mapping[str, Entry]) -> bool:
    above, folder, _ = f"/{path}".partition("/.git/")
    return bool(folder) and (not above or above[1:] in wanted) and f"{above}/.git"[1:] not in wanted
