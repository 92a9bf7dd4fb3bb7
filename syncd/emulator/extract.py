"""Extracts untrusted archives: only inside the folder, only intact ones, and only up to a limit.

It streams, as the real service does: one pass in bounded memory, so that an error near the end leaves the earlier
members in place. That is the harder behaviour for a client, which must work with it.

It is as strict as GNU tar: a directory that is not empty is never replaced, nor is a file in the place of a parent
directory. Such a member is skipped, the rest is extracted, and the extraction counts as failed.
"""

from __future__ import annotations

import copy
import os
import stat
import tarfile
import zlib
from dataclasses import dataclass
from enum import StrEnum
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


class ExtractedMtimes(StrEnum):
    """The mtimes that extracted files and directories get."""

    OF_ARCHIVE = "of the archive"
    OF_EXTRACTION = "of extraction"


class ArchiveRefused(Exception):
    """The archive is incomplete, corrupt, hostile or too large; the message says which."""


@dataclass(frozen=True)
class Bounds:
    """The limits of one archive's content."""

    total_bytes: int = 16 * 1024**3
    entries: int = 1_000_000


class _Gunzip:
    """The content of one gzip member as a stream. Its end is reached only if length and CRC are right."""

    def __init__(self, packed: BinaryIO, total_bytes: int) -> None:
        self._packed = packed
        self._inflate = zlib.decompressobj(wbits=31)
        self._left = total_bytes

    def read(self, size: int = READ_BYTES) -> bytes:
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._packed.read(READ_BYTES)
            if not packed:
                raise ArchiveRefused("the archive is incomplete")
            try:
                data = self._inflate.decompress(packed, max(1, size))
            except zlib.error as error:
                raise ArchiveRefused(f"the archive is not valid gzip: {error}") from error
            self._left -= len(data)
            if self._left < 0:
                raise ArchiveRefused("the archive's content is larger than allowed")
            if data:
                return data
        # A second member is valid gzip, but stream readers stop or fail at its start, so that tests must find it.
        if self._inflate.unused_data or self._packed.read(1):
            raise ArchiveRefused("the archive has bytes after the gzip member")
        return b""


class _Member(tarfile.TarInfo):
    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # Every Python's tarfile calls this (newer ones do not call `frombuf`) before it reads an extension header into
        # memory, whose length the archive decides.
        if self.type in _EXTENSIONS and self.size > EXTENSION_BYTES:
            raise ArchiveRefused("the archive has an oversized header")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


def extract(packed: BinaryIO, folder: str, bounds: Bounds, mtimes: ExtractedMtimes = ExtractedMtimes.OF_ARCHIVE) -> int:
    """Extract a tar.gz into `folder`, which may hold files, with tarfile's `data` filter. The number of its members.

    Adds and replaces, removes nothing else. ArchiveRefused or OSError: the members before the error stay. Members that
    cannot be extracted are skipped, and ArchiveRefused is raised at the end.
    """
    stream = _Gunzip(packed, bounds.total_bytes)
    count = 0
    destination = _Destination(folder, mtimes)
    failed: list[str] = []
    try:
        with tarfile.open(
            fileobj=cast("BinaryIO", stream), mode="r|", tarinfo=_Member, errors="surrogateescape"
        ) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or tarfile keeps every member
                count += 1
                if count > bounds.entries:
                    raise ArchiveRefused("the archive has more entries than allowed")
                if member.size > bounds.total_bytes:
                    raise ArchiveRefused("the archive's content is larger than allowed")
                try:
                    destination.extract(tar, member)
                except _MemberFailed as failure:
                    failed.append(f"{member.name!r}: {failure}")
        while stream.read():
            pass
        destination.finish()
    # Odd names, times and dangling links also raise other errors than tarfile's own.
    except (tarfile.TarError, ValueError, OverflowError, LookupError) as error:
        raise ArchiveRefused(f"the archive is refused: {error}") from error
    if failed:
        raise ArchiveRefused(f"{len(failed)} entries could not be extracted: {failed[0]}")
    return count


