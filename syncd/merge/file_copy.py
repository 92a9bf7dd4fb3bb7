"""Copies a range of a file in blocks, with its digest. Zeros become holes, and large data is shared where possible.

copy_file_range(2) shares the blocks of the disk on btrfs and XFS.
"""

from __future__ import annotations

import errno
import hashlib
import os

_BLOCK_BYTES = 1 << 20
_SHARED_FROM_BYTES = 1 << 20
_SHARED_ALIGNMENT = 1 << 16  # larger than any block of a file system; blocks can be shared only at such offsets
_ZEROS = bytes(_BLOCK_BYTES)
# Not between these two files, or not on this kernel.
_NOT_SHARED = frozenset({errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EBADF})


def copy_range(source: int, start: int, size_bytes: int, target: int) -> bytes:
    """Copy so many bytes of `source` from `start` to the position of `target`, which is open for reading too.

    Returns the SHA-256 of the copied bytes; fewer are copied if the source ends. Afterwards the position is behind
    them. Raises `OSError`.
    """
    digest = hashlib.sha256()
    shift = os.lseek(target, 0, os.SEEK_CUR) - start
    shares = size_bytes >= _SHARED_FROM_BYTES
    done, end = start, start + size_bytes
    while done < end and (block := os.pread(source, min(_BLOCK_BYTES, end - done), done)):
        if not _ZEROS.startswith(block):
            os.lseek(target, done + shift, os.SEEK_SET)
            shared = _share(source, done, target, len(block)) if shares else 0
            shares = shared > 0
            if shares:
                block = os.pread(target, shared, done + shift)  # it may have been changed since it was read
            else:
                _write_all(target, block)
        digest.update(block)
        done += len(block)
    os.ftruncate(target, done + shift)
    os.lseek(target, done + shift, os.SEEK_SET)
    return digest.digest()


def append(source: int, size_bytes: int, target: int) -> tuple[int, bytes]:
    """Copy an open file behind the position of `target`. Returns where it begins, and its SHA-256. Raises `OSError`."""
    at = os.lseek(target, 0, os.SEEK_CUR)
    if size_bytes >= _SHARED_FROM_BYTES:
        at = os.lseek(target, -(-at // _SHARED_ALIGNMENT) * _SHARED_ALIGNMENT, os.SEEK_SET)
    return at, copy_range(source, 0, size_bytes, target)


def digest_of(descriptor: int) -> bytes:
    """Return the SHA-256 of a file that was just opened, of no more bytes than it has now. Raises `OSError`."""
    digest, left = hashlib.sha256(), os.fstat(descriptor).st_size
    while left > 0 and (block := os.read(descriptor, min(_BLOCK_BYTES, left))):
        digest.update(block)
        left -= len(block)
    return digest.digest()


def _share(source: int, start: int, target: int, count: int) -> int:
    """Copy inside of the kernel, from `start` to the position of `target`; 0 if that is not possible."""
    try:
        return os.copy_file_range(source, target, count, start)
    except OSError as failure:
        if failure.errno not in _NOT_SHARED:
            raise
        return 0


def _write_all(descriptor: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]
