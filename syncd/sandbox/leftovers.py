"""What of ours may be in a sandbox beyond the manifest that it was given last: mostly files that are gone at home.

They stay there because `sandbox.deletions` says so, because someone over there changed them, or because they could not
be removed. Some are at home and could not be read: those are remembered, and not counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from syncd.sandbox.removal_plan import Versions, within
from syncd.scan.manifest import Entry, Kind

# Of each further one only the number is kept. It goes down with a reset or another sandbox alone, since nobody can tell
# which of them came back: from here on the count is the most that there can be.
MOST_NAMED = 100_000


@dataclass(frozen=True)
class Leftovers:
    """What lingers. `changed` of `entries` are someone else's by now; `unnamed` counts files beyond `MOST_NAMED`.

    `files` is how many files and links are still there that were deleted here, or are left out by now. In `secret` of
    `entries` a secret was found here later on: a person is told of them until they are gone there.
    """

    entries: Versions = field(default_factory=dict)
    changed: frozenset[str] = frozenset()
    unnamed: int = 0
    files: int = 0
    secret: frozenset[str] = frozenset()


NOTHING = Leftovers()


@dataclass(frozen=True)
class RemovalOutcomes:
    """What a removal came to, by path."""

    removed: Collection[str] = frozenset()
    changed: Collection[str] = frozenset()
    failed: Collection[str] = frozenset()


def after(
    before: Leftovers,
    held: Iterable[Mapping[str, Entry]],
    wanted: Mapping[str, Entry],
    outcomes: RemovalOutcomes,
    *,
    unread: Collection[str],
    secret_files: Collection[str] = (),
    most: int = MOST_NAMED,
) -> Leftovers:
    """What lingers once the sandbox holds `wanted`. `held` may have been there before, in part or whole.

    `secret_files` are paths that stay home for a secret in them.
    """

    def stays(path: str) -> bool:
        # What is at home again, or still, lingers only where another kind of it could not be removed.
        return path not in outcomes.removed and (path not in wanted or path in outcomes.failed)

    found: Versions = {path: versions for path, versions in before.entries.items() if stays(path)}
    for manifest in held:
        if not outcomes.failed and manifest.keys() <= wanted.keys():
            continue  # nothing was deleted, which is so nearly always, and this is how it costs next to nothing
        for path, entry in manifest.items():
            if stays(path) and entry not in found.get(path, ()):
                found[path] = [*found.get(path, ()), entry]
    if not found and not before.unnamed:
        return NOTHING
    unnamed = before.unnamed
    if len(found) > most:
        unnamed += _files({path: found[path] for path in islice(found, most, None)}, wanted, unread)
        found = {path: found[path] for path in islice(found, most)}
    changed = frozenset(path for path in {*before.changed, *outcomes.changed} if path in found)
    secret = frozenset(path for path in {*before.secret, *secret_files} if path in found)
    return Leftovers(found, changed, unnamed, _files(found, wanted, unread) + unnamed, secret)


def both(one: Leftovers, other: Leftovers) -> Leftovers:
    """What is safe to believe while nobody knows which of the two is true."""
    return Leftovers(
        {**one.entries, **other.entries},
        one.changed | other.changed,
        max(one.unnamed, other.unnamed),
        max(one.files, other.files),
        one.secret | other.secret,
    )


def _files(entries: Versions, wanted: Mapping[str, Entry], unread: Collection[str]) -> int:
    files = (path for path, versions in entries.items() if versions[-1].kind is not Kind.DIRECTORY)
    return sum(path not in wanted and not within(path, unread) for path in files)
