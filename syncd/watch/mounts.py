"""The file systems of the workspace, and how often what is on a shared one is looked at again.

inotify does not report what others change on a shared file system. A file system is shared unless it is known to be
local: what is not known is scanned again and again, which costs a little time, and a change that is not noticed would
cost more. Known to be local is what keeps its files on a disk or in the memory of this machine, and changes only
through this kernel. That of another machine (NFS, sshfs), of the host of a virtual one (9p, virtiofs) or of a program
that shows files of another place (bindfs, mergerfs, gocryptfs) changes behind the kernel's back.
"""

from __future__ import annotations

import os
import re

from syncd.core.errors import SyncWarning
from syncd.core.text import shown_path

_LIST = "/proc/self/mountinfo"
_OCTAL = re.compile(rb"\\([0-7]{3})")
# What reports no changes is scanned no more often than this, and for a twentieth of the time at most.
_LEAST_POLL_S = 30.0
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


def filesystems(mountinfo: bytes, workspace: bytes) -> dict[str, str]:
    """Return the types of the file systems that hold the workspace, whose path ends with a slash, and parts of it.

    They are found by the relative path at which they are mounted, "" for the workspace itself. The kernel's list is in
    the order in which they were mounted (proc_pid_mountinfo(5)); a mount hides those of before at its point and below.
    The fifth field is the mount point, in which space, tab, line feed and backslash are octal numbers. The file
    system's type follows a "-", behind any number of optional fields. Lines of another form are skipped.
    """
    found: dict[str, str] = {}
    for line in mountinfo.split(b"\n"):  # a carriage return is part of a name
        fields = line.split(b" ")
        if b"-" not in fields[6:-1]:
            continue
        point = _OCTAL.sub(lambda octal: bytes([int(octal[1], 8)]), fields[4]).rstrip(b"/") + b"/"
        filesystem = fields[fields.index(b"-", 6) + 1].decode("ascii", "replace")
        if workspace.startswith(point):
            found = {"": filesystem}
        elif point.startswith(workspace):
            path = point[len(workspace) : -1].decode("utf-8", "surrogateescape")
            found = {other: kind for other, kind in found.items() if not other.startswith(f"{path}/")}
            found[path] = filesystem
    return found


def filesystems_of(workspace: str) -> dict[str, str]:
    """Return the file systems of the workspace, a path without links; none without the kernel's list."""
    try:
        with open(_LIST, "rb") as file:
            return filesystems(file.read(), os.fsencode(workspace) + b"/")
    except OSError:
        return {}


def shared_parts(workspace: str) -> dict[str, str]:
    """Return those of `filesystems_of` that are shared."""
    return {path: kind for path, kind in filesystems_of(workspace).items() if kind not in LOCAL_FILESYSTEMS}


def shared_warning(path: str, filesystem: str) -> SyncWarning:
    """Return the warning about a part of the workspace that is polled."""
    where = f"{path!r}" if path else "the workspace"
    shared = f"a shared file system ({shown_path(filesystem)}), which does not report what others change there"
    remedy = "move it to a local disk (in WSL, a virtual machine or a container one of its own), or live with the delay"
    return SyncWarning(f"shared:{path or '.'}", f"{where} is polled, as it is on {shared}", remedy)


def poll_interval_s(scan_took_s: float) -> float:
    """Return the seconds until what reports no changes is scanned again, after a scan that took so long."""
    return max(_LEAST_POLL_S, _POLL_SHARE * scan_took_s)
