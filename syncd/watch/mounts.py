"""Reads the kernel's list of mounts: which file system a path is on, and when the mounts around the workspace change.

No file system event reports a mount. It hides a directory without touching it, and when a bind mount is removed, its
file system stays in use elsewhere: inotify sees nothing, and the watched directories are no longer those that the path
leads to. The kernel's list can be waited for (proc_pid_mountinfo(5), poll(2): POLLPRI once after each change), so an
idle daemon does not need to poll it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

_LIST = "/proc/self/mountinfo"
_OCTAL = re.compile(rb"\\([0-7]{3})")
# File systems that are served by another machine, or by the host of a virtual one: the kernel reports only changes that
# are made on this machine.
SHARED_FILESYSTEMS = frozenset(
    {"9p", "afs", "ceph", "cifs", "coda", "drvfs", "fuse.sshfs", "glusterfs", "nfs", "nfs4", "prl_fs", "smb3", "smbfs"}
    | {"fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.vmhgfs-fuse", "vboxsf", "virtiofs", "vmhgfs"}
)


class Mount(NamedTuple):
    """One line of the list. `point` is where it is mounted, with a slash at its end."""

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
            yield Mount(point, filesystem, line)


def filesystem_type(path: str) -> str:
    """Return the type of the file system that holds the path, such as "ext4"; "" if it is not known."""
    wanted = os.fsencode(os.path.realpath(path)) + b"/"
    try:
        with open(_LIST, "rb") as file:
            holding = [mount for mount in parse_mountinfo(file.read()) if wanted.startswith(mount.point)]
    except OSError:
        return ""
    # Of two mounts at one point the later hides the earlier, and `max` takes the first of equals: hence the reverse.
    return max(reversed(holding), key=lambda mount: len(mount.point)).filesystem if holding else ""


class MountMonitor:
    """Reports each change of the mounts above, at or below one path. Without the kernel's list it reports none."""

    def __init__(self, workspace: str) -> None:
        self._path = os.fsencode(workspace) + b"/"
        self._descriptor = -1
        self._mounts: list[Mount] = []

    def open(self) -> None:
        """Read the current mounts."""
        try:
            self._descriptor = os.open(_LIST, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        self._mounts = self._read()

    def filenos(self) -> list[int]:
        """Return the descriptors to poll for POLLPRI."""
        return [self._descriptor] if self._descriptor >= 0 else []

    def changed(self) -> bool:
        """True if the workspace's mounts differ from those of the last call."""
        before, self._mounts = self._mounts, self._read()
        return before != self._mounts

    def close(self) -> None:
        """Close the list."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> list[Mount]:
        if self._descriptor < 0:
            return []
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            with open(self._descriptor, "rb", closefd=False) as file:
                mounts = parse_mountinfo(file.read())
        except OSError:
            return self._mounts
        return [mount for mount in mounts if self._path.startswith(mount.point) or mount.point.startswith(self._path)]
