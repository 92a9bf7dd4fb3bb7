"""Decides what to remove in the sandbox, and what is left over there: both are uploaded paths that are gone here.

Only uploaded paths that were deleted locally are removed. A path whose kind changed counts as deleted: an extractor
cannot put a file in a directory's place. Leftovers stay there because `sandbox.deletions` says so, because someone
changed them in the sandbox, or because they could not be removed. Some exist locally and could not be read: those are
remembered, and not counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from types import MappingProxyType

from msgspec import Struct, field

from syncd.model.entry import Entry, Kind
from syncd.model.manifest import is_within, removed_paths, replaced_entries

# Further ones are only counted. The count goes down with a reset or another sandbox alone, since it is not known which
# of them exist again: it is an upper bound.
MOST_NAMED = 100_000


Versions = dict[str, list[Entry]]
"""Paths, each with the uploaded entries that may be there."""


class Leftovers(Struct, frozen=True):
    """The leftovers of one sandbox.

    `changed` are those `entries` that someone changed there; `unnamed` counts files beyond `MOST_NAMED`. `files` counts
    the files and links there that were deleted, or are excluded by now. `secret` are those `entries` in which a secret
    was found later: a person is warned of them until they are removed there.
    """

    entries: Versions = field(default_factory=dict)
    changed: frozenset[str] = frozenset()
    unnamed: int = 0
    files: int = 0
    secret: frozenset[str] = frozenset()


NO_LEFTOVERS = Leftovers()


class RemovalOutcomes(Struct, frozen=True):
    """The outcomes of a removal, by path."""

    removed: Collection[str] = frozenset()
    changed: Collection[str] = frozenset()
    failed: Collection[str] = frozenset()


def leftovers_after(
    before: Leftovers,
    held: Iterable[Mapping[str, Entry]],
    wanted: Mapping[str, Entry],
    outcomes: RemovalOutcomes,
    *,
    unread: Collection[str],
    secret_files: Collection[str] = (),
) -> Leftovers:
    """Return the leftovers once the sandbox holds `wanted`. Each of `held` may have been there before, partly or whole.

    `secret_files` are paths that are not sent because of a secret in them.
    """

    def stays(path: str) -> bool:
        # A path that exists locally is left over only if another kind of it could not be removed.
        return path not in outcomes.removed and (path not in wanted or path in outcomes.failed)

    found: Versions = {path: versions for path, versions in before.entries.items() if stays(path)}
    for manifest in held:
        for path in (*removed_paths(manifest, wanted), *outcomes.failed):
            entry = manifest.get(path)
            if entry is not None and stays(path) and entry not in found.get(path, ()):
                found[path] = [*found.get(path, ()), entry]
    if not found and not before.unnamed:
        return NO_LEFTOVERS
    unnamed = before.unnamed
    if len(found) > MOST_NAMED:
        unnamed += _files({path: found[path] for path in islice(found, MOST_NAMED, None)}, wanted, unread)
        found = {path: found[path] for path in islice(found, MOST_NAMED)}
    changed = frozenset(path for path in {*before.changed, *outcomes.changed} if path in found)
    secret = frozenset(path for path in {*before.secret, *secret_files} if path in found)
    return Leftovers(found, changed, unnamed, _files(found, wanted, unread) + unnamed, secret)


def leftovers_without(before: Leftovers, paths: Collection[str]) -> Leftovers:
    """Return the leftovers without these paths, which no manifest holds."""
    entries = {path: versions for path, versions in before.entries.items() if path not in paths}
    gone = sum(before.entries[path][-1].kind is not Kind.DIRECTORY for path in before.entries.keys() - entries.keys())
    return Leftovers(
        entries,
        before.changed.difference(paths),
        before.unnamed,
        max(before.unnamed, before.files - gone),
        before.secret.difference(paths),
    )


def _files(entries: Versions, wanted: Mapping[str, Entry], unread: Collection[str]) -> int:
    files = (path for path, versions in entries.items() if versions[-1].kind is not Kind.DIRECTORY)
    return sum(path not in wanted and not is_within(path, unread) for path in files)


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
