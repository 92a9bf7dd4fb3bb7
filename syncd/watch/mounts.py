"""Reads the kernel's list of mounts: which parts of the workspace are shared, and when the mounts around it change.

No file system event reports a mount. It hides a directory without touching it, and when a bind mount is removed, its
file system stays in use elsewhere: inotify sees nothing, and the watched directories are no longer those that the path
leads to. The kernel's list can be waited for (proc_pid_mountinfo(5), poll(2): POLLPRI once after each change), so an
idle daemon does not need to poll it.
"""

from __future__ import annotations

import os

from syncd.watch.mountinfo import Mount, holding, parse_mountinfo
from syncd.watch.shared_mounts import WorkspaceMounts, workspace_mounts

_LIST = "/proc/self/mountinfo"


def filesystem_type(path: str) -> str:
    """Return the type of the file system that holds the path, such as "ext4"; "" if it is not known."""
    mount = holding(_mounts(), _as_point(os.path.realpath(path)))
    return "" if mount is None else mount.filesystem


def workspace_mounts_of(workspace: str) -> WorkspaceMounts:
    """Return the mounts that hold the workspace, a path without links, or a part of it."""
    return workspace_mounts(_mounts(), _as_point(workspace))


def _mounts() -> list[Mount]:
    try:
        with open(_LIST, "rb") as file:
            return list(parse_mountinfo(file.read()))
    except OSError:
        return []


def _as_point(path: str) -> bytes:
    """Return a path as the list has mount points."""
    return os.fsencode(path) + b"/"


class MountMonitor:
    """Reports each change of the mounts above, at or below one path. Without the kernel's list it reports none."""

    def __init__(self, workspace: str) -> None:
        self._path = _as_point(workspace)
        self._descriptor = -1
        self._mounts: list[Mount] = []
        self.mounts = WorkspaceMounts()

    def open(self) -> None:
        """Read the current mounts."""
        try:
            self._descriptor = os.open(_LIST, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        self.changed()

    def filenos(self) -> list[int]:
        """Return the descriptors to poll for POLLPRI."""
        return [self._descriptor] if self._descriptor >= 0 else []

    def changed(self) -> bool:
        """True if the workspace's mounts differ from those of the last call."""
        before, self._mounts = self._mounts, self._read()
        if before == self._mounts:
            return False
        self.mounts = workspace_mounts(self._mounts, self._path)
        return True

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
