"""Processes that run short of something, or have disks of their own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.repo.sources import REPO
from tests.system.command import works

_OWN_MOUNTS = ("unshare", "--mount", "--map-root-user")


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


def in_own_mounts(scenario: Callable[[str], None], folder: Path) -> str:
    """Run a module's function with this folder in a process of its own, and return what that wrote to stderr."""
    if not works(*_OWN_MOUNTS):
        pytest.skip("mount namespaces are not allowed here")
    code = f"from {scenario.__module__} import {scenario.__name__}; {scenario.__name__}({str(folder)!r})"
    command = [*_OWN_MOUNTS, sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stderr
