"""Returns memory that the process no longer needs to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def release_freed_memory() -> None:
    """Return freed pages to the system, where the C library does not do so by itself, as glibc.

    A sync of the whole workspace makes its entries anew and frees those of before, which lie between others: glibc
    keeps for later as much as the tree itself takes.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
