"""Identifies a directory or file, so that a later one with the same inode number counts as another.

ext4 gives the inode number of a removed directory to the next one that is created. The handle that the kernel makes for
NFS servers also has a generation, a new random number for each inode (name_to_handle_at(2)). Where a file system makes
no handles, the birth time is used, which may be as coarse as the kernel's tick (statx(2)); where neither exists, only
device and inode.
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
_STATX_BTIME_FIELD = struct.Struct("=qI")
_STATX_BTIME_OFFSET = 80
_SECOND_NS = 1_000_000_000


class FileIdentity(Struct, frozen=True, array_like=True):
    """A directory or file. `handle` and `birth_ns` are empty where they are not known, and in old records."""

    device: int = 0
    inode: int = 0
    handle: bytes = b""
    birth_ns: int = 0

    def matches(self, other: FileIdentity) -> bool:
        """True if both identify the same directory, by all that is known of both.

        Different device numbers mean different directories, although a reboot or a remount may change the number of
        the same directory: the top directories of two disks have the same inode and generation.
        """
        return (
            (self.device, self.inode) == (other.device, other.inode)
            and (not (self.handle and other.handle) or self.handle == other.handle)
            and (not (self.birth_ns and other.birth_ns) or self.birth_ns == other.birth_ns)
        )


def identity_of(descriptor: int) -> FileIdentity:
    """Return the identity of an open directory or file. Raises `OSError`."""
    status = os.fstat(descriptor)
    handle = _handle(descriptor, b"", _AT_EMPTY_PATH)
    birth_ns = 0 if handle else _birth_ns(descriptor, b"", _AT_EMPTY_PATH)
    return FileIdentity(status.st_dev, status.st_ino, handle, birth_ns)


def identity_at(name: str, parent: int) -> FileIdentity:
    """Return what `identity_of` returns, for the entry `name` of the directory open at `parent`. Raises `OSError`."""
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    handle = _handle(parent, os.fsencode(name), 0)
    birth_ns = 0 if handle else _birth_ns(parent, os.fsencode(name), _AT_SYMLINK_NOFOLLOW)
    return FileIdentity(status.st_dev, status.st_ino, handle, birth_ns)


def persistent_identity_of(descriptor: int) -> FileIdentity:
    """Return the identity with the birth time in any case, for a record that outlives a restart. Raises `OSError`."""
    identity = identity_of(descriptor)
    return replace(identity, birth_ns=identity.birth_ns or _birth_ns(descriptor, b"", _AT_EMPTY_PATH))


_libc = ctypes.CDLL(None)
_name_to_handle_at = getattr(_libc, "name_to_handle_at", None)
_statx = getattr(_libc, "statx", None)
_mount = ctypes.c_int()  # the call requires it; its value is not used
_mount_at = ctypes.addressof(_mount)
if _name_to_handle_at is not None:
    _name_to_handle_at.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
if _statx is not None:
    _statx.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]


def _handle(descriptor: int, name: bytes, flags: int) -> bytes:
    """Return the handle with its type; empty if there is none."""
    if _name_to_handle_at is None:
        return b""
    buffer = _HandleBuffer.from_buffer_copy(_NO_HANDLE)
    if _name_to_handle_at(descriptor, name, buffer, _mount_at, flags) != 0:
        return b""
    handle = buffer.raw
    return handle[_HANDLE_SIZE.size : _HANDLE_HEADER.size + _HANDLE_SIZE.unpack_from(handle)[0]]


def _birth_ns(descriptor: int, name: bytes, flags: int) -> int:
    """Return the birth time; 0 if it is not known."""
    if _statx is None:
        return 0
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    if _statx(descriptor, name, flags, _STATX_BTIME, ctypes.byref(buffer)) != 0:
        return 0
    (known,) = _STATX_MASK.unpack_from(buffer)
    seconds, nanoseconds = _STATX_BTIME_FIELD.unpack_from(buffer, _STATX_BTIME_OFFSET)
    return int(seconds * _SECOND_NS + nanoseconds) if known & _STATX_BTIME else 0
