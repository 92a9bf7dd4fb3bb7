"""Reads archives of other programs, and extracts them, or other foreign files, safely whatever they are.

A `tar.gz` is read as a stream: in one pass, in bounded memory, trusting none of its values. Python's tarfile reads the
headers. This module adds what tarfile does not: what is read into memory for one member is limited, the end-of-archive
block is required, and every error is a `BadArchive`.

A draft is filled and renamed at the end, so that the destination gets all or nothing: a folder beside a new one, or in
an empty one, which stays the same, as it may be a mount or a shell's current directory. Every file is created through
its directory's descriptor, and symbolic links are created last, so that no member can be written through one. Members
that cannot be extracted are left out and reported.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Any, BinaryIO, Self, cast

from msgspec import Struct, field

from syncd.core import safe_open
from syncd.core.directories import make_folders
from syncd.core.errors import NeedsPerson, TryLater
from syncd.core.process import original_umask
from syncd.core.text import shown_path
from syncd.model.entry import leads_out, mode_at_home, stays_inside
from syncd.model.manifest import is_within

# No system call takes a longer path (PATH_MAX in linux/limits.h).
LONGEST_PATH = 4095
_BLOCK = 1 << 18
_HEADER_BYTES = 4 << 20  # of all headers of one member, which are read into memory
_PADDED = 512
# By what tarfile tells of a header: zeros, which end an archive, and the end of the stream.
_ZEROS, _CUT = tarfile.EOFHeaderError, (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError)  # type: ignore[attr-defined]
# Deflate expands no more than that; a sparse member that does holds nothing but a size.
_MOST_EXPANDED = 1032
_SHOWN = 200  # of a name that is too long
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
            fileobj=cast("BinaryIO", stream), mode="r|", tarinfo=_StrictTarInfo, errors="surrogateescape"
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


class _StrictTarInfo(tarfile.TarInfo):
    @classmethod
    def fromtarfile(cls, archive: Any) -> Self:
        # tarfile takes whatever is no header for the archive's end, and the stream's end too: a tar that was killed
        # between two files would be a smaller workspace. Some versions of Python do not call `frombuf` for a member.
        try:
            return super().fromtarfile(archive)
        except _ZEROS:
            raise
        except _CUT:
            raise BadArchive("the archive is cut short") from None
        except tarfile.HeaderError as failure:
            raise BadArchive(f"the archive is not a valid tar file: {failure}") from None


class _GunzippedStream:
    """The content of one or several gzip members, as a readable file."""

    def __init__(self, packed: Iterable[bytes]) -> None:
        self._packed = iter(packed)
        self._rest = b""
        self._inflate = zlib.decompressobj(wbits=31)
        self.header_bytes: int | None = _HEADER_BYTES  # what the headers of the next member may take, if they are read

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
                        raise BadArchive(f"the headers of one entry in it have more than {_HEADER_BYTES >> 20} MiB")
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
    found = (each for each in members(packed) if not is_within(inner_path(each[0].name) or "", {passed_over}))
    return extract_members(found, destination, check)


def extract_members(
    found: Iterable[tuple[Member, Iterable[bytes]]], destination: str, check: Callable[[], None]
) -> Extracted:
    """Create these members, each with its content, in a folder that is new or empty.

    A content that raises `OSError` leaves its member out, with the error as the reason. Raises as `extract`.
    """
    destination = os.path.abspath(destination)
    is_new = require_new_or_empty(destination)
    parent, name = os.path.split(destination)
    try:
        make_folders(parent)
        draft = tempfile.mkdtemp(prefix=f".{name[:100]}.", dir=parent if is_new else destination)
    except OSError as failure:
        raise NeedsPerson(
            f"'{shown_path(destination)}' cannot be created ({failure.strerror})",
            "choose a folder that you may write to",
        ) from None
    try:
        with safe_open.DirCursor(safe_open.open_workspace(draft), _enter_or_create) as cursor:
            extraction = _Extraction(draft, cursor, check)
            for member, content in found:
                check()
                extraction.add(member, content)
            extraction.finish()
        if is_new:
            os.rename(draft, destination)
        else:
            _move_up(draft)
    except OSError as failure:
        raise TryLater(
            f"the sandbox's files cannot be written to '{shown_path(destination)}' ({failure.strerror})",
            "free some disk space there, or choose another folder",
        ) from None
    finally:
        remove_folder(draft)
    return extraction.extracted


def _move_up(draft: str) -> None:
    """Move all that is in the draft into the folder that holds it and nothing else.

    Raises `OSError`; then nothing is moved.
    """
    destination, own_name = os.path.split(draft)
    if os.listdir(destination) != [own_name]:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
    modes = {name: os.lstat(os.path.join(draft, name)).st_mode for name in os.listdir(draft)}
    folders = [name for name, mode in modes.items() if stat.S_ISDIR(mode)]
    for name in folders:
        os.chmod(os.path.join(draft, name), stat.S_IRWXU)  # one that is read-only cannot be moved
    moved = []
    try:
        for name in modes:
            os.rename(os.path.join(draft, name), os.path.join(destination, name))
            moved.append(name)
        for name in folders:
            os.chmod(os.path.join(destination, name), stat.S_IMODE(modes[name]))
    except OSError:
        for name in moved:
            with contextlib.suppress(OSError):
                os.rename(os.path.join(destination, name), os.path.join(draft, name))
        raise


def remove_folder(folder: str) -> None:
    """Remove a folder, if it is there, as far as that can be done, whatever the modes of the folders in it."""
    for base, names, _ in os.walk(folder):
        for path in (base, *(os.path.join(base, name) for name in names)):
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.chmod(path, stat.S_IRWXU)  # before it is entered
    shutil.rmtree(folder, ignore_errors=True)


def require_new_or_empty(destination: str) -> bool:
    """True for a folder that is not there yet, False for an empty one. Raises `NeedsPerson` for all else."""
    try:
        if stat.S_ISDIR(os.lstat(destination).st_mode) and not os.listdir(destination):
            return False
    except FileNotFoundError:
        return True
    except OSError as failure:
        raise NeedsPerson(
            f"'{shown_path(destination)}' cannot be read ({failure.strerror})", "choose another folder"
        ) from None
    raise NeedsPerson(
        f"'{shown_path(destination)}' exists and is not an empty folder",
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
            is_made = path and self._attempt(member, lambda path, _: self._cursor.parent_of(f"{path}/."))
            if is_made and self._count_kept(member):
                self._folders[path] = member
        elif not path:
            self._leave_out(member, "it has no name")
        elif member.kind is MemberKind.SYMLINK:
            if self._count_kept(member):
                self._links.append(member)
            else:
                self._leave_out(member, "there are too many links")
        elif member.kind is MemberKind.FILE:
            self._attempt(member, lambda path, member: self._file(path, member, content))
        elif member.kind is MemberKind.HARD_LINK:
            self._attempt(member, self._hard_link)
        else:
            self._leave_out(member, f"it is a {member.kind.value}")

    def _count_kept(self, member: Member) -> bool:
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
            safe_open.write_all(descriptor, block)
            self.extracted.content_bytes += len(block)
        os.fchmod(descriptor, mode_at_home(member.mode, original_umask()))
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

    def _set_mode_and_time(self, path: str, member: Member) -> None:
        folder, _ = self._cursor.parent_of(f"{path}/.")
        os.utime(folder, (member.mtime_s, member.mtime_s))
        os.fchmod(folder, mode_at_home(member.mode, original_umask()))

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