def _checked_copy(member: tarfile.TarInfo, name: str, folder: str) -> tarfile.TarInfo:
    """A copy of the member, checked as by the `data` filter, which Python before 3.11.4 (Debian 12's) does not have.

    Raises `ArchiveRefused`.
    """
    if not (member.isreg() or member.issym() or member.islnk()):
        raise ArchiveRefused(f"the archive is refused: {member.name!r} is a special file")
    if member.issym() or member.islnk():
        start = os.path.join(folder, os.path.dirname(name)) if member.issym() else folder
        inside = os.path.realpath(folder)
        try:
            target = os.path.realpath(os.path.join(start, member.linkname))
        except RecursionError:  # up to Python 3.12: more links than the kernel follows
            target = inside
        if os.path.isabs(member.linkname) or os.path.commonpath((inside, target)) != inside:
            raise ArchiveRefused(f"the archive is refused: {member.name!r} leads out of the folder")
    checked = copy.copy(member)
    checked.name, checked.uid, checked.gid, checked.uname, checked.gname = name, os.getuid(), os.getgid(), "", ""
    checked.mode = member.mode & (0o755 if member.mode & 0o100 else 0o644) | 0o600
    return checked


class _MemberFailed(Exception):
    """One member cannot be extracted; the others can."""


class _Destination:
    """The folder that members are extracted into. It replaces existing files as GNU tar does, and no others."""

    def __init__(self, folder: str, mtimes: ExtractedMtimes) -> None:
        self._folder = folder
        self._mtimes = mtimes
        self._inside = os.path.realpath(folder)
        self._directories = {""}
        self._directory_attributes: dict[str, tuple[int, float]] = {}

    def extract(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Extract one member. Raises `ArchiveRefused` for a hostile one, else `_MemberFailed`."""
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
            elif not (member.islnk() and self._is_linked(name, member)):
                self._extract_other(tar, member, name)
        except OSError as error:
            raise _MemberFailed(error.strerror or str(error)) from error

    def finish(self) -> None:
        """Set modes and times of directories, which would hinder, or be changed by, the extraction of their files."""
        for name, (mode, mtime) in reversed(self._directory_attributes.items()):
            path = os.path.join(self._folder, name)
            if name in self._directories and not os.path.islink(path):
                os.utime(path, (mtime, mtime) if self._mtimes is ExtractedMtimes.OF_ARCHIVE else None)
                os.chmod(path, mode & ~_umask() & 0o777)

    def _extract_other(self, tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
        self._remove_existing(name)
        if not hasattr(tarfile, "data_filter"):
            tar.extract(_checked_copy(member, name, self._folder), self._folder)
        elif member.issym():
            # Newer filters refuse a link to an existing circle of links, and change the link's text.
            tar.extract(_checked_copy(member, name, self._folder), self._folder, filter="fully_trusted")
        else:
            tar.extract(member, self._folder, filter="data")
        if self._mtimes is ExtractedMtimes.OF_EXTRACTION:
            os.utime(os.path.join(self._folder, name), follow_symlinks=False)

    def _is_linked(self, name: str, member: tarfile.TarInfo) -> bool:
        """True if the hard link exists already. Raises `_MemberFailed` if its target does not exist."""
        target = os.path.join(self._folder, member.linkname)
        if not os.path.realpath(target).startswith(self._inside + os.sep):
            raise ArchiveRefused(f"the archive is refused: {member.name!r} leads out of the folder")
        if not os.path.lexists(target):
            raise _MemberFailed(f"the link's target {member.linkname!r} does not exist")
        path = os.path.join(self._folder, name)
        return os.path.lexists(path) and os.path.samestat(os.lstat(path), os.lstat(target))

    def _make_parents(self, components: list[str]) -> None:
        # Without recursion: a hostile name has thousands of components.
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
            # GNU tar follows a link here; one that leads out of the folder is not followed.
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
            self._remove_existing(name)
            os.mkdir(path)
        self._directories.add(name)
        self._directory_attributes[name] = member.mode, member.mtime

    def _remove_existing(self, name: str) -> None:
        """Remove a file, a link or an empty directory of that name. Raises `OSError`."""
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
    """The permission bits that GNU tar does not set: none if root runs it."""
    return 0 if os.geteuid() == 0 else _UMASK
