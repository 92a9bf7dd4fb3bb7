"""The files that an execution left, in an archive of which nothing is trusted.

The API's description calls it a zip, its documentation a tar.gz; its first bytes tell. Links, devices and unknown names
in it are skipped, all sizes are limited, and each file must have its digest.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from types import MappingProxyType

from msgspec import Struct

from syncd.archive.extraction import BadArchive, Member, MemberKind, inner_path, members
from syncd.core.durable_file import new_file
from syncd.core.errors import TryLater
from syncd.model.entry import Entry

_BLOCK = 1 << 18
# Beside the files themselves: headers, and what the sandbox adds of its own.
_OVERHEAD_BYTES = 64 << 20
# The list of a zip's members is read into memory as a whole.
_LARGEST_READ = 64 << 20
_MOST_MEMBERS = 250_000
_GZIP, _ZIP = b"\x1f\x8b", b"PK"
_LISTED_MEMBER = b"PK\1\2"
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# The exceptions of zipfile for a damaged archive.
_INVALID_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
)


class NotKeptHere(TryLater):
    """Files from the sandbox cannot be kept on this machine."""


class ExtractedFiles(Struct, frozen=True):
    """Files of an archive that are on this machine now, by their names there, and names of those with another content.

    `not_kept` is the reason why others cannot be kept here.
    """

    paths: Mapping[str, str] = MappingProxyType({})
    wrong: Collection[str] = ()
    not_kept: str = ""

    def path(self, name: str) -> str:
        """Return the path of a file, empty if it is not there as expected. Raises `NotKeptHere`."""
        if self.not_kept:
            raise NotKeptHere(self.not_kept, "see to room and rights in the cache folder")
        return self.paths.get(name, "")


def extract_files(
    archive: str, expected: Mapping[str, Entry], prefix: str, most_bytes: int, check: Callable[[], None]
) -> ExtractedFiles:
    """Extract files of these names, from any folder of the archive, whose size and digest are as expected.

    Their paths here are the prefix and the last part of their names. One that cannot be kept is left out.

    Raises `BadArchive`, `OSError`, and what `check` raises; then none of them stays.
    """
    paths: dict[str, str] = {}
    wrong: set[str] = set()
    not_kept = ""
    with ExitStack() as failed:
        for inner, content in _files(archive, most_bytes + _OVERHEAD_BYTES):
            check()
            folder, _, last = inner.rpartition("/")
            name = f"{folder.rpartition('/')[2]}/{last}" if folder else last
            name = name if name in expected else last
            if name not in expected or name in paths:
                continue
            path = f"{prefix}{last}"
            try:
                if _extracted(expected[name], content, path, check):
                    paths[name] = path
                    failed.callback(os.unlink, path)
                else:
                    wrong.add(name)
            except OSError as failure:
                not_kept = why_not_kept(failure)
        failed.pop_all()
    return ExtractedFiles(paths, wrong - paths.keys(), not_kept)


def keep_archive(packed: Iterable[bytes], path: str, most_bytes: int, check: Callable[[], None]) -> None:
    """Write an archive to a new file, if it is not much longer than `most_bytes` of files.

    Raises `OSError`, `BadArchive` if it is too long, and what `check` and `packed` raise; then no file stays.
    """
    most_bytes += _OVERHEAD_BYTES
    length = 0
    with new_file(path) as file:
        for block in packed:
            check()
            length += len(block)
            if length > most_bytes:
                raise BadArchive(f"it is larger than {most_bytes >> 20} MiB")
            file.write(block)


def _extracted(expected: Entry, content: Iterable[bytes], path: str, check: Callable[[], None]) -> bool:
    """Write a file, and return True if it is as expected; else nothing stays. Raises `OSError`."""
    sha256, left = hashlib.sha256(), expected.size_bytes
    with new_file(path) as file:
        for block in content:
            left -= len(block)
            if left < 0:
                break
            check()
            sha256.update(block)
            file.write(block)
    right = left == 0 and sha256.digest() == expected.digest
    if not right:
        os.unlink(path)
    return right


def _files(path: str, most_bytes: int) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the regular files of an archive, with their contents. Raises `BadArchive`, `OSError`.

    The whole archive is read: one that is cut short is of no use, even if it holds what is wanted.
    """
    left = most_bytes
    with open(path, "rb") as file:
        head = file.read(2)
        file.seek(0)
        if head not in (_GZIP, _ZIP):
            raise BadArchive("it is neither a tar.gz nor a zip")
        found = _in_zip(path) if head == _ZIP else members(iter(lambda: file.read(_BLOCK), b""))
        for member, content in found:
            left -= 512 + max(0, member.size_bytes)
            if left < 0:
                raise BadArchive(f"it holds more than {most_bytes >> 20} MiB")
            name = inner_path(member.name)
            if member.kind is MemberKind.FILE and name:
                yield name, content


class _LimitedFile(io.FileIO):
    """A zip of which no single read is large, or lists many members.

    zipfile reads as much as a header says, and the list in one read, of which it makes an object for each member. The
    count in the header need not be true.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(_LARGEST_READ + 1 if size is None or size < 0 else min(size, _LARGEST_READ + 1))
        if len(content) > _LARGEST_READ:
            raise BadArchive("its list of members is too long")
        if content.count(_LISTED_MEMBER) > _MOST_MEMBERS:
            raise BadArchive(f"it has more than {_MOST_MEMBERS:,} members")
        return content

    def seek(self, position: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_SET and position < 0:  # the system's error would be taken for one of this machine
            raise BadArchive("a member begins before it")
        return super().seek(position, whence)


def _in_zip(path: str) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Yield each member with its content. Raises `BadArchive`, `OSError`."""
    try:
        with _LimitedFile(path) as file, zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                mode = info.external_attr >> 16
                is_file = not info.is_dir() and (not stat.S_IFMT(mode) or stat.S_ISREG(mode))
                kind = MemberKind.FILE if is_file else MemberKind.OTHER
                if is_file and (info.compress_type not in _ZIP_METHODS or info.flag_bits & 1):
                    raise BadArchive("it is compressed by another method, or encrypted")
                yield Member(info.filename, kind, mode, 0.0, info.file_size, ""), _zip_content(archive, info)
    except _INVALID_ZIP as failure:
        raise BadArchive(f"it is no valid zip ({type(failure).__name__})") from None


def _zip_content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with archive.open(info) as content:
            yield from iter(lambda: content.read(_BLOCK), b"")
    except _INVALID_ZIP as failure:
        raise BadArchive(f"it is no valid zip ({type(failure).__name__})") from None


def why_not_kept(failure: OSError) -> str:
    """Return the reason for a file that cannot be written here."""
    return f"files from the sandbox cannot be kept on this machine ({failure.strerror or failure})"
