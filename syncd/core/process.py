"""What this process asks of the system for itself: who may read its data, and that unused memory goes back.

Its data is protected from other users: in new files, in core dumps, and in its memory.

A limit of 0 stops core files, but core_pattern's programs run whatever the limit is. The kernel makes an exception for
a limit of 1 byte, and no core file is that small. See core(5) and fs/coredump.c.
"""

from __future__ import annotations

import contextlib
import os
import resource

_PR_SET_DUMPABLE = 4
_M_ARENA_MAX = -8
_PRIVATE_UMASK = 0o077
_original_umask: int | None = None


def set_private_umask() -> None:
    """Make every new file readable by the user alone, and keep the umask that the process was started with."""
    global _original_umask  # noqa: PLW0603 - the umask belongs to the whole process too
    before = os.umask(_PRIVATE_UMASK)
    if _original_umask is None:
        _original_umask = before


def original_umask() -> int:
    """Return the umask that this process was started with; the user's own programs run with it."""
    if _original_umask is not None:
        return _original_umask
    umask = os.umask(_PRIVATE_UMASK)  # it can only be read by setting another
    os.umask(umask)
    return umask


def disable_core_dumps() -> None:
    """Disable core files, and the programs that core_pattern would pass a dump to."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 0 if hard == 0 else 1  # only root may raise a limit
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def make_undumpable() -> None:
    """Disable all dumps, and deny programs other than root's access to this process's memory and environment.

    See prctl(2), PR_SET_DUMPABLE. The process itself can still use /proc/self/fd.
    """
    _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def use_one_heap() -> None:
    """Have the threads that begin from now on share one heap (mallopt(3)): of further ones glibc gives nothing back."""
    _call("mallopt", _M_ARENA_MAX, 1)


def release_freed_memory() -> None:
    """Return freed pages to the system, where the C library does not do so by itself, as glibc.

    A sync of the whole workspace makes its entries anew and frees those of before, which lie between others: glibc
    keeps for later as much as the tree itself takes.
    """
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    """Call a function of the C library, where that has it."""
    import ctypes  # noqa: PLC0415 - commands without a key need not load it

    with contextlib.suppress(OSError, AttributeError):
        getattr(ctypes.CDLL(None), name)(*arguments)
