"""Decides which parts of a workspace are on shared file systems, where inotify does not report what others change.

A file system is shared unless it is known to be local: what is not known is polled, which costs a little time, and a
change that is not noticed would cost more. Known to be local is what keeps its files on a disk or in the memory of this
machine, and changes only through this kernel. That of another machine (NFS, sshfs), of the host of a virtual one (9p,
virtiofs) or of a program that shows files of another place (bindfs, mergerfs, gocryptfs) changes behind the kernel's
back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct, field

from syncd.core.text import shown_path
from syncd.core.warning import SyncWarning
from syncd.watch.mountinfo import Mount, holding

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
