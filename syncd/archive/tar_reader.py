"""Reads a `tar.gz` of another program as a stream: in one pass, in bounded memory, trusting none of its values.

Python's tarfile reads the headers. This module adds what tarfile does not: the size of an extension header, which is
read into memory as a whole, is limited, and every error is a `BadArchive`.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO, cast

_BLOCK = 1 << 18
_EXTENSION_BYTES = 1 << 20
_EXTENSIONS = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)
# The exceptions that tarfile lets through besides its own, for invalid numbers, names and times.
_INVALID = (tarfile.TarError, ValueError, OverflowError, LookupError, RecursionError)


class BadArchive(Exception):
    """The archive is incomplete, corrupt or invalid; the message says which."""


class MemberKind(Enum):
    """The kind of a member; all that a workspace cannot hold is one kind."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARD_LINK = "hard link"
    OTHER = "device or FIFO"


@dataclass(frozen=True)
class Member:
    """One entry, with the values of its header: `name` and `target` are not checked."""

    name: str
    kind: MemberKind
    mode: int
    mtime_s: float
    size_bytes: int
    target: str


def members(packed: Iterable[bytes]) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Yield each member with its content, which must be read before the next member. Raises `BadArchive`.

    Exceptions of `packed` are passed on.
    """
    stream = _GunzippedStream(packed)
    try:
        with tarfile.open(
            fileobj=cast("BinaryIO", stream), mode="r|", tarinfo=_LimitedTarInfo, errors="surrogateescape"
        ) as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else every header stays in memory
                yield _member(info), _content(tar, info)
        stream.drain()
    except _INVALID as failure:
        raise BadArchive(f"the archive is not a valid tar file: {failure}") from None


class _LimitedTarInfo(tarfile.TarInfo):
    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # In all supported versions of Python, tarfile calls this before it reads an extension header.
        if self.type in _EXTENSIONS and self.size > _EXTENSION_BYTES:
            raise BadArchive("the archive is not a valid tar file: an oversized header")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


class _GunzippedStream:
    """The content of one or several gzip members, as a readable file."""

    def __init__(self, packed: Iterable[bytes]) -> None:
        self._packed = iter(packed)
        self._rest = b""
        self._inflate = zlib.decompressobj(wbits=31)

    def read(self, size: int = _BLOCK) -> bytes:
        """Up to `size` bytes; none at the end, which is reached only if lengths and checksums are right."""
        while True:
            if self._inflate.eof:
                self._rest = self._inflate.unused_data or next(self._packed, b"")
                if not self._rest.strip(b"\0"):  # padding with zeros at the end is allowed
                    return b""
                self._inflate = zlib.decompressobj(wbits=31)
            packed = self._inflate.unconsumed_tail or self._rest or next(self._packed, b"")
            self._rest = b""
            if not packed:
                raise BadArchive("the archive is cut short")
            try:
                data = self._inflate.decompress(packed, max(1, size))
            except zlib.error as failure:
                raise BadArchive(f"the archive is not valid gzip: {failure}") from None
            if data:
                return data

    def drain(self) -> None:
        """Read to the end, which verifies the checksums."""
        while self.read():
            pass


def _member(info: tarfile.TarInfo) -> Member:
    if info.issym():
        kind = MemberKind.SYMLINK
    elif info.islnk():
        kind = MemberKind.HARD_LINK
    elif info.isdir():
        kind = MemberKind.DIRECTORY
    else:
        kind = MemberKind.FILE if info.isreg() else MemberKind.OTHER
    return Member(info.name, kind, info.mode & 0o777, info.mtime, info.size, info.linkname)


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    if not info.isreg():
        return
    left = info.size
    try:
        file = tar.extractfile(info)
        while left and file is not None:
            block = file.read(min(_BLOCK, left))
            if not block:
                break
            left -= len(block)
            yield block
    except _INVALID as failure:
        raise BadArchive(f"the archive is not a valid tar file: {failure}") from None
    if left:
        raise BadArchive("the archive is cut short")
