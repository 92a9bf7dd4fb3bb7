"""Answers that are none: bytes that no service would send, in a row without end, or packed so that they never end."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import cache

BEGINS_AGAIN = "|"
_BOMB_BYTES = 64 * 1024**2


def unescaped(text: str) -> bytes:
    r"""The bytes that a text names: itself, with `\r`, `\n`, `\xNN` and the like as in Python. ValueError for none."""
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1")


def flood(text: str) -> Iterator[bytes]:
    """What comes before the bar once, then what follows it again and again; all of it where there is no bar."""
    before, _, again = text.rpartition(BEGINS_AGAIN)
    yield unescaped(before)
    piece = unescaped(again)
    while piece:
        yield piece * (1 + 4096 // len(piece))


@cache
def bomb() -> bytes:
    """A few hundred bytes that become 64 MiB where both of their codings are undone."""
    return gzip.compress(gzip.compress(bytes(_BOMB_BYTES), 9, mtime=0), 9, mtime=0)
