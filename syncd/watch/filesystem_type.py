"""Which kind of file system a path is on: where others write to it too, the kernel tells of their changes nothing."""

from __future__ import annotations

import os
import re

_LIST = "/proc/self/mountinfo"
_OCTAL = re.compile(rb"\\([0-7]{3})")
# Those that are served from elsewhere: another machine, or the host of a virtual one.
SHARED = frozenset(
    {"9p", "afs", "ceph", "cifs", "coda", "drvfs", "fuse.sshfs", "glusterfs", "nfs", "nfs4", "prl_fs", "smb3", "smbfs"}
    | {"fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.vmhgfs-fuse", "vboxsf", "virtiofs", "vmhgfs"}
)


def kind_of(path: str) -> str:
    """The type that the kernel names for it (proc_pid_mountinfo(5)), such as "ext4"; "" if it tells none."""
    wanted = os.fsencode(os.path.realpath(path)) + b"/"
    kind, longest = "", -1
    try:
        with open(_LIST, "rb") as file:
            for line in file:
                fields = line.split(b" ")
                point = _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), fields[4]).rstrip(b"/") + b"/"
                if wanted.startswith(point) and len(point) >= longest:  # of two at one place, the later hides the other
                    kind, longest = fields[fields.index(b"-") + 1].decode("ascii", "replace"), len(point)
    except (OSError, ValueError, IndexError):
        return ""
    return kind
