"""Unpacks what strangers upload: whole and checked, inside its folder, and never more than was agreed.

Streaming, as the real service's worker would: one pass, bounded memory, so a fault found late leaves what came before
it in place. That is the harsher behaviour for a client, and the one that it must cope with.

It is as strict as GNU tar: a directory with something in it gives way to nothing, and neither does what has a parent's
name. Such a member is left out, the rest is unpacked, and the whole counts as failed.
"""

from __future__ import annotations

import copy
import os
import stat
import tarfile
import zlib
from dataclasses import dataclass
from typing import BinaryIO, cast

READ_BYTES = 256 * 1024
EXTENSION_BYTES = 1024 * 1024
_UMASK = 0o022  # reading the process's own would change it for other threads
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class ArchiveRefused(Exception):
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
                raise ArchiveRefused("the archive is cut short")
            try:
                data = self._inflate.decompress(packed, max(1, size))
            except zlib.error as error:
                raise ArchiveRefused(f"the archive is no sound gzip: {error}") from error
            self._left -= len(data)
            if self._left < 0:
                raise ArchiveRefused("the archive is larger inside than is allowed")
            if data:
                return data
        # A second member is legal gzip, but stream readers stop or fail at the joint; better to hear of it here.
        if self._inflate.unused_data or self._packed.read(1):
            raise ArchiveRefused("something follows the gzip member")
        return b""


class _Member(tarfile.TarInfo):
    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # The one place that every Python's tarfile passes (`frombuf` is not: newer ones go around it) before it reads
        # an extension header into memory whole, as long as that claims to be.
        if self.type in _EXTENSIONS and self.size > EXTENSION_BYTES:
            raise ArchiveRefused("the archive has an oversized header")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


def extract(packed: BinaryIO, folder: str, bounds: Bounds) -> int:
    """Unpacks a tar.gz over what is in `folder`, under tarfile's `data` filter; how many entries it had.

    Adds and replaces, removes nothing else. BadArchive or OSError: what came before the fault stays. Members that
    cannot be put where they belong are left out, and lead to it at the end.
    """
    stream = _Gunzip(packed, bounds.total_bytes)
    count = 0
    placed = _Places(folder)
    failed: list[str] = []
    try:
        with tarfile.open(
            fileobj=cast("BinaryIO", stream), mode="r|", tarinfo=_Member, errors="surrogateescape"
        ) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or every entry is remembered to the end
                count += 1
                if count > bounds.entries:
                    raise ArchiveRefused("the archive has more entries than are allowed")
                if member.size > bounds.total_bytes:
                    raise ArchiveRefused("the archive is larger inside than is allowed")
                try:
                    placed.put(tar, member)
                except _MemberFailed as failure:
                    failed.append(f"{member.name!r}: {failure}")
        while stream.read():
            pass
        placed.finish()
    # Beside its own errors tarfile lets through what odd names, times and links to nowhere raise further down.
    except (tarfile.TarError, ValueError, OverflowError, LookupError) as error:
        raise ArchiveRefused(f"the archive is refused: {error}") from error
    if failed:
        raise ArchiveRefused(f"{len(failed)} entries could not be extracted: {failed[0]}")
    return count


def _filtered(member: tarfile.TarInfo, name: str, folder: str) -> tarfile.TarInfo:
    """What the `data` filter does, for links, and for Pythons before 3.11.4 (Debian 12's), which have none.

    Raises `ArchiveRefused`.
    """
    if not (member.isreg() or member.issym() or member.islnk()):
        raise ArchiveRefused(f"the archive is refused: {member.name!r} is a special file")
    if member.issym() or member.islnk():
        start = os.path.join(folder, os.path.dirname(name)) if member.issym() else folder
        inside = os.path.realpath(folder)
        try:
            target = os.path.realpath(os.path.join(start, member.linkname))
        except RecursionError:  # up to Python 3.12: a chain of links that is longer than the kernel follows
            target = inside
        if os.path.isabs(member.linkname) or os.path.commonpath((inside, target)) != inside:
            raise ArchiveRefused(f"the archive is refused: {member.name!r} leads out of the folder")
    kept = copy.copy(member)
    kept.name, kept.uid, kept.gid, kept.uname, kept.gname = name, os.getuid(), os.getgid(), "", ""
    kept.mode = member.mode & (0o755 if member.mode & 0o100 else 0o644) | 0o600
    return kept


