"""Returns freed memory to the system.

A sync of the whole workspace makes its entries anew and frees those of before, which lie between others. glibc keeps
such memory for later: for a large tree, as much as the tree itself takes.
"""

from __future__ import annotations

import contextlib
import ctypes


def release_freed_memory() -> None:
    """Return the pages that were freed, where the C library can: glibc does, and others return them by themselves."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
