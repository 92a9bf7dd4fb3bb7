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
from contextlib import closing
from enum import StrEnum
from typing import BinaryIO, cast

from msgspec import Struct

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


class Bounds(Struct, frozen=True):
    """The limits of one archive's content."""

    total_bytes: int = 16 * 1024**3
    entries: int = 10_000_000


class _Gunzip:
    """The content of one gzip member, as a file that is read forward. It ends only if length and CRC are right.

    tarfile's own stream copies what is left of its buffer at each read, of which there are two for a small file.
    """

    def __init__(self, packed: BinaryIO, total_bytes: int) -> None:
        self._packed = packed
        self._inflate = zlib.decompressobj(wbits=31)
        self._left = total_bytes
        self._buffer = b""
        self._at = 0  # in the buffer
        self._passed = 0  # bytes before the buffer

    def read(self, size: int = READ_BYTES) -> bytes:
        """Return so many bytes; fewer at the end only. Raises `ArchiveRefused`."""
        end = self._at + size
        if end > len(self._buffer):
            return self._read_on(size)
        data = self._buffer[self._at : end]
        self._at = end
        return data

    def tell(self) -> int:
        return self._passed + self._at

    def seek(self, position: int) -> None:
        """Skip what is before this position. Raises `tarfile.StreamError` if it was passed."""
        left = position - self.tell()
        if left < 0:
            raise tarfile.StreamError("an archive is read forward only")
        while left > 0 and (skipped := self.read(min(left, READ_BYTES))):
            left -= len(skipped)

    def _read_on(self, size: int) -> bytes:
        parts = [self._buffer[self._at :]]
        missing = size - len(parts[0])
        self._passed += len(self._buffer)
        self._buffer, self._at = b"", 0
        while missing > 0 and (data := self._inflated()):
            if len(data) > missing:
                self._buffer, self._at = data, missing
            parts.append(data[:missing])
            missing -= len(parts[-1])
            if not self._buffer:
                self._passed += len(data)
        return b"".join(parts)

    def _inflated(self) -> bytes:
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._packed.read(READ_BYTES)
            if not packed:
                raise ArchiveRefused("the archive is incomplete")
            try:
                data = self._inflate.decompress(packed, READ_BYTES)
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
        with (
            closing(destination),
            tarfile.TarFile(fileobj=cast("BinaryIO", stream), tarinfo=_Member, errors="surrogateescape") as tar,
        ):
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or tarfile keeps every member
                count += 1
                if count > bounds.entries:
                    raise ArchiveRefused("the archive has more entries than allowed")
                if member.size > bounds.total_bytes:
                    raise ArchiveRefused("the archive's content is larger than allowed")
                try:
                    destination.extract(tar, member, stream)
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
    checked.mode = _file_mode(member.mode)
    return checked


def _file_mode(mode: int) -> int:
    """The mode that the `data` filter gives a file."""
    return mode & (0o755 if mode & 0o100 else 0o644) | 0o600


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
        self._open: tuple[str, int] | None = None  # the directory of the last file, which mostly is the next one's

    def extract(self, tar: tarfile.TarFile, member: tarfile.TarInfo, content: _Gunzip) -> None:
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
            elif member.isreg() and not member.issparse():
                self._write_file(name, member, content)
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

    def _write_file(self, name: str, member: tarfile.TarInfo, content: _Gunzip) -> None:
        """Write a regular file as the `data` filter has it: a new one, in a directory that is in the folder."""
        try:
            descriptor = self._created(name)
        except FileExistsError:
            self._remove_existing(name)
            descriptor = self._created(name)
        try:
            left = member.size
            while left > 0:
                data = memoryview(content.read(min(left, READ_BYTES)))
                if not data:
                    raise tarfile.ReadError("unexpected end of data")
                left -= len(data)
                while data:
                    data = data[os.write(descriptor, data) :]
            os.fchmod(descriptor, _file_mode(member.mode))
            if self._mtimes is ExtractedMtimes.OF_ARCHIVE:
                os.utime(descriptor, (member.mtime, member.mtime))
        finally:
            os.close(descriptor)

    def _created(self, name: str) -> int:
        parent, _, name = name.rpartition("/")
        if self._open is None or self._open[0] != parent:
            self.close()
            # Where the way there was a link, `_make_parents` found that it stays in the folder.
            path = os.path.realpath(os.path.join(self._folder, parent))
            self._open = parent, os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=self._open[1])

    def close(self) -> None:
        """Close the directory that is open."""
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

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
        if "/".join(components) in self._directories:
            return
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
        if name in self._directories:  # else there is none below it either
            self.close()
            self._directories = {known for known in self._directories if not f"{known}/".startswith(f"{name}/")}


def _umask() -> int:
    """The permission bits that GNU tar does not set: none if root runs it."""
    return 0 if os.geteuid() == 0 else _UMASK
