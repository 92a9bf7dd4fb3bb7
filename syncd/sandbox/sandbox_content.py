"""The known content of a sandbox, and what `apply` changes of it: a path that came home is the same on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct

from syncd.model.entry import ABSENT, ALL_BITS, Entry, same
from syncd.model.manifest import Difference, Manifest, directories_above


class SandboxContent(Struct, frozen=True):
    """The known content of a sandbox.

    `base` is the last manifest that the sandbox was known to hold, None if there is none. `unanswered` are the
    entries of each archive that was sent after it and whose initialize was not answered. `uncertain`: the sandbox may
    hold something else than `base`. `leftovers` are versions of ours of paths that are gone here.
    """

    base: Manifest | None = None
    unanswered: tuple[Mapping[str, Entry], ...] = ()
    uncertain: bool = False
    leftovers: Mapping[str, Sequence[Entry]] = MappingProxyType({})

    @property
    def versions(self) -> tuple[Mapping[str, Entry], ...]:
        """The manifests of which each entry may be in the sandbox, the certain one first."""
        return self.base or {}, *self.unanswered

    def versions_of(self, path: str) -> list[Entry]:
        """The entries of ours that may be in the sandbox as this path."""
        return [*(manifest[path] for manifest in self.versions if path in manifest), *self.leftovers.get(path, ())]

    def may_hold(self, path: str) -> bool:
        """True if some version of the path may have reached the sandbox, leftovers aside."""
        return any(path in manifest for manifest in self.versions)

    def is_as_base(self, path: str, entry: Entry) -> bool:
        """True if the entry is what was put there, so that a difference there is not of our making."""
        old = None if self.base is None else self.base.get(path)
        return old is not None and same(old, entry, ALL_BITS)

    def changed_in(self, entries: Iterable[tuple[str, Entry]]) -> set[str]:
        """The directories in which something is not as it was put there; none where nothing is known to be."""
        if not self.base:
            return set()
        return directories_above(path for path, entry in entries if not self.is_as_base(path, entry))

    def may_differ(self, found: Difference) -> bool:
        """True unless the sandbox is known to hold the manifest that differs from `base` by `found`."""
        return self.uncertain or found.certain or bool(found.uncertain)


class TakenPath(Struct, frozen=True):
    """A path, the entry that counted as sent before, and the one that does now; None: nothing.

    What `is_left_out` by the rules here and was asked for counts as sent no more: a sync would remove it there.
    """

    path: str
    before: Entry | None
    after: Entry | None
    is_left_out: bool = False


def with_taken(base: Manifest, taken: Sequence[TakenPath]) -> Manifest:
    """Return the base after these paths were taken; a row counts only while the base has what it says was before."""
    found = base.copy()
    for each in taken:
        if not is_as(found, each.path, each.before):
            continue
        if each.after is None or each.is_left_out:
            found.pop(each.path, None)
        else:
            found[each.path] = each.after
    return found


def is_as(base: Mapping[str, Entry], path: str, entry: Entry | None) -> bool:
    """True if the base holds this entry."""
    return same(base.get(path, ABSENT), ABSENT if entry is None else entry, ALL_BITS)
