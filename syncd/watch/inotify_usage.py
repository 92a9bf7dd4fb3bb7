"""What this user's other programs hold of the kernel's inotify limits.

The kernel tells no sum, but each process's descriptors: an inotify instance is a link to `anon_inode:inotify`, and its
fdinfo has a line for each watch (proc_pid_fdinfo(5)). Processes that hide from their own user are not counted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

_INSTANCE = "anon_inode:inotify"
_WATCH = b"inotify wd:"
_NAMED = 3


@dataclass(frozen=True)
class Usage:
    """At least so many of each; `programs` hold the most watches, by name."""

    watches: int
    instances: int
    programs: tuple[tuple[str, int], ...] = ()


def held_by_others(own: Collection[int]) -> Usage | None:
    """What this user's processes hold, but for the `own` pids; None where there is no /proc."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return None
    instances = 0
    programs: Counter[str] = Counter()
    seen: set[bytes] = set()
    for pid in pids:
        if pid in own:
            continue
        for watches in _instances(pid):
            # A child inherits its parent's instances. The kernel numbers none, but hardly two hold the same watches.
            if watches and watches in seen:
                continue
            seen.add(watches)
            instances += 1
            programs[_name(pid)] += watches.count(_WATCH)
    most = tuple((name, count) for name, count in programs.most_common(_NAMED) if count)
    return Usage(programs.total(), instances, most)


def _instances(pid: int) -> list[bytes]:
    """The watches of each instance that a process holds; none if it is gone, another user's, or hides."""
    found = []
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
            return []
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            found += _watches(pid, descriptor)
    except OSError:
        pass
    return found


def _watches(pid: int, descriptor: str) -> list[bytes]:
    try:
        if os.readlink(f"/proc/{pid}/fd/{descriptor}") != _INSTANCE:
            return []
        with open(f"/proc/{pid}/fdinfo/{descriptor}", "rb") as file:
            return [b"".join(line for line in file if line.startswith(_WATCH))]
    except OSError:
        return []


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"
