"""Keeps what the process knows from others: in files, in a core dump, or by a program that looks into its memory.

A limit of 0 stops core files but not core_pattern's programs, which are run whatever the limit is; the kernel makes
an exception for a limit of 1 byte, and that is less than any core file has. See core(5) and fs/coredump.c.
"""

from __future__ import annotations

import contextlib
import os
import resource

_PR_SET_DUMPABLE = 4
_PRIVATE_UMASK = 0o077
_person_umask: int | None = None


def private_files() -> None:
    """From now on every new file is the user's alone. The umask that the process was started with is remembered."""
    global _person_umask  # noqa: PLW0603 - the umask itself is the process's, too
    before = os.umask(_PRIVATE_UMASK)
    if _person_umask is None:
        _person_umask = before


def person_umask() -> int:
    """The umask that a program of the person's is to run with: the one that this process was started with."""
    if _person_umask is not None:
        return _person_umask
    umask = os.umask(_PRIVATE_UMASK)  # it can only be asked for by setting one
    os.umask(umask)
    return umask


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
