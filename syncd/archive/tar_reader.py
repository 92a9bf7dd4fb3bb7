"""Reads a `tar.gz` of another program as a stream: in one pass, in bounded memory, trusting none of its values.

Python's tarfile reads the headers. This module adds what tarfile does not: what is read into memory for one member is
limited, and every error is a `BadArchive`. A member whose name is too long costs no more than its bytes.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any, BinaryIO, cast

from msgspec import Struct

# No system call takes a longer path (PATH_MAX in linux/limits.h).
LONGEST_PATH = 4095
_BLOCK = 1 << 18
_EXTENSION_BYTES = 1 << 20  # of one extension header; a longer one is skipped
_HEADER_BYTES = 4 << 20  # of all headers of one member
_PADDED = 512
# Deflate expands no more than that; a sparse member that does holds nothing but a size.
_MOST_EXPANDED = 1032
_SHOWN = 200  # of a name that is too long
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


class Member(Struct, frozen=True):
    """One entry, with the values of its header: `name` and `target` are not checked, but not much longer than a path.

    The name of one that is too long is its beginning, and a zero byte, which no path has.
    """

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
            headers: Any = tar.pax_headers  # that count for all members
            file: Any = tar.fileobj
            while (info := tar.next()) is not None:
                stream.header_bytes = None
                tar.members.clear()  # type: ignore[attr-defined]  # else every header stays in memory
                headers.clear()
                yield _member(tar, info), _content(tar, info)
                if file.tell() < tar.offset:
                    file.seek(tar.offset - 1)
                stream.header_bytes = _HEADER_BYTES
        stream.drain()
    except _INVALID as failure:
        raise BadArchive(f"the archive is not a valid tar file: {failure}") from None


def inner_path(name: str) -> str | None:
    """The path, "" for the folder itself; None if the name is absolute, leads outside, or is no valid name.

    One that is too long is none: its folders, each with its path, would take the square of its length.

    Some archives have a leading `./`, and a slash after the names of directories.
    """
    if len(name) > LONGEST_PATH or name.startswith("/") or "\0" in name:
        return None
    components = [part for part in name.split("/") if part not in ("", ".")]
    return None if ".." in components else "/".join(components)


def is_within(path: str | None, folder: str) -> bool:
    """Return True if the path is the folder, or is below it; no path is within an empty one."""
    return bool(folder) and path is not None and (path == folder or path.startswith(folder + "/"))


class _LimitedTarInfo(tarfile.TarInfo):
    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # In all supported versions of Python, tarfile calls this before it reads an extension header.
        if self.type not in _EXTENSIONS or self.size <= _EXTENSION_BYTES:
            return super()._proc_member(archive)  # type: ignore[misc,no-any-return]
        stream: Any = archive.fileobj
        stream.fileobj.skipped(self.size)
        stream.seek(stream.tell() + -(-self.size // _PADDED) * _PADDED)
        member = self.fromtarfile(archive)
        member.offset = self.offset
        member.name = f"{member.name[:_SHOWN]}\0"
        return member


class _GunzippedStream:
    """The content of one or several gzip members, as a readable file."""

    def __init__(self, packed: Iterable[bytes]) -> None:
        self._packed = iter(packed)
        self._rest = b""
        self._inflate = zlib.decompressobj(wbits=31)
        self.header_bytes: int | None = _HEADER_BYTES  # what the headers of the next member may take, if they are read

    def skipped(self, size: int) -> None:
        """Let so many bytes more be read for the headers of the next member, as they are not kept."""
        if self.header_bytes is not None:
            self.header_bytes += size + _BLOCK

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
                if self.header_bytes is not None:
                    self.header_bytes -= len(data)
                    if self.header_bytes < 0:
                        raise BadArchive("the archive is not a valid tar file: an oversized header")
                return data

    def drain(self) -> None:
        """Read to the end, which verifies the checksums."""
        while self.read():
            pass


def _member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    packed_bytes = tar.offset - info.offset_data
    if info.issym():
        kind = MemberKind.SYMLINK
    elif info.islnk():
        kind = MemberKind.HARD_LINK
    elif info.isdir():
        kind = MemberKind.DIRECTORY
    elif not info.isreg() or (info.sparse is not None and info.size > _MOST_EXPANDED * (packed_bytes + _PADDED)):
        kind = MemberKind.OTHER
    else:
        kind = MemberKind.FILE
    name = info.name if len(info.name) <= LONGEST_PATH else f"{info.name[:_SHOWN]}\0"
    return Member(name, kind, info.mode & 0o777, info.mtime, info.size, info.linkname[: LONGEST_PATH + 1])


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
