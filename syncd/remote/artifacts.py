"""Reads the files that a program left in the directory of its execution from the archive that the API makes of it.

The API's description calls that archive a zip, its documentation a tar.gz; its first bytes tell. Nothing in it is
trusted: links, devices and unknown names are skipped, all sizes are limited, and each file must have its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import BinaryIO, cast

from msgspec import Struct

from syncd.archive.tar_reader import BadArchive, MemberKind, inner_path, members
from syncd.core.errors import TryLater

_BLOCK = 1 << 18
# Beside the files themselves: headers, and what the sandbox adds of its own.
_OVERHEAD_BYTES = 64 << 20
# The list of a zip's members is read into memory as a whole.
_LARGEST_READ = 64 << 20
_GZIP, _ZIP = b"\x1f\x8b", b"PK"
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
_COPY = re.compile(r"(?:.*/)?copies/(0|[1-9][0-9]{0,11})", re.DOTALL)


class NotKeptHere(TryLater):
    """Files from the sandbox cannot be kept on this machine."""


class ExpectedCopy(Struct, frozen=True):
    """A file that must be in the archive: its content's length and SHA-256, and its path here."""

    size_bytes: int
    digest: bytes
    path: str


class ExtractedCopies(Struct, frozen=True):
    """The numbers of the copies that are on this machine, and of those whose content is another one.

    `not_kept` is the reason why others cannot be kept here.
    """

    right: frozenset[int] = frozenset()
    wrong: frozenset[int] = frozenset()
    not_kept: str = ""


def read_named(path: str, name: str, size_bytes: int, digest: bytes) -> bytes:
    """Return the file of this name, from any folder of the archive at `path`.

    Raises `BadArchive`, also if none is right, and `OSError`.
    """
    for member, content in _files(path, size_bytes + _OVERHEAD_BYTES):
        if member.rpartition("/")[2] == name:
            data = bytearray()
            for block in content:
                data += block
                if len(data) > size_bytes:
                    break
            if len(data) == size_bytes and hashlib.sha256(data).digest() == digest:
                return bytes(data)
    raise BadArchive(f"it has no {name} as the program wrote it")


def extract_copies(
    path: str, expected: Mapping[int, ExpectedCopy], most_bytes: int, check: Callable[[], None]
) -> ExtractedCopies:
    """Extract the copies `copies/N` of the archive that are as expected; one that cannot be kept is left out.

    Raises `BadArchive`, `OSError`, and what `check` raises; then none of them stays.
    """
    extracted: set[int] = set()
    wrong: set[int] = set()
    not_kept = ""
    complete = False
    try:
        for name, content in _files(path, most_bytes + _OVERHEAD_BYTES):
            check()
            match = _COPY.fullmatch(name)
            number = int(match[1]) if match else -1
            copy = expected.get(number)
            if copy is None or number in extracted:
                continue
            try:
                (extracted if _extracted(copy, content, check) else wrong).add(number)
            except OSError as failure:
                not_kept = unwritable(failure).message
        complete = True
    finally:
        if not complete:
            for number in extracted:
                with contextlib.suppress(OSError):
                    os.unlink(expected[number].path)
    return ExtractedCopies(frozenset(extracted), frozenset(wrong - extracted), not_kept)


def keep_archive(packed: Iterable[bytes], path: str, most_bytes: int, check: Callable[[], None]) -> None:
    """Write an archive to a new file, if it is not much longer than `most_bytes` of files.

    Raises `OSError`, `BadArchive` if it is too long, and what `check` and `packed` raise; then no file stays.
    """
    most_bytes += _OVERHEAD_BYTES
    complete, length = False, 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            for block in packed:
                check()
                length += len(block)
                if length > most_bytes:
                    raise BadArchive(f"it is larger than {most_bytes >> 20} MiB")
                file.write(block)
        complete = True
    finally:
        if not complete:
            os.unlink(path)


def _extracted(copy: ExpectedCopy, content: Iterable[bytes], check: Callable[[], None]) -> bool:
    """Write a file, and return True if it is as expected; else nothing stays. Raises `OSError`."""
    sha256, left, right = hashlib.sha256(), copy.size_bytes, False
    descriptor = os.open(copy.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            for block in content:
                left -= len(block)
                if left < 0:
                    break
                check()
                sha256.update(block)
                file.write(block)
        right = left == 0 and sha256.digest() == copy.digest
    finally:
        if not right:
            os.unlink(copy.path)
    return right


def _files(path: str, most_bytes: int) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the regular files of an archive, with their contents. Raises `BadArchive`, `OSError`.

    The whole archive is read: one that is cut short is of no use, even if it holds what is wanted.
    """
    with open(path, "rb") as file:
        head = file.read(2)
        file.seek(0)
        if head == _GZIP:
            yield from _tar_files(file, most_bytes)
        elif head == _ZIP:
            yield from _zip_files(file, most_bytes)
        else:
            raise BadArchive("it is neither a tar.gz nor a zip")


def _tar_files(file: BinaryIO, most_bytes: int) -> Iterator[tuple[str, Iterator[bytes]]]:
    left = most_bytes
    for member, content in members(iter(lambda: file.read(_BLOCK), b"")):
        left -= 512 + max(0, member.size_bytes)
        if left < 0:
            raise BadArchive(f"it holds more than {most_bytes >> 20} MiB")
        name = inner_path(member.name)
        if member.kind is MemberKind.FILE and name:
            yield name, content


class _LimitedFile:
    """A file of which no single read is large: zipfile reads as much as a header says."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._length = os.fstat(file.fileno()).st_size

    def read(self, size: int = -1) -> bytes:
        wanted = self._length - self._file.tell() if size < 0 else size
        if wanted > _LARGEST_READ:
            raise BadArchive("its list of members is too long")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


def _zip_files(file: BinaryIO, most_bytes: int) -> Iterator[tuple[str, Iterator[bytes]]]:
    left = most_bytes
    try:
        with zipfile.ZipFile(cast("BinaryIO", _LimitedFile(file))) as archive:
            for info in archive.infolist():
                left -= 512 + max(0, info.file_size)
                if left < 0:
                    raise BadArchive(f"it holds more than {most_bytes >> 20} MiB")
                name, mode = inner_path(info.filename), info.external_attr >> 16
                if not name or info.is_dir() or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
                    continue
                if info.compress_type not in _ZIP_METHODS or info.flag_bits & 1:
                    raise BadArchive("it is compressed by another method, or encrypted")
                yield name, _zip_content(archive, info)
    except _INVALID_ZIP as failure:
        raise BadArchive(f"it is no valid zip ({type(failure).__name__})") from None


def _zip_content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with archive.open(info) as content:
            yield from iter(lambda: content.read(_BLOCK), b"")
    except _INVALID_ZIP as failure:
        raise BadArchive(f"it is no valid zip ({type(failure).__name__})") from None


def unwritable(failure: OSError) -> NotKeptHere:
    """Return the error for a file that cannot be written."""
    return NotKeptHere(
        f"files from the sandbox cannot be kept on this machine ({failure.strerror or failure})",
        "see to room and rights in the cache folder",
    )
