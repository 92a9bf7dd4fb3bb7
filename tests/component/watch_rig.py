"""Shared parts of the watch's tests: rules, and a walk that watches as a scan does."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from syncd.watch.inotify_watch import InotifyWatch


class FakeDecision(NamedTuple):
    """A decision of `Rules`."""

    included: bool


@dataclass(frozen=True)
class Rules:
    """Rules that exclude names by their end, or, for a rule ending in "/", directories by name."""

    left_out: tuple[str, ...] = ()

    def decide(self, name: str, is_dir: bool) -> FakeDecision:
        return FakeDecision(not any(self._fits(rule, name, is_dir) for rule in self.left_out))

    @staticmethod
    def _fits(rule: str, name: str, is_dir: bool) -> bool:
        return (is_dir and name == rule[:-1]) if rule.endswith("/") else name.endswith(rule)


def walk(watch: InotifyWatch, root: str | os.PathLike[str], rules: Rules | None = None) -> list[str]:
    """Do a full scan: add every included directory before it is listed; return their paths."""
    watch.begin()
    added = list(_descend(watch, os.fspath(root), "", rules or Rules()))
    watch.finish()
    return added


def _descend(watch: InotifyWatch, root: str, path: str, rules: Rules) -> Iterator[str]:
    with opened(os.path.join(root, path)) as fd:
        watch.add_directory(path, fd, rules)
        yield path
        with os.scandir(fd) as listing:
            names = [e.name for e in listing if e.is_dir(follow_symlinks=False) and rules.decide(e.name, True).included]
    for name in names:
        yield from _descend(watch, root, f"{path}/{name}" if path else name, rules)


@contextmanager
def opened(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open the directory."""
    fd = os.open(path, flags | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def kernel_watches(fd: int) -> int:
    """Return the number of watches of an inotify descriptor (proc(5), fdinfo)."""
    with open(f"/proc/self/fdinfo/{fd}") as info:
        return sum(line.startswith("inotify wd:") for line in info)


def watches(watch: InotifyWatch) -> int:
    """Return the kernel's count without the watches on the directories above the workspace."""
    assert watch._inotify is not None
    return kernel_watches(watch._inotify.filenos()[0]) - len(watch._parents)


def write_through_mmap(src: Path) -> None:
    with open(src / "a.py", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] = 0x21
