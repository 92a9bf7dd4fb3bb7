"""Shared parts of the watch's tests: a wake signal to wait for, and a walk that watches as a scan does."""

from __future__ import annotations

import mmap
import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from syncd.watch.changes import Changes, RescanReason
from syncd.watch.inotify_watch import InotifyWatch

DEADLINE_S = 10.0


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


@dataclass
class WakeEvent:
    """The loop's end of the wake-up: a pipe that is waited on with a deadline, without sleeping."""

    count: int = 0
    _ends: tuple[int, int] = field(default_factory=lambda: os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))

    def wake(self) -> None:
        self.count += 1
        os.write(self._ends[1], b"!")

    def wait(self, seconds: float = DEADLINE_S) -> bool:
        rang = bool(select.select([self._ends[0]], [], [], seconds)[0])
        if rang:
            os.read(self._ends[0], 4096)
        return rang

    def close(self) -> None:
        for end in self._ends:
            os.close(end)


def receive(watch: InotifyWatch, wake_event: WakeEvent, enough: Callable[[Changes], bool] = bool) -> Changes:
    """Collect changes until they are enough."""
    dirty, unlinked = frozenset[str](), frozenset[str]()
    written: frozenset[str] | None = frozenset()
    rescan_reason: RescanReason | None = None
    while True:
        assert wake_event.wait(), f"received nothing more than {sorted(dirty)}, {rescan_reason}"
        changes = watch.take()
        dirty |= changes.dirty
        written = None if written is None or changes.written is None else written | changes.written
        unlinked |= changes.unlinked
        rescan_reason = max(filter(None, (rescan_reason, changes.rescan_reason)), default=None)
        received = Changes(dirty, rescan_reason, written, unlinked)
        if enough(received):
            return received


def receive_until(watch: InotifyWatch, wake_event: WakeEvent, path: str) -> Changes:
    """Collect changes until one names `path`: the queue keeps its order, so all earlier changes are included."""
    return receive(watch, wake_event, lambda changes: path in changes.dirty)


def walk(watch: InotifyWatch, root: str | os.PathLike[str], rules: Rules | None = None) -> list[str]:
    """Do a full scan: add every included directory before it is listed; return their paths."""
    watch.begin()
    try:
        added = list(_descend(watch, os.fspath(root), "", rules or Rules()))
    except OSError:
        watch.abort()
        raise
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


def all_changes(watch: InotifyWatch, wake_event: WakeEvent, root: Path) -> Changes:
    """Return all changes up to now: a change in zz, whose one event comes after all earlier ones."""
    (root / "zz" / str(len(os.listdir(root / "zz")))).symlink_to("nowhere")
    received = receive_until(watch, wake_event, "zz")
    return Changes(received.dirty - {"zz"}, received.rescan_reason, received.written, received.unlinked)


def watches(watch: InotifyWatch) -> int:
    """Return the kernel's count without the watches on the directories above the workspace."""
    assert watch._inotify is not None
    return kernel_watches(watch._inotify._inotify_fd) - len(watch._parents)


def write_through_mmap(src: Path) -> None:
    with open(src / "a.py", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] = 0x21
