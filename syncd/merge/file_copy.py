"""Copies a range of a file in blocks, with its digest. Holes stay holes, and large data is shared where possible.

copy_file_range(2) shares the blocks of the disk on btrfs and XFS. SEEK_DATA and SEEK_HOLE are of lseek(2); a file
system that does not know them reports one range of data.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator

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
    done = start
    end = max(start, min(start + size_bytes, os.fstat(source).st_size))
    for data, hole in _data_ranges(source, start, end):
        _hash_zeros(digest, data - done)
        os.lseek(target, data + shift, os.SEEK_SET)
        done = data
        while done < hole:
            count = min(_BLOCK_BYTES, hole - done)
            shared = _share(source, done, target, count) if shares else 0
            if shared:
                block = os.pread(target, shared, done + shift)
            else:
                shares = False
                block = os.pread(source, count, done)
                _write_all(target, block)
            if not block:
                end = done  # it was cut meanwhile
                break
            digest.update(block)
            done += len(block)
    _hash_zeros(digest, end - done)
    if end > done:
        os.ftruncate(target, end + shift)
    os.lseek(target, end + shift, os.SEEK_SET)
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


def _data_ranges(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a file that are no holes."""
    if end - start <= _BLOCK_BYTES:
        if start < end:
            yield start, end
        return
    while start < end:
        try:
            data = os.lseek(descriptor, start, os.SEEK_DATA)
            hole = os.lseek(descriptor, data, os.SEEK_HOLE)
        except OSError as failure:
            if failure.errno == errno.ENXIO:
                return  # a hole up to the end
            if failure.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP):
                raise
            data, hole = start, end
        if data >= end:
            return
        yield data, min(hole, end)
        start = hole


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


def _hash_zeros(digest: hashlib._Hash, count: int) -> None:
    view = memoryview(_ZEROS)
    while count > 0:
        digest.update(view[: min(count, _BLOCK_BYTES)])
        count -= _BLOCK_BYTES
