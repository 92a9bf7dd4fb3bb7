"""Malformed answers: arbitrary bytes, bytes without end, and a compressed body that becomes very large."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import cache

REPEAT_MARK = "|"
_BOMB_BYTES = 64 * 1024**2


def unescaped(text: str) -> bytes:
    r"""The text as bytes, with escapes such as `\r`, `\n` and `\xNN` as in Python. ValueError for a wrong escape."""
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1")


def flood(text: str) -> Iterator[bytes]:
    """The bytes before the bar once, then those after it again and again; without a bar, all of them."""
    before, _, repeated = text.rpartition(REPEAT_MARK)
    yield unescaped(before)
    piece = unescaped(repeated)
    while piece:
        yield piece * (1 + 4096 // len(piece))


@cache
def bomb() -> bytes:
    """A few hundred bytes that become 64 MiB when both gzip codings are decoded."""
    return gzip.compress(gzip.compress(bytes(_BOMB_BYTES), 9, mtime=0), 9, mtime=0)
