"""Unpacks what strangers upload: whole and checked, inside its folder, and never more than was agreed.

Streaming, as the real service's worker would: one pass, bounded memory, so a fault found late leaves what came before
it in place. That is the harsher behaviour for a client, and the one that it must cope with.
"""

from __future__ import annotations

import copy
import os
import shutil
import stat
import tarfile
import zlib
from dataclasses import dataclass
from typing import BinaryIO, cast

READ_BYTES = 256 * 1024
EXTENSION_BYTES = 1024 * 1024
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class BadArchive(Exception):
    """The archive is torn, corrupt, hostile or too large; the message says which."""


@dataclass(frozen=True)
class Bounds:
    """How much one archive may become."""

    total_bytes: int = 16 * 1024**3
    entries: int = 1_000_000


class _Gunzip:
    """The inside of one gzip member as a stream. Its end is reached only if length and CRC are right."""

    def __init__(self, packed: BinaryIO, total_bytes: int) -> None:
        self._packed = packed
        self._inflate = zlib.decompressobj(wbits=31)
        self._left = total_bytes

    def read(self, size: int = READ_BYTES) -> bytes:
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._packed.read(READ_BYTES)
            if not packed:
                raise BadArchive("the archive is cut short")
            try:
                data = self._inflate.decompress(packed, max(1, size))
            except zlib.error as error:
                raise BadArchive(f"the archive is no sound gzip: {error}") from error
            self._left -= len(data)
            if self._left < 0:
                raise BadArchive("the archive is larger inside than is allowed")
            if data:
                return data
        # A second member is legal gzip, but stream readers stop or fail at the joint; better to hear of it here.
        if self._inflate.unused_data or self._packed.read(1):
            raise BadArchive("something follows the gzip member")
        return b""


class _Member(tarfile.TarInfo):
    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # The one place that every Python's tarfile passes (`frombuf` is not: newer ones go around it) before it reads
        # an extension header into memory whole, as long as that claims to be.
        if self.type in _EXTENSIONS and self.size > EXTENSION_BYTES:
            raise BadArchive("the archive has an oversized header")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


def extract(packed: BinaryIO, folder: str, bounds: Bounds) -> int:
    """Unpacks a tar.gz over what is in `folder`, under tarfile's `data` filter; how many entries it had.

    Adds and replaces, removes nothing else; a file takes a directory's place and the reverse. BadArchive or OSError:
    what came before the fault stays.
    """
    stream = _Gunzip(packed, bounds.total_bytes)
    count = 0
    placed = _Places(folder)
    try:
        with tarfile.open(
            fileobj=cast("BinaryIO", stream), mode="r|", tarinfo=_Member, errors="surrogateescape"
        ) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or every entry is remembered to the end
                count += 1
                if count > bounds.entries:
                    raise BadArchive("the archive has more entries than are allowed")
                if member.size > bounds.total_bytes:
                    raise BadArchive("the archive is larger inside than is allowed")
                placed.put(tar, member)
        while stream.read():
            pass
        placed.finish()
    # Beside its own errors tarfile lets through what odd names, times and links to nowhere raise further down.
    except (tarfile.TarError, ValueError, OverflowError, LookupError) as error:
        raise BadArchive(f"the archive is refused: {error}") from error
    return count


def _filtered(member: tarfile.TarInfo, name: str, folder: str) -> tarfile.TarInfo:
    """What the `data` filter does, for links, and for Pythons before 3.11.4 (Debian 12's), which have none.

    Raises `BadArchive`.
    """
    if not (member.isreg() or member.issym() or member.islnk()):
        raise BadArchive(f"the archive is refused: {member.name!r} is a special file")
    if member.issym() or member.islnk():
        start = os.path.join(folder, os.path.dirname(name)) if member.issym() else folder
        inside = os.path.realpath(folder)
        try:
            target = os.path.realpath(os.path.join(start, member.linkname))
        except RecursionError:  # up to Python 3.12: a chain of links that is longer than the kernel follows
            target = inside
        if os.path.isabs(member.linkname) or os.path.commonpath((inside, target)) != inside:
            raise BadArchive(f"the archive is refused: {member.name!r} leads out of the folder")
    kept = copy.copy(member)
    kept.name, kept.uid, kept.gid, kept.uname, kept.gname = name, os.getuid(), os.getgid(), "", ""
    kept.mode = member.mode & (0o755 if member.mode & 0o100 else 0o644) | 0o600
    return kept


class _Places:
    """Where entries go, and what has to make room for them."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._directories = {""}
        self._mtimes: dict[str, float] = {}

    def put(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise BadArchive(f"the archive is refused: {member.name!r} has a '..'")
        if not parts:
            return
        name = "/".join(parts)
        # Room first: what lies there may be a link, through which the filter would look, and tarfile write, elsewhere.
        self._make_directory("/".join(parts[:-1]))
        if member.isdir():
            self._make_directory(name)
            self._mtimes[name] = member.mtime
            return
        self._clear(name)
        if not hasattr(tarfile, "data_filter"):
            tar.extract(_filtered(member, name, self._folder), self._folder)
        elif member.issym():
            # Newer ones refuse a link to a circle of links that is there already, and do not keep the link's text.
            tar.extract(_filtered(member, name, self._folder), self._folder, filter="fully_trusted")
        else:
            tar.extract(member, self._folder, filter="data")

    def finish(self) -> None:
        """Gives directories their times, which filling them has changed."""
        for name, mtime in self._mtimes.items():
            path = os.path.join(self._folder, name)
            if name in self._directories:
                os.utime(path, (mtime, mtime))

    def _make_directory(self, name: str) -> None:
        if name in self._directories:
            return
        parts = name.split("/")
        # From the top down, without recursion: a hostile name has thousands of parts.
        for depth in range(1, len(parts) + 1):
            part = "/".join(parts[:depth])
            if part in self._directories:
                continue
            path = os.path.join(self._folder, part)
            try:
                is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
            except FileNotFoundError:
                os.mkdir(path)
            else:
                if not is_directory:
                    os.unlink(path)
                    os.mkdir(path)
            self._directories.add(part)

    def _clear(self, name: str) -> None:
        path = os.path.join(self._folder, name)
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            shutil.rmtree(path)
            self._directories = {known for known in self._directories if not f"{known}/".startswith(f"{name}/")}
        else:
            os.unlink(path)