class _MemberFailed(Exception):
    """One member cannot be put there; the others can."""


class _Places:
    """Where entries go, and what has to make room for them: what GNU tar makes room of, and no more."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._inside = os.path.realpath(folder)
        self._directories = {""}
        self._delayed: dict[str, tuple[int, float]] = {}

    def put(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Put the member in its place. Raises `ArchiveRefused` for a hostile one, `_MemberFailed`."""
        components = [part for part in member.name.split("/") if part not in ("", ".")]
        if ".." in components:
            raise ArchiveRefused(f"the archive is refused: {member.name!r} has a '..'")
        if not components:
            return
        name = "/".join(components)
        self._make_parents(components[:-1])
        try:
            if member.isdir():
                self._make_directory(name, member)
            elif not (member.islnk() and self._is_its_target(name, member)):
                self._put_other(tar, member, name)
        except OSError as error:
            raise _MemberFailed(error.strerror or str(error)) from error

    def finish(self) -> None:
        """Gives directories their modes and times, which would have hindered, or been changed by, filling them."""
        for name, (mode, mtime) in reversed(self._delayed.items()):
            path = os.path.join(self._folder, name)
            if name in self._directories and not os.path.islink(path):
                os.utime(path, (mtime, mtime))
                os.chmod(path, mode & ~_umask() & 0o777)

    def _put_other(self, tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
        self._clear(name)
        if not hasattr(tarfile, "data_filter"):
            tar.extract(_filtered(member, name, self._folder), self._folder)
        elif member.issym():
            # Newer ones refuse a link to a circle of links that is there already, and do not keep the link's text.
            tar.extract(_filtered(member, name, self._folder), self._folder, filter="fully_trusted")
        else:
            tar.extract(member, self._folder, filter="data")

    def _is_its_target(self, name: str, member: tarfile.TarInfo) -> bool:
        """Whether the hard link is there already. Raises `_MemberFailed` where there is nothing to link to."""
        target = os.path.join(self._folder, member.linkname)
        if not os.path.realpath(target).startswith(self._inside + os.sep):
            raise ArchiveRefused(f"the archive is refused: {member.name!r} leads out of the folder")
        if not os.path.lexists(target):
            raise _MemberFailed(f"there is no {member.linkname!r} to link to")
        path = os.path.join(self._folder, name)
        return os.path.lexists(path) and os.path.samestat(os.lstat(path), os.lstat(target))

    def _make_parents(self, components: list[str]) -> None:
        # From the top down, without recursion: a hostile name has thousands of parts.
        for depth in range(1, len(components) + 1):
            name = "/".join(components[:depth])
            if name in self._directories:
                continue
            path = os.path.join(self._folder, name)
            try:
                if not os.path.lexists(path):
                    os.mkdir(path)
                mode = os.lstat(path).st_mode
            except OSError as error:
                raise _MemberFailed(error.strerror or str(error)) from error
            # GNU tar follows a link here. What leads out of the folder is not followed, whatever tar would do.
            real = os.path.realpath(path)
            if stat.S_ISLNK(mode) and not f"{real}/".startswith(f"{self._inside}/"):
                raise _MemberFailed(f"{name!r} is a link that leads out of the folder")
            if not os.path.isdir(real):
                raise _MemberFailed(f"{name!r} is no directory")
            self._directories.add(name)

    def _make_directory(self, name: str, member: tarfile.TarInfo) -> None:
        path = os.path.join(self._folder, name)
        if not os.path.lexists(path):
            os.mkdir(path)
        elif os.path.islink(path) or not os.path.isdir(path):
            self._clear(name)
            os.mkdir(path)
        self._directories.add(name)
        self._delayed[name] = member.mode, member.mtime

    def _clear(self, name: str) -> None:
        """Remove what has the name: anything but a directory with something in it. Raises `OSError`."""
        path = os.path.join(self._folder, name)
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            os.rmdir(path)
        else:
            os.unlink(path)
        self._directories = {known for known in self._directories if not f"{known}/".startswith(f"{name}/")}


def _umask() -> int:
    """What GNU tar takes away: nothing where root runs it."""
    return 0 if os.geteuid() == 0 else _UMASK
