"""Keeps what the process knows from leaving it: in a core dump, or by another program that looks into its memory.

A limit of 0 stops core files but not core_pattern's programs, which are run whatever the limit is; the kernel makes
an exception for a limit of 1 byte, and that is less than any core file has. See core(5) and fs/coredump.c.
"""

from __future__ import annotations

import contextlib
import resource

_PR_SET_DUMPABLE = 4


def no_core_dumps() -> None:
    """No core file, and no program that is handed one."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 0 if hard == 0 else 1  # only root may raise a limit
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def close_memory() -> None:
    """No dump at all, and no program but root's may read this one's memory or environment any more.

    prctl(2), PR_SET_DUMPABLE. The process's own way through /proc/self/fd stays open to it.
    """
    import ctypes  # noqa: PLC0415 - a command that knows no key need not wait for it

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
