"""Which directory or file it is, so that the next one with the same inode number counts as another.

ext4 gives the number of a removed directory to the next one that is made. The handle that the kernel makes for NFS
servers has a generation besides, which is drawn anew for each inode (name_to_handle_at(2)). Where a file system makes
no handles, the time of birth has to do, which may be as coarse as the kernel's tick (statx(2)); where there is
neither, device and inode.
"""

from __future__ import annotations

import ctypes
import os
import struct

from msgspec import Struct
from msgspec.structs import replace

_AT_EMPTY_PATH = 0x1000
_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_BTIME = 0x800
_HANDLE_BYTES = 128  # MAX_HANDLE_SZ
_HANDLE_HEADER = struct.Struct("=Ii")  # struct file_handle: how many bytes there is room for, its type
_HANDLE_SIZE = struct.Struct("=I")
_NO_HANDLE = _HANDLE_HEADER.pack(_HANDLE_BYTES, 0) + bytes(_HANDLE_BYTES)
_HandleBuffer = ctypes.c_char * len(_NO_HANDLE)
_STATX_BYTES = 256
_STATX_MASK = struct.Struct("=I")
_STATX_BORN = struct.Struct("=qI")
_STATX_BORN_AT = 80
_SECOND_NS = 1_000_000_000


class FileIdentity(Struct, frozen=True, array_like=True):
    """`handle` and `born_ns` are empty where they are not known, in records of older versions, too."""

    device: int = 0
    inode: int = 0
    handle: bytes = b""
    born_ns: int = 0

    def same(self, other: FileIdentity) -> bool:
        """Whether both are of one directory, as far as is known of both of them.

        Another device number makes another one, though a reboot or a remount may give it to the same directory:
        the top directories of two disks have the same inode and generation.
        """
        return (
            (self.device, self.inode) == (other.device, other.inode)
            and (not (self.handle and other.handle) or self.handle == other.handle)
            and (not (self.born_ns and other.born_ns) or self.born_ns == other.born_ns)
        )


def identity_of(descriptor: int) -> FileIdentity:
    """Of what is open. Raises `OSError`."""
    status = os.fstat(descriptor)
    handle = _handle(descriptor, b"", _AT_EMPTY_PATH)
    born_ns = 0 if handle else _born_ns(descriptor, b"", _AT_EMPTY_PATH)
    return FileIdentity(status.st_dev, status.st_ino, handle, born_ns)


def identity_at(name: str, parent: int) -> FileIdentity:
    """Of what has that name in the directory open at `parent`, as `identity_of` it. Raises `OSError`."""
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    handle = _handle(parent, os.fsencode(name), 0)
    born_ns = 0 if handle else _born_ns(parent, os.fsencode(name), _AT_SYMLINK_NOFOLLOW)
    return FileIdentity(status.st_dev, status.st_ino, handle, born_ns)


def lasting_identity_of(descriptor: int) -> FileIdentity:
    """Of what is open, with all that is to be known of it: for one that is kept over a restart. Raises `OSError`."""
    identity = identity_of(descriptor)
    return replace(identity, born_ns=identity.born_ns or _born_ns(descriptor, b"", _AT_EMPTY_PATH))


_libc = ctypes.CDLL(None)
_name_to_handle_at = getattr(_libc, "name_to_handle_at", None)
_statx = getattr(_libc, "statx", None)
_mount = ctypes.c_int()  # answered, too, and never read
_mount_at = ctypes.addressof(_mount)
if _name_to_handle_at is not None:
    _name_to_handle_at.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
if _statx is not None:
    _statx.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]


def _handle(descriptor: int, name: bytes, flags: int) -> bytes:
    """The handle with its type; empty where there is none."""
    if _name_to_handle_at is None:
        return b""
    room = _HandleBuffer.from_buffer_copy(_NO_HANDLE)
    if _name_to_handle_at(descriptor, name, room, _mount_at, flags) != 0:
        return b""
    answer = room.raw
    return answer[_HANDLE_SIZE.size : _HANDLE_HEADER.size + _HANDLE_SIZE.unpack_from(answer)[0]]


def _born_ns(descriptor: int, name: bytes, flags: int) -> int:
    """The time of birth; 0 where nobody knows."""
    if _statx is None:
        return 0
    room = ctypes.create_string_buffer(_STATX_BYTES)
    if _statx(descriptor, name, flags, _STATX_BTIME, ctypes.byref(room)) != 0:
        return 0
    (known,) = _STATX_MASK.unpack_from(room)
    born_s, born_ns = _STATX_BORN.unpack_from(room, _STATX_BORN_AT)
    return int(born_s * _SECOND_NS + born_ns) if known & _STATX_BTIME else 0
