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
from contextlib import suppress
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
    os.makedirs(folder, exist_ok=True)  # a program there may have removed it
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
        self._parent = ""  # of the last member: most have the same
        self._directories: dict[str, Member] = {}

    def extract(self, member: Member, content: Iterable[bytes]) -> None:
        """Extract one member. Raises `ArchiveRefused` for a hostile one, else `_MemberFailed`."""
        name = inner_path(member.name)
        if name is None:
            raise ArchiveRefused(f"the archive is refused: {member.name!r} is no path in the folder")
        if not name:
            return
        path = os.path.join(self._folder, name)
        try:
            self._make_parent(name.rpartition("/")[0])
            if member.kind is MemberKind.DIRECTORY:
                self._directories[path] = member
                if os.path.islink(path) or not os.path.isdir(path):
                    _remove_existing(path)
                    os.mkdir(path)
            elif member.kind is MemberKind.FILE:
                _write_file(path, member, content)
            elif member.kind is MemberKind.SYMLINK:
                self._check_inside(member, os.path.join(os.path.dirname(path), member.target))
                _remove_existing(path)
                os.symlink(member.target, path)
                os.utime(path, (member.mtime_s, member.mtime_s), follow_symlinks=False)
            elif member.kind is MemberKind.HARD_LINK:
                self._make_hard_link(path, member)
            else:
                raise ArchiveRefused(f"the archive is refused: {member.name!r} is a special file")
        except OSError as error:
            raise _MemberFailed(error.strerror or str(error)) from error

    def finish(self) -> None:
        """Set modes and times of directories, which would hinder, or be changed by, the extraction of their files."""
        umask = 0 if os.geteuid() == 0 else _UMASK  # as GNU tar does
        for path, member in reversed(self._directories.items()):
            if os.path.isdir(path) and not os.path.islink(path):
                os.utime(path, (member.mtime_s, member.mtime_s))
                os.chmod(path, member.mode & ~umask & 0o777)

    def _make_parent(self, name: str) -> None:
        """Make the directory that a member is in. GNU tar follows links there; those that lead out are not followed."""
        if name == self._parent:
            return
        path = self._folder
        for component in name.split("/"):  # without recursion: a hostile name has thousands
            path = os.path.join(path, component)
            if os.path.islink(path) and not self._is_inside(path):
                shown = os.path.relpath(path, self._folder)
                raise _MemberFailed(f"{shown!r} is a link that leads out of the folder")
            with suppress(FileExistsError):
                os.mkdir(path)
        self._parent = name

    def _make_hard_link(self, path: str, member: Member) -> None:
        target = os.path.join(self._folder, member.target)
        self._check_inside(member, target)
        if not os.path.lexists(target):
            raise _MemberFailed(f"the link's target {member.target!r} does not exist")
        if not (os.path.lexists(path) and os.path.samestat(os.lstat(path), os.lstat(target))):
            _remove_existing(path)
            os.link(target, path, follow_symlinks=False)

    def _check_inside(self, member: Member, target: str) -> None:
        if os.path.isabs(member.target) or not self._is_inside(target):
            raise ArchiveRefused(f"the archive is refused: {member.name!r} leads out of the folder")

    def _is_inside(self, path: str) -> bool:
        try:
            return f"{os.path.realpath(path)}/".startswith(f"{self._inside}/")
        except RecursionError:  # up to Python 3.12: more links than the kernel follows, so it leads nowhere
            return True


def _write_file(path: str, member: Member, content: Iterable[bytes]) -> None:
    _remove_existing(path)
    # The way there stays in the folder: `_make_parent` followed it.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        for block in content:
            safe_open.write_all(descriptor, block)
        # As the `data` filter gives it.
        os.fchmod(descriptor, member.mode & (0o755 if member.mode & 0o100 else 0o644) | 0o600)
        os.utime(descriptor, (member.mtime_s, member.mtime_s))
    finally:
        os.close(descriptor)


def _remove_existing(path: str) -> None:
    """Remove a file, a link or an empty directory, if there is one. Raises `OSError`."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            os.rmdir(path)
        else:
            os.unlink(path)
