"""The paths that `apply` brought home: they count as sent, since both sides hold the same."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from msgspec import Struct

from syncd.model.entry import (
    ABSENT,
    ALL_BITS,
    Entry,
    same,
)
from syncd.model.entry_row import StateRow, entry_of, row_of
from syncd.model.manifest import Manifest


class TakenPath(Struct, frozen=True):
    """A path, the entry that counted as sent before, and the one that does now; None: nothing.

    What `is_left_out` by the rules here and was asked for counts as sent no more: a sync would remove it there.
    """

    path: str
    before: Entry | None
    after: Entry | None
    is_left_out: bool = False


class _TakenRow(Struct, array_like=True):
    path: bytes
    before: StateRow | None
    after: StateRow | None
    is_left_out: bool = False


def encode_taken(taken: list[TakenPath]) -> list[_TakenRow]:
    """Return the rows that a journal keeps."""
    return [_row(each) for each in taken]


def decode_taken(rows: list[_TakenRow]) -> list[TakenPath]:
    """Return what the rows of a journal say."""
    return [_taken(row) for row in rows]


TakenRows = list[_TakenRow]


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


def _row(taken: TakenPath) -> _TakenRow:
    before = None if taken.before is None else row_of(taken.path, taken.before)
    after = None if taken.after is None else row_of(taken.path, taken.after)
    return _TakenRow(os.fsencode(taken.path), before, after, taken.is_left_out)


def _taken(row: _TakenRow) -> TakenPath:
    before = None if row.before is None else entry_of(row.before)
    after = None if row.after is None else entry_of(row.after)
    return TakenPath(os.fsdecode(row.path), before, after, row.is_left_out)
