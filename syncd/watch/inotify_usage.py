"""Counts the inotify instances and watches of this user's other programs.

The kernel shows no sum, but each process's descriptors: an inotify instance is a link to `anon_inode:inotify`, and its
fdinfo has a line for each watch (proc_pid_fdinfo(5)). Processes that their own user cannot inspect are not counted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

_INSTANCE = "anon_inode:inotify"
_WATCH = b"inotify wd:"
_MAX_PROGRAMS = 3


@dataclass(frozen=True)
class Usage:
    """The least number of watches and instances in use; `programs` are those with the most watches."""

    watches: int
    instances: int
    programs: tuple[tuple[str, int], ...] = ()


def used_by_others(own: Collection[int]) -> Usage | None:
    """Return the usage by this user's processes, without the `own` pids; None if there is no /proc."""
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
            # A child inherits its parent's instances. They have no numbers, but two rarely have the same watches.
            if watches and watches in seen:
                continue
            seen.add(watches)
            instances += 1
            programs[_name(pid)] += watches.count(_WATCH)
    most = tuple((name, count) for name, count in programs.most_common(_MAX_PROGRAMS) if count)
    return Usage(programs.total(), instances, most)


def _instances(pid: int) -> list[bytes]:
    """Return the watches of each instance of a process; none if it ended, is another user's or cannot be inspected."""
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
