"""Extracts archives as strictly as the service: only inside the folder, and only intact ones.

It streams, in one pass in bounded memory, so that an error near the end leaves the earlier members in place. That is
the harder behaviour for a client, which must work with it.

It is as strict as GNU tar: a directory that is not empty is never replaced, nor is a file in the place of a parent
directory. Such a member is skipped, the rest is extracted, and the extraction counts as failed.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zlib
from typing import BinaryIO, cast

READ_BYTES = 256 * 1024
_PACKED_BYTES = 16 * 1024  # what is not inflated yet is copied at each read
_LARGEST_HEADER_BYTES = 1024 * 1024
_UMASK = 0o022  # reading the process's own would change it for other threads


class ArchiveRefused(Exception):
    """The archive is incomplete, corrupt or hostile; the message says which."""


class _Content:
    """The content of one gzip member, read forward. It ends only if length and CRC are right."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._inflate = zlib.decompressobj(wbits=31)
        self._at = 0
        self._header_bytes = 0  # of the next member's

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> None:
        """Skip what is before this position. Raises `tarfile.StreamError` if it was passed."""
        if position < self._at:
            raise tarfile.StreamError("an archive is read forward only")
        while self._at < position and self.data(min(position - self._at, READ_BYTES)):
            pass

    def next_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
        """The next member of an archive that has this content. Raises `ArchiveRefused`, `tarfile.TarError`."""
        self._header_bytes = 0
        return tar.next()

    def read(self, size_bytes: int) -> bytes:
        """So many bytes of a header, for tarfile, which asks for those of a long name at once or in pieces.

        Raises `ArchiveRefused`, also for more than any header needs.
        """
        self._header_bytes += size_bytes
        if self._header_bytes > _LARGEST_HEADER_BYTES:
            raise ArchiveRefused("the archive has an oversized header")
        return self.data(size_bytes)

    def data(self, size_bytes: int) -> bytes:
        """So many bytes, fewer at the end only. Raises `ArchiveRefused`."""
        content = b""
        while len(content) < size_bytes and (data := self._inflated(size_bytes - len(content))):
            content += data
        self._at += len(content)
        return content

    def _inflated(self, at_most_bytes: int) -> bytes:
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._packed.read(_PACKED_BYTES)
            if not packed:
                raise ArchiveRefused("the archive is incomplete")
            try:
                data = self._inflate.decompress(packed, at_most_bytes)
            except zlib.error as error:
                raise ArchiveRefused(f"the archive is not valid gzip: {error}") from error
            if data:
                return data
        # A second member is valid gzip, but stream readers stop or fail at its start, so that tests must find it.
        if self._inflate.unused_data or self._packed.read(1):
            raise ArchiveRefused("the archive has bytes after the gzip member")
        return b""


def extract(packed: BinaryIO, folder: str) -> int:
    """Extract a tar.gz into `folder`, which may hold files, as the `data` filter would. The number of its members.

    Adds and replaces, removes nothing else. ArchiveRefused or OSError: the members before the error stay. Members that
    cannot be extracted are skipped, and ArchiveRefused is raised at the end.
    """
    content = _Content(packed)
    destination = _Destination(folder)
    count = 0
    failed: list[str] = []
    try:
        with tarfile.TarFile(fileobj=cast("BinaryIO", content), errors="surrogateescape") as tar:
            while (member := content.next_member(tar)) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or tarfile keeps every member
                count += 1
                try:
                    destination.extract(member, content)
                except _MemberFailed as failure:
                    failed.append(f"{member.name!r}: {failure}")
            while content.data(READ_BYTES):
                pass
            destination.finish()
    # Odd names and times also raise other errors than tarfile's own.
    except (tarfile.TarError, ValueError, OverflowError, LookupError) as error:
        raise ArchiveRefused(f"the archive is refused: {error}") from error
    if failed:
        raise ArchiveRefused(f"{len(failed)} entries could not be extracted: {failed[0]}")
    return count


class _MemberFailed(Exception):
    """One member cannot be extracted; the others can."""


class _Destination:
    """The folder that members are extracted into. It replaces existing files as GNU tar does, and no others."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._inside = os.path.realpath(folder)
        self._directories = {""}
        self._directory_attributes: dict[str, tuple[int, float]] = {}

    def extract(self, member: tarfile.TarInfo, content: _Content) -> None:
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
            elif member.issym():
                self._make_symlink(name, member)
            elif member.islnk():
                self._make_hard_link(name, member)
            else:
                raise ArchiveRefused(f"the archive is refused: {member.name!r} is a special file")
        except OSError as error:
            raise _MemberFailed(error.strerror or str(error)) from error

    def finish(self) -> None:
        """Set modes and times of directories, which would hinder, or be changed by, the extraction of their files."""
        for name, (mode, mtime) in reversed(self._directory_attributes.items()):
            path = os.path.join(self._folder, name)
            if name in self._directories and not os.path.islink(path):
                os.utime(path, (mtime, mtime))
                os.chmod(path, mode & ~_umask() & 0o777)

    def _write_file(self, name: str, member: tarfile.TarInfo, content: _Content) -> None:
        try:
            descriptor = self._created(name)
        except FileExistsError:
            self._remove_existing(name)
            descriptor = self._created(name)
        try:
            left = member.size
            while left > 0:
                data = memoryview(content.data(min(left, READ_BYTES)))
                if not data:
                    raise tarfile.ReadError("unexpected end of data")
                left -= len(data)
                while data:
                    data = data[os.write(descriptor, data) :]
            os.fchmod(descriptor, _file_mode(member.mode))
            os.utime(descriptor, (member.mtime, member.mtime))
        finally:
            os.close(descriptor)

    def _created(self, name: str) -> int:
        # The way there stays in the folder: `_make_parents` followed it.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(os.path.join(self._folder, name), flags, 0o600)

    def _make_symlink(self, name: str, member: tarfile.TarInfo) -> None:
        self._check_inside(member, os.path.join(self._folder, os.path.dirname(name), member.linkname))
        self._remove_existing(name)
        path = os.path.join(self._folder, name)
        os.symlink(member.linkname, path)
        os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)

    def _make_hard_link(self, name: str, member: tarfile.TarInfo) -> None:
        target = os.path.join(self._folder, member.linkname)
        self._check_inside(member, target)
        if not os.path.lexists(target):
            raise _MemberFailed(f"the link's target {member.linkname!r} does not exist")
        path = os.path.join(self._folder, name)
        if not (os.path.lexists(path) and os.path.samestat(os.lstat(path), os.lstat(target))):
            self._remove_existing(name)
            os.link(target, path, follow_symlinks=False)

    def _check_inside(self, member: tarfile.TarInfo, target: str) -> None:
        try:
            real = os.path.realpath(target)
        except RecursionError:  # up to Python 3.12: more links than the kernel follows, so it leads nowhere
            return
        if os.path.isabs(member.linkname) or not f"{real}/".startswith(f"{self._inside}/"):
            raise ArchiveRefused(f"the archive is refused: {member.name!r} leads out of the folder")

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
            self._directories = {known for known in self._directories if not f"{known}/".startswith(f"{name}/")}


def _file_mode(mode: int) -> int:
    """The mode that the `data` filter gives a file."""
    return mode & (0o755 if mode & 0o100 else 0o644) | 0o600


def _umask() -> int:
    """The permission bits that GNU tar does not set: none if root runs it."""
    return 0 if os.geteuid() == 0 else _UMASK
