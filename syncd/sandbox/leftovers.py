"""Decides what to remove in the sandbox, and what is left over there: both are uploaded paths that are gone here.

Only uploaded paths that were deleted locally are removed. A path whose kind changed counts as deleted: an extractor
cannot put a file in a directory's place. Leftovers stay there because `sandbox.deletions` says so, because someone
changed them in the sandbox, or because they could not be removed. Some exist locally and could not be read: those are
remembered, and not counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct, field

from syncd.model.entry import Entry, Kind
from syncd.model.manifest import entry_changes, is_within, removed_paths

Versions = dict[str, list[Entry]]
"""Paths, each with the uploaded entries that may be there."""


class Leftovers(Struct, frozen=True):
    """The leftovers of one sandbox.

    `files` counts the files and links there that were deleted, or are excluded by now. `secret` are those `entries` in
    which a secret was found later: a person is warned of them until they are removed there. `unconfirmed` are those of
    which every version was sent, and none is known to have arrived.
    """

    entries: Versions = field(default_factory=dict)
    files: int = 0
    secret: frozenset[str] = frozenset()
    unconfirmed: frozenset[str] = frozenset()

    def without(self, paths: Collection[str]) -> Leftovers:
        """Return the leftovers without these paths, which no manifest holds."""
        entries = {path: versions for path, versions in self.entries.items() if path not in paths}
        gone = sum(self.entries[path][-1].kind is not Kind.DIRECTORY for path in self.entries.keys() - entries.keys())
        files = max(0, self.files - gone)
        return Leftovers(entries, files, self.secret.difference(paths), self.unconfirmed.difference(paths))


NO_LEFTOVERS = Leftovers()


def leftovers_after(
    before: Leftovers,
    held: Sequence[Mapping[str, Entry]],
    wanted: Mapping[str, Entry],
    *,
    gone: Collection[str],
    failed: Collection[str],
    unread: Collection[str],
    secret_files: Collection[str] = (),
) -> Leftovers:
    """Return the leftovers once the sandbox holds `wanted`. Each of `held` may have been there before, partly or whole.

    The first of `held` is known to have arrived; the others were sent, and not answered.
    `gone` were removed there, and `failed` could not be. `secret_files` are not sent because of a secret in them.
    """

    def stays(path: str) -> bool:
        # A path that exists locally is left over only if another kind of it could not be removed.
        return path not in gone and (path not in wanted or path in failed)

    found: Versions = {path: versions for path, versions in before.entries.items() if stays(path)}
    for manifest in held:
        for path in (*removed_paths(manifest, wanted), *failed):
            entry = manifest.get(path)
            if entry is not None and stays(path) and entry not in found.get(path, ()):
                found[path] = [*found.get(path, ()), entry]
    if not found:
        return NO_LEFTOVERS
    files = (path for path, versions in found.items() if versions[-1].kind is not Kind.DIRECTORY)
    count = sum(path not in wanted and not is_within(path, unread) for path in files)
    confirmed = {*held[0], *(before.entries.keys() - before.unconfirmed)}
    secret = frozenset(path for path in {*before.secret, *secret_files} if path in found)
    return Leftovers(found, count, secret, frozenset(found.keys() - confirmed))


def paths_to_delete(
    held: Iterable[Mapping[str, Entry]],
    wanted: Mapping[str, Entry],
    unread: Collection[str],
    leftovers: Versions,
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
