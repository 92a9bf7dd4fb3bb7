"""Reads the text of the kernel's list of mounts, and finds the mount that holds a path (proc_pid_mountinfo(5))."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

_OCTAL = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line of the list. `point` is where it is mounted, with a slash at its end; `parent` is the mount below it."""

    number: bytes
    parent: bytes
    point: bytes
    filesystem: str
    line: bytes


def parse_mountinfo(content: bytes) -> Iterator[Mount]:
    """Yield the mounts in the kernel's order; lines of another form are skipped.

    The fifth field is the mount point, in which space, tab, line feed and backslash are octal numbers. The file
    system's type follows a "-", behind any number of optional fields.
    """
    for line in content.splitlines():
        fields = line.split(b" ")
        if b"-" in fields[6:-1]:
            point = _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), fields[4]).rstrip(b"/") + b"/"
            filesystem = fields[fields.index(b"-", 6) + 1].decode("ascii", "replace")
            yield Mount(fields[0], fields[1], point, filesystem, line)


def holding(mounts: Collection[Mount], path: bytes) -> Mount | None:
    """Return the mount that holds a path, which ends with a slash; None if no listed one does.

    It is found as the kernel goes there: of the mounts on the current one, the first on the way is entered. So a mount
    that another one covers, at the same point or above it, is not found.
    """
    on_the_way = [mount for mount in mounts if path.startswith(mount.point)]
    listed = {mount.number for mount in mounts}
    found = None
    entered = [mount for mount in on_the_way if mount.parent not in listed or mount.parent == mount.number]
    while entered:
        found = min(entered, key=lambda mount: len(mount.point))
        entered = [mount for mount in on_the_way if mount.parent == found.number and mount is not found]
    return found
