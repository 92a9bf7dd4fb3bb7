"""Reads a foreign `tar.gz` as it comes: in one pass, in bounded memory, and believing nothing that it says.

Python's tarfile reads the headers. What it leaves to its caller is done here: an extension header is bounded before it
is read into memory whole, as long as that claims to be, and every error is one of ours.
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
# What tarfile lets through beside its own errors: odd numbers, names and times raise further down.
_SENSELESS = (tarfile.TarError, ValueError, OverflowError, LookupError, RecursionError)


class BadArchive(Exception):
    """The archive is cut short, corrupt, or makes no sense; the message says which."""


class MemberKind(Enum):
    """What a member is, as far as a workspace can hold it."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARD_LINK = "hard link"
    OTHER = "device or FIFO"


@dataclass(frozen=True)
class Member:
    """One entry, as its header has it: `name` and `target` are not to be trusted."""

    name: str
    kind: MemberKind
    mode: int
    mtime_s: float
    size_bytes: int
    target: str


def members(packed: Iterable[bytes]) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Each member with its content, which can be read until the next one is asked for. Raises `BadArchive`.

    What `packed` raises comes through.
    """
    stream = _Inflated(packed)
    try:
        with tarfile.open(
            fileobj=cast("BinaryIO", stream), mode="r|", tarinfo=_Bounded, errors="surrogateescape"
        ) as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or every header is kept to the end
                yield _member(info), _content(tar, info)
        stream.drain()
    except _SENSELESS as failure:
        raise BadArchive(f"the archive makes no sense: {failure}") from None


class _Bounded(tarfile.TarInfo):
    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # The one place that every Python's tarfile passes before it reads an extension header.
        if self.type in _EXTENSIONS and self.size > _EXTENSION_BYTES:
            raise BadArchive("the archive makes no sense: an oversized header")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


class _Inflated:
    """The inside of one or several gzip members, as a file to be read from."""

    def __init__(self, packed: Iterable[bytes]) -> None:
        self._packed = iter(packed)
        self._rest = b""
        self._inflate = zlib.decompressobj(wbits=31)

    def read(self, size: int = _BLOCK) -> bytes:
        """Up to so many bytes; none at the end, which is reached only if lengths and checksums are right."""
        while True:
            if self._inflate.eof:
                self._rest = self._inflate.unused_data or next(self._packed, b"")
                if not self._rest.strip(b"\0"):  # zeros may fill up the end, as on a tape
                    return b""
                self._inflate = zlib.decompressobj(wbits=31)
            packed = self._inflate.unconsumed_tail or self._rest or next(self._packed, b"")
            self._rest = b""
            if not packed:
                raise BadArchive("the archive is cut short")
            try:
                data = self._inflate.decompress(packed, max(1, size))
            except zlib.error as failure:
                raise BadArchive(f"the archive is no sound gzip: {failure}") from None
            if data:
                return data

    def drain(self) -> None:
        """Read on to the end, which proves the whole."""
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
    except _SENSELESS as failure:
        raise BadArchive(f"the archive makes no sense: {failure}") from None
    if left:
        raise BadArchive("the archive is cut short")
