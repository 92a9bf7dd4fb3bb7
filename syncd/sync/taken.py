"""The paths that `apply` brought home: they count as sent, since both sides hold the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from syncd.model.entry import ABSENT, ALL_BITS, Entry, same
from syncd.model.manifest import Manifest


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
