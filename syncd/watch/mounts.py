"""The file systems of the workspace: which parts are shared, and when the mounts around it change.

inotify does not report what others change on a shared file system. A file system is shared unless it is known to be
local: what is not known is polled, which costs a little time, and a change that is not noticed would cost more. Known
to be local is what keeps its files on a disk or in the memory of this machine, and changes only through this kernel.
That of another machine (NFS, sshfs), of the host of a virtual one (9p, virtiofs) or of a program that shows files of
another place (bindfs, mergerfs, gocryptfs) changes behind the kernel's back.

No file system event reports a mount. It hides a directory without touching it, and when a bind mount is removed, its
file system stays in use elsewhere: inotify sees nothing, and the watched directories are no longer those that the path
leads to. The kernel's list can be waited for (proc_pid_mountinfo(5), poll(2): POLLPRI once after each change), so an
idle daemon does not need to poll it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct, field

from syncd.core.errors import SyncWarning
from syncd.core.text import shown_path
from syncd.model.entry import YOUNG_NS
from syncd.model.manifest import Difference

if TYPE_CHECKING:
    from syncd.watch.inotify_watch import InotifyWatch

_LIST = "/proc/self/mountinfo"
_OCTAL = re.compile(rb"\\([0-7]{3})")
# A poll comes no more often than this, and takes a twentieth of the time at most.
_LEAST_POLL_S = 2.0
_POLL_SHARE = 20

LOCAL_FILESYSTEMS = frozenset(
    # On a disk of this machine; `fuseblk` is what ntfs-3g and others mount from one.
    {"apfs", "bcachefs", "btrfs", "ecryptfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "hfs", "hfsplus"}
    | {"jfs", "minix", "msdos", "nilfs2", "ntfs", "ntfs3", "reiserfs", "ubifs", "udf", "vfat", "xfs", "zfs"}
    # In its memory.
    | {"devtmpfs", "hugetlbfs", "ramfs", "rootfs", "tmpfs"}
    # Layers of a container: changing a lower one beneath the mount is not allowed. The Linux system of WSL 1.
    | {"aufs", "fuse.fuse-overlayfs", "overlay", "lxfs", "wslfs"}
    # Nothing changes here.
    | {"cramfs", "erofs", "fuse.snapfuse", "fuse.squashfuse", "iso9660", "romfs", "squashfs"}
    # The kernel's own, and the place of a mount that is made when it is used, which is a line of its own then.
    | {"autofs", "proc", "sysfs"}
)
DRVFS = "drvfs"
_VIRTUAL_MACHINE = frozenset(
    {"9p", "fakeowner", "fuse.grpcfuse", "fuse.osxfs", "fuse.vmhgfs-fuse", "grpcfuse", "osxfs", "prl_fs", "vboxsf"}
    | {"virtiofs", "vmhgfs"}
)


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


class WorkspaceMounts(Struct, frozen=True):
    """The file systems of a workspace, by the relative path at which they are mounted; "" is the workspace itself.

    `shared` are the types of the shared ones; the others are `local`, also those that are mounted in a shared one.
    """

    shared: Mapping[str, str] = field(default_factory=dict)
    local: frozenset[str] = frozenset()

    @property
    def share_workspace(self) -> bool:
        """True if the workspace itself is on a shared file system."""
        return "" in self.shared

    def is_shared(self, path: str) -> bool:
        """True if a path is on a shared file system."""
        while path and path not in self.shared and path not in self.local:
            path = path.rpartition("/")[0]
        return path in self.shared

    @property
    def inside(self) -> frozenset[str]:
        """The paths below the workspace itself at which something is mounted."""
        return self.local.union(self.shared) - {""}


def workspace_mounts(mounts: Collection[Mount], workspace: bytes) -> WorkspaceMounts:
    """Return the mounts that hold the workspace, or a part of it, and are not hidden; its path ends with a slash."""
    found: dict[str, str] = {}
    around = holding(mounts, workspace)
    if around is not None:
        found[""] = _kind(around)
    for mount in mounts:
        if mount.point.startswith(workspace) and mount.point != workspace and holding(mounts, mount.point) is mount:
            path = mount.point[len(workspace) : -1].decode("utf-8", "surrogateescape")
            found[path] = _kind(mount)
    shared = {path: kind for path, kind in sorted(found.items()) if kind not in LOCAL_FILESYSTEMS}
    return WorkspaceMounts(shared, frozenset(found.keys() - shared.keys()))


def _kind(mount: Mount) -> str:
    """Return the type for people: WSL 2 mounts the drives of Windows as 9p or virtiofs, and says so behind the type."""
    is_drvfs = mount.filesystem in ("9p", "virtiofs") and b"drvfs" in mount.line.partition(b" - ")[2]
    return DRVFS if is_drvfs else mount.filesystem


def shared_warning(path: str, filesystem: str) -> SyncWarning:
    """Return the warning about a part of the workspace that is polled."""
    where = f"{path!r}" if path else "the workspace"
    shared = f"a shared file system ({shown_path(filesystem)}), which does not report what others change there"
    return SyncWarning(f"shared:{path or '.'}", f"{where} is polled, as it is on {shared}", _remedy(filesystem))


def _remedy(filesystem: str) -> str:
    if filesystem == DRVFS:
        return "move it into the Linux file system of WSL, such as below your home directory"
    if filesystem in _VIRTUAL_MACHINE:
        return "move it to a disk or volume of this virtual machine or container, or live with the delay"
    return "move it to a local disk, or live with the delay"


def poll_interval_s(scan_took_s: float) -> float:
    """Return the seconds between two polls, after one that took so long."""
    return max(_LEAST_POLL_S, _POLL_SHARE * scan_took_s)


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
        try:
            self._descriptor = os.open(_LIST, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        self.changed()

    def filenos(self) -> list[int]:
        return [self._descriptor] if self._descriptor >= 0 else []

    def changed(self) -> bool:
        """True if the workspace's mounts differ from those of the last call."""
        before, self._mounts = self._mounts, self._read()
        if before == self._mounts:
            return False
        self.mounts = workspace_mounts(self._mounts, self._path)
        return True

    def close(self) -> None:
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


