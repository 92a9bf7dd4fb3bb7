"""Limits of this process, so that it runs short of something."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


@contextmanager
def limited(what: int, to: int) -> Iterator[None]:
    """Lower a limit of `setrlimit` for a while."""
    limits = resource.getrlimit(what)
    resource.setrlimit(what, (to, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, limits)


def descriptors_left(count: int) -> AbstractContextManager[None]:
    """Let no more than so many be opened."""
    first = os.dup(0)
    os.close(first)
    return limited(resource.RLIMIT_NOFILE, first + count)
