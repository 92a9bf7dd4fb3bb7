"""Notices that something was mounted or unmounted where the workspace is: no event of the file system tells.

A mount hides a directory without touching it, and a bind mount that goes leaves its file system in use elsewhere: to
inotify nothing happened, and what is watched from then on is not what the path leads to. The kernel's list of mounts
can be waited for (proc_pid_mountinfo(5), poll(2): POLLPRI once after each change), so an idle daemon need not look.
"""

from __future__ import annotations

import os
import re

_LIST = "/proc/self/mountinfo"
_OCTAL = re.compile(rb"\\([0-7]{3})")


class MountMonitor:
    """Tells once of each change in the mounts above, at or below one path. Where there is no such list, of none."""

    def __init__(self, workspace: str) -> None:
        self._path = os.fsencode(workspace)
        self._descriptor = -1
        self._mounts: list[bytes] = []

    def open(self) -> None:
        """Notes which mounts there are."""
        try:
            self._descriptor = os.open(_LIST, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        self._mounts = self._concerning()

    def filenos(self) -> list[int]:
        """What to poll for POLLPRI."""
        return [self._descriptor] if self._descriptor >= 0 else []

    def changed(self) -> bool:
        """Whether the mounts that concern the workspace are others than at the last call."""
        before, self._mounts = self._mounts, self._concerning()
        return before != self._mounts

    def close(self) -> None:
        """Give the list back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _concerning(self) -> list[bytes]:
        if self._descriptor < 0:
            return []
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            with open(self._descriptor, "rb", closefd=False) as file:
                lines = file.read().splitlines()
        except OSError:
            return self._mounts
        return [line for line in lines if self._concerns(line)]

    def _concerns(self, line: bytes) -> bool:
        """The fifth field is where it is mounted; space, tab, line feed and backslash stand there as octal numbers."""
        fields = line.split(b" ")
        if len(fields) < 5:
            return False
        point = _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), fields[4]).rstrip(b"/") + b"/"
        path = self._path + b"/"
        return path.startswith(point) or point.startswith(path)