class Polling:
    """Plans the polls: scans of those parts of the workspace from which not every change is reported.

    A poll scans the directories on shared file systems in the workspace. It scans everything if the workspace itself is
    on one, or if a part of it has no watch. The rest of the workspace is followed by its events meanwhile.

    `directories_within` returns those of the last scan, as `Scanner` does. `sandboxes` counts those of the workspace,
    each of which polls for itself.
    """

    def __init__(
        self,
        watch: InotifyWatch,
        mounts: MountMonitor,
        directories_within: Callable[[Collection[str], Collection[str]], frozenset[str]],
        sandboxes: Callable[[], int] = lambda: 1,
    ) -> None:
        self._sandboxes = sandboxes
        self._watch = watch
        self._mounts = mounts
        self._directories_within = directories_within
        self._is_due = False  # at the sync under way
        self._took_s = 0.0
        self._sent: list[tuple[float, frozenset[str]]] = []
        self.due_s = inf
        self.warnings: tuple[SyncWarning, ...] = ()

    def add_due(
        self, directories: frozenset[str] | None, files: frozenset[str] | None, now_s: float
    ) -> tuple[frozenset[str] | None, frozenset[str] | None]:
        """Return the directories and files to scan, None for all, with those of a poll if one is due."""
        self._is_due = now_s >= self.due_s
        if not self._is_due:
            return directories, files
        polled = self._polled()
        directories = None if directories is None or polled is None else directories | polled
        return directories, None if files is None else files | self._take_sent(now_s)

    def scanned(self, directories: frozenset[str] | None, now_s: float, took_s: float) -> None:
        """Plan the next poll, after a scan of these directories (None: of everything) that took so long."""
        if directories is not None and not self._is_due:
            return
        polled = self._polled()
        if self._is_due or polled is None:  # the time of a full scan says nothing of a part
            self._took_s = took_s
        self._is_due = False
        interval_s = poll_interval_s(self._took_s * self._sandboxes())
        self.due_s = inf if polled is not None and not polled else now_s + interval_s
        found = self._on_shared_mounts()
        shared = self._mounts.mounts.shared
        self.warnings = tuple(shared_warning(path, kind) for path, kind in shared.items() if path in found)

    def sent(self, change: Difference | None, now_s: float) -> None:
        """Note what was sent, which a later poll reads once more.

        The clock of a shared file system may be slow and its times coarse: so a file that was written again right after
        it was read may have the stamp of that read, which looked old enough to be trusted.
        """
        mounts = self._mounts.mounts
        if change is None or not mounts.shared or self._watch.needs_polling:
            return
        shared = frozenset(path for path in (*change.added, *change.changed) if mounts.is_shared(path))
        if shared:
            self._sent.append((now_s, shared))

    def _take_sent(self, now_s: float) -> frozenset[str]:
        """Return what was sent so long ago that a later write has another stamp by now."""
        settled = [paths for sent_s, paths in self._sent if now_s - sent_s >= YOUNG_NS / 1e9]
        self._sent = self._sent[len(settled) :]
        return frozenset().union(*settled)

    def _polled(self) -> frozenset[str] | None:
        if self._watch.needs_polling or self._mounts.mounts.share_workspace:
            return None
        return self._on_shared_mounts()

    def _on_shared_mounts(self) -> frozenset[str]:
        return self._directories_within(self._mounts.mounts.shared, self._mounts.mounts.local)
