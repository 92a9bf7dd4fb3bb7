"""Extracts an archive of another program, or other foreign files, into a new folder, safely whatever they are.

A folder draft the destination is filled and renamed at the end, so that the destination gets all or nothing. Every
file is created through its directory's descriptor, and symbolic links are created last, so that no member can be
written through one. Members that cannot be extracted are left out and reported.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable

from msgspec import Struct, field

from syncd.archive.tar_reader import Member, MemberKind, inner_path, is_within, members
from syncd.core.errors import NeedsPerson, TryLater
from syncd.core.text import shown_path
from syncd.model.symlinks import leads_out, stays_inside
from syncd.selection import safe_open

# So much space stays free on the disk: an archive of a few MB can hold TBs of zeros.
_SPARE_BYTES = 256 << 20
_CHECK_EVERY_BYTES = 16 << 20
_MOST_NAMED, _LONGEST_SHOWN = 10_000, 400  # members that are left out
# Python's own functions that walk through folders call themselves for each one, and open it.
_DEEPEST = 500
# What is kept in memory until the end: links, and the modes and times of folders. Each takes some objects.
_MOST_KEPT_BYTES, _OBJECT_BYTES = 40 << 20, 500
# Errors of the disk, not of one member.
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})


class Extracted(Struct):
    """The result of an extraction. `left_out` are members that were not extracted, each with the reason.

    `unnamed` counts others of these, which are too many to be kept.
    """

    files: int = 0
    content_bytes: int = 0
    left_out: list[str] = field(default_factory=list)
    unnamed: int = 0


def extract(packed: Iterable[bytes], destination: str, check: Callable[[], None], passed_over: str = "") -> Extracted:
    """Extract the archive, but for the folder `passed_over`, into a folder that is new or empty.

    Raises `NeedsPerson` if it is neither, `TryLater` if the disk has no room, `BadArchive`, and the exceptions of
    `packed` and `check`; then nothing stays on the disk.
    """
    found = (each for each in members(packed) if not is_within(inner_path(each[0].name), passed_over))
    return extract_members(found, destination, check)


def extract_members(
    found: Iterable[tuple[Member, Iterable[bytes]]], destination: str, check: Callable[[], None]
) -> Extracted:
    """Create these members, each with its content, in a folder that is new or empty.

    A content that raises `OSError` leaves its member out, with the error as the reason. Raises as `extract`.
    """
    destination = os.path.abspath(destination)
    mode = folder_mode(destination)
    parent, name = os.path.split(destination)
    try:
        os.makedirs(parent, exist_ok=True)
        draft = tempfile.mkdtemp(prefix=f".{name[:100]}.", dir=parent)
    except OSError as failure:
        raise NeedsPerson(
            f"{shown_path(destination)!r} cannot be created ({failure.strerror})",
            "choose a folder that you may write to",
        ) from None
    try:
        with safe_open.DirCursor(safe_open.open_workspace(draft), _enter_or_create) as cursor:
            extraction = _Extraction(draft, cursor, check)
            for member, content in found:
                check()
                extraction.add(member, content)
            extraction.finish()
        os.chmod(draft, mode)
        os.rename(draft, destination)
    except OSError as failure:
        raise TryLater(
            f"the sandbox's files cannot be written to {shown_path(destination)!r} ({failure.strerror})",
            "free some disk space there, or choose another folder",
        ) from None
    finally:
        _remove(draft)
    return extraction.extracted


def _remove(folder: str) -> None:
    """Remove the draft folder, whatever the modes of the folders in it."""
    for base, names, _ in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.chmod(path, stat.S_IRWXU)
    shutil.rmtree(folder, ignore_errors=True)


def folder_mode(destination: str) -> int:
    """The mode of the folder, or the default for a new one. Raises `NeedsPerson` if it is neither new nor empty."""
    try:
        status = os.lstat(destination)
        if stat.S_ISDIR(status.st_mode) and not os.listdir(destination):
            return stat.S_IMODE(status.st_mode)
    except FileNotFoundError:
        return stat.S_IRWXU
    except OSError as failure:
        raise NeedsPerson(
            f"{shown_path(destination)!r} cannot be read ({failure.strerror})", "choose another folder"
        ) from None
    raise NeedsPerson(
        f"{shown_path(destination)!r} exists and is not an empty folder",
        "name a new or an empty one, as nothing is overwritten",
    )


def _enter_or_create(name: str, parent: int) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, stat.S_IRWXU, dir_fd=parent)
    return safe_open.open_directory(name, parent)


class _Extraction:
    """Extracts the members of one archive into one folder."""

    def __init__(self, top: str, cursor: safe_open.DirCursor, check: Callable[[], None]) -> None:
        self._top = top
        self.extracted = Extracted()
        self._cursor = cursor
        self._check = check
        self._links: list[Member] = []
        self._folders: dict[str, Member] = {}
        self._unchecked_bytes = _CHECK_EVERY_BYTES
        self._kept_bytes = 0

    def add(self, member: Member, content: Iterable[bytes]) -> None:
        path = inner_path(member.name)
        if path is None:
            too_long = member.name.endswith("\0")
            self._leave_out(member, "its name is too long" if too_long else "its name leads outside the folder")
        elif path.count("/") > _DEEPEST:
            self._leave_out(member, f"it is in more than {_DEEPEST} folders")
        elif member.kind is MemberKind.DIRECTORY:
            if path and self._attempt(member, lambda path, _: self._cursor.parent_of(f"{path}/.")):
                if self._may_keep(member):
                    self._folders[path] = member
                else:
                    self._attempt(member, self._set_mode)
        elif not path:
            self._leave_out(member, "it has no name")
        elif member.kind is MemberKind.SYMLINK:
            if self._may_keep(member):
                self._links.append(member)
            else:
                self._leave_out(member, "there are too many links")
        elif member.kind is MemberKind.FILE:
            self._attempt(member, lambda path, member: self._file(path, member, content))
        elif member.kind is MemberKind.HARD_LINK:
            self._attempt(member, self._hard_link)
        else:
            self._leave_out(member, f"it is a {member.kind.value}")

    def _may_keep(self, member: Member) -> bool:
        self._kept_bytes += len(member.name) + len(member.target) + _OBJECT_BYTES
        return self._kept_bytes <= _MOST_KEPT_BYTES

    def finish(self) -> None:
        """Create the links, then set the folders' modes and times, which filling them changed; the deepest first."""
        made = [member for member in self._links if self._attempt(member, self._link)]
        targets = {inner_path(member.name) or "": member.target for member in made}
        for member in made:
            # Links that stay inside by their text may lead outside through one another.
            path = inner_path(member.name) or ""
            if leads_out(path, member.target, targets.get):
                del targets[path]
                os.unlink(os.path.join(self._top, path))
                self._leave_out(member, "the link leads outside")
        for _, member in sorted(self._folders.items(), reverse=True):
            self._attempt(member, self._set_mode_and_time)

    def _file(self, path: str, member: Member, content: Iterable[bytes]) -> None:
        parent, name = self._cursor.parent_of(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        except FileExistsError:
            os.unlink(name, dir_fd=parent)  # of two members with the same name the later one counts
            descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            self._write(descriptor, member, content)
        except (OSError, OverflowError, ValueError):
            os.unlink(name, dir_fd=parent)  # nothing stays of a member that is left out
            raise
        finally:
            os.close(descriptor)
        self.extracted.files += 1

    def _write(self, descriptor: int, member: Member, content: Iterable[bytes]) -> None:
        for block in content:
            self._check()
            self._check_space(descriptor, len(block))
            view = memoryview(block)
            while view:
                view = view[os.write(descriptor, view) :]
            self.extracted.content_bytes += len(block)
        os.fchmod(descriptor, member.mode)
        os.utime(descriptor, (member.mtime_s, member.mtime_s))

    def _hard_link(self, path: str, member: Member) -> None:
        target = inner_path(member.target)
        if not target or target == path:
            raise OSError(errno.EINVAL, "the link leads outside or nowhere")
        top = os.open(self._top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with safe_open.DirCursor(top) as other:
            target_parent, target_name = other.parent_of(target)
            parent, name = self._cursor.parent_of(path)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent)
            os.link(target_name, name, src_dir_fd=target_parent, dst_dir_fd=parent, follow_symlinks=False)
        self.extracted.files += 1

    def _link(self, path: str, member: Member) -> None:
        if not stays_inside(path, member.target):
            raise OSError(errno.EINVAL, "the link leads outside")
        parent, name = self._cursor.parent_of(path)
        os.symlink(member.target, name, dir_fd=parent)
        os.utime(name, (member.mtime_s, member.mtime_s), dir_fd=parent, follow_symlinks=False)
        self.extracted.files += 1

    def _set_mode(self, path: str, member: Member) -> None:
        folder, _ = self._cursor.parent_of(f"{path}/.")
        os.fchmod(folder, member.mode | stat.S_IRWXU)  # more may come into it

    def _set_mode_and_time(self, path: str, member: Member) -> None:
        folder, _ = self._cursor.parent_of(f"{path}/.")
        os.utime(folder, (member.mtime_s, member.mtime_s))
        os.fchmod(folder, member.mode)

    def _attempt(self, member: Member, step: Callable[[str, Member], object]) -> bool:
        """Do a step for one member, and leave it out after an error that concerns it alone. True if it is done."""
        try:
            step(inner_path(member.name) or "", member)
        except OSError as failure:
            if failure.errno in _DISK_ERRORS:
                raise
            self._leave_out(member, failure.strerror or str(failure))
            return False
        except (OverflowError, ValueError):
            self._leave_out(member, "this system cannot store its time or name")
            return False
        return True

    def _leave_out(self, member: Member, reason: str) -> None:
        if len(self.extracted.left_out) < _MOST_NAMED:
            name = member.name.replace("\0", "…") if member.name.endswith("\0") else member.name
            self.extracted.left_out.append(f"{shown_path(name[:_LONGEST_SHOWN])}: {reason}")
        else:
            self.extracted.unnamed += 1

    def _check_space(self, descriptor: int, size_bytes: int) -> None:
        self._unchecked_bytes += size_bytes
        if self._unchecked_bytes >= _CHECK_EVERY_BYTES:
            self._unchecked_bytes = 0
            disk = os.fstatvfs(descriptor)
            if disk.f_bavail * disk.f_frsize < _SPARE_BYTES + _CHECK_EVERY_BYTES:
                raise OSError(errno.ENOSPC, f"less than {_SPARE_BYTES >> 20} MiB would be left on the disk")
