"""Extracts archives as strictly as the service: only inside the folder, and only intact ones.

It streams, in one pass in bounded memory, so that an error near the end leaves the earlier members in place. That is
the harder behaviour for a client, which must work with it.

It is as strict as GNU tar: a directory that is not empty is never replaced, nor is a file in the place of a parent
directory. Such a member is skipped, the rest is extracted, and the extraction counts as failed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import BinaryIO

from syncd.archive.extraction import BadArchive, Member, MemberKind, inner_path, members
from syncd.core import safe_open

_READ_BYTES = 256 * 1024
_UMASK = 0o022  # reading the process's own would change it for other threads


class ArchiveRefused(Exception):
    """The archive is incomplete, corrupt or hostile; the message says which."""


def extract(packed: BinaryIO, folder: str) -> None:
    """Extract a tar.gz into `folder`, which may hold files, as the `data` filter would.

    Adds and replaces, removes nothing else. ArchiveRefused or OSError: the members before the error stay. Members that
    cannot be extracted are skipped, and ArchiveRefused is raised at the end.
    """
    destination = _Destination(folder)
    failed: list[str] = []
    try:
        for member, content in members(iter(lambda: packed.read(_READ_BYTES), b"")):
            try:
                destination.extract(member, content)
            except _MemberFailed as failure:
                failed.append(f"{member.name!r}: {failure}")
        destination.finish()
    # Odd names and times also raise other errors.
    except (BadArchive, ValueError, OverflowError) as error:
        raise ArchiveRefused(f"the archive is refused: {error}") from error
    if failed:
        raise ArchiveRefused(f"{len(failed)} entries could not be extracted: {failed[0]}")


class _MemberFailed(Exception):
    """One member cannot be extracted; the others can."""


class _Destination:
    """The folder that members are extracted into. It replaces existing files as GNU tar does, and no others."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._inside = os.path.realpath(folder)
        self._directories = {""}
        self._directory_attributes: dict[str, tuple[int, float]] = {}

    def extract(self, member: Member, content: Iterable[bytes]) -> None:
        """Extract one member. Raises `ArchiveRefused` for a hostile one, else `_MemberFailed`."""
        name = inner_path(member.name)
        if name is None:
            raise ArchiveRefused(f"the archive is refused: {member.name!r} is no path in the folder")
        if not name:
            return
        self._make_parents(name.split("/")[:-1])
        try:
            if member.kind is MemberKind.DIRECTORY:
                self._make_directory(name, member)
            elif member.kind is MemberKind.FILE:
                self._write_file(name, member, content)
            elif member.kind is MemberKind.SYMLINK:
                self._make_symlink(name, member)
            elif member.kind is MemberKind.HARD_LINK:
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

    def _write_file(self, name: str, member: Member, content: Iterable[bytes]) -> None:
        try:
            descriptor = self._created(name)
        except FileExistsError:
            self._remove_existing(name)
            descriptor = self._created(name)
        try:
            for block in content:
                safe_open.write_all(descriptor, block)
            os.fchmod(descriptor, _file_mode(member.mode))
            os.utime(descriptor, (member.mtime_s, member.mtime_s))
        finally:
            os.close(descriptor)

    def _created(self, name: str) -> int:
        # The way there stays in the folder: `_make_parents` followed it.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(os.path.join(self._folder, name), flags, 0o600)

    def _make_symlink(self, name: str, member: Member) -> None:
        self._check_inside(member, os.path.join(self._folder, os.path.dirname(name), member.target))
        self._remove_existing(name)
        path = os.path.join(self._folder, name)
        os.symlink(member.target, path)
        os.utime(path, (member.mtime_s, member.mtime_s), follow_symlinks=False)

    def _make_hard_link(self, name: str, member: Member) -> None:
        target = os.path.join(self._folder, member.target)
        self._check_inside(member, target)
        if not os.path.lexists(target):
            raise _MemberFailed(f"the link's target {member.target!r} does not exist")
        path = os.path.join(self._folder, name)
        if not (os.path.lexists(path) and os.path.samestat(os.lstat(path), os.lstat(target))):
            self._remove_existing(name)
            os.link(target, path, follow_symlinks=False)

    def _check_inside(self, member: Member, target: str) -> None:
        try:
            real = os.path.realpath(target)
        except RecursionError:  # up to Python 3.12: more links than the kernel follows, so it leads nowhere
            return
        if os.path.isabs(member.target) or not f"{real}/".startswith(f"{self._inside}/"):
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

    def _make_directory(self, name: str, member: Member) -> None:
        path = os.path.join(self._folder, name)
        if not os.path.lexists(path):
            os.mkdir(path)
        elif os.path.islink(path) or not os.path.isdir(path):
            self._remove_existing(name)
            os.mkdir(path)
        self._directories.add(name)
        self._directory_attributes[name] = member.mode, member.mtime_s

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
