"""The objects of a git repository: the ids of versions of files, and the commands of git-fast-import(1).

A version is an entry, a link or a file with a copy, as a look returns it; ABSENT is none. Contents are written as they
are: no filter, no attribute and no conversion of line ends comes between.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import partial

from syncd.core.errors import TryLater
from syncd.core.text import one_line, shown_path
from syncd.model.entry import EXECUTABLE, Kind, SeenEntry

_BLOCK_BYTES = 1 << 18

# The modes that git gives to the entries of a tree (fsck.c, git-fast-import(1)).
FILE_MODE = b"100644"
EXECUTABLE_MODE = b"100755"
SYMLINK_MODE = b"120000"
SUBMODULE_MODE = b"160000"
# Early versions of git wrote it; today's read it as FILE_MODE.
_GROUP_WRITABLE_MODE = b"100664"
# Of the year 9999: later ones, git and others cannot show.
_LAST_SECOND = 253_402_300_799
_ZONE = re.compile("[+-](?:0[0-9]|1[0-4])[0-5][0-9]")
_SHORT_SUBMODULES = re.compile("gitmod~[1-4]|gi7eba~[0-9]+|gi7d29~[0-9]+")
_IGNORED_BY_HFS = dict.fromkeys((*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF), None)
# These two need a backslash of their own in a quoted path; of the others, git reads any byte in octal digits.
_QUOTED = {0x22: b'\\"', 0x5C: b"\\\\"}


def is_version(entry: SeenEntry) -> bool:
    """True for a link, and for a file whose content is on this machine: a patch or a commit can hold it."""
    return entry.kind is Kind.SYMLINK or (entry.kind is Kind.FILE and entry.copy != "")


def mode_of(version: SeenEntry) -> bytes:
    """Return the mode that the version has in a tree, in octal digits."""
    if version.kind is Kind.SYMLINK:
        return SYMLINK_MODE
    return EXECUTABLE_MODE if version.mode & EXECUTABLE else FILE_MODE


def todays_mode(mode: bytes) -> bytes:
    """Return the mode that git writes today for one that it reads."""
    return FILE_MODE if mode == _GROUP_WRITABLE_MODE else mode


def size_of(version: SeenEntry) -> int:
    """Return the number of bytes of a version's content; 0 if nothing is there."""
    return len(_bytes(version.target)) if version.kind is Kind.SYMLINK else version.size_bytes


def contents_of(path: str, version: SeenEntry, object_format: str = "sha1", blob: bytes = b"") -> Iterator[bytes]:
    """Return the version's content in blocks, exactly as many bytes as announced.

    Raises `TryLater` if the file has another size now, or if `blob` is given and is not the id of its blob.
    """
    digest = _blob_digest(version, object_format)
    left = size_of(version)
    for block in _blocks(version):
        left -= len(block)
        if left < 0:
            break
        if blob:
            digest.update(block)
        yield block
    if left or (blob and digest.hexdigest().encode() != blob):
        raise TryLater(f"{shown_path(path)!r} changed while it was read", "try again")


def _blocks(version: SeenEntry) -> Iterator[bytes]:
    if version.kind is Kind.SYMLINK:
        yield _bytes(version.target)
    elif version.kind is Kind.FILE:
        with open(version.copy, "rb") as file:
            yield from iter(partial(file.read, _BLOCK_BYTES), b"")


def _blob_digest(version: SeenEntry, object_format: str) -> hashlib._Hash:
    return hashlib.new(object_format, b"blob %d\0" % size_of(version), usedforsecurity=False)


def blob_id(path: str, version: SeenEntry, object_format: str) -> bytes:
    """Return the hexadecimal id of the version's blob; `object_format` is "sha1" or "sha256", as git calls it."""
    digest = _blob_digest(version, object_format)
    for block in contents_of(path, version):
        digest.update(block)
    return digest.hexdigest().encode()


def null_id(object_format: str) -> bytes:
    """Return the id that stands for no object."""
    return b"0" * (2 * hashlib.new(object_format, usedforsecurity=False).digest_size)


def write_command(path: str, version: SeenEntry, contents: Iterable[bytes]) -> Iterator[bytes]:
    """Return the command that puts the version, with these contents, at a path of a commit."""
    yield b"M %s inline %s\ndata %d\n" % (mode_of(version), quoted(path), size_of(version))
    yield from contents
    yield b"\n"


def commit_command(
    reference: bytes, person: bytes, message: bytes, parent: bytes = b"", *, author: bytes = b""
) -> bytes:
    """Return the head of the command that makes a commit; the lines of its paths come after it.

    `person` is committer, and author if no other one is: `NAME <EMAIL> SECONDS ZONE`. Without `parent`, the commit has
    none.
    """
    head = b"commit %s\nauthor %s\ncommitter %s\n" % (reference, author or person, person)
    return b"%sdata %d\n%s\n%s" % (head, len(message), message, b"from %s\n" % parent if parent else b"")


def delete_line(path: str) -> bytes:
    """Return the line that removes a path from a commit."""
    return b"D %s\n" % quoted(path)


def quoted(path: str, side: bytes = b"") -> bytes:
    """Return the path in double quotes, each byte that is not plain ASCII in octal digits (git's quote.c)."""
    escaped = (_QUOTED.get(byte) or (b"%c" if 0x20 <= byte < 0x7F else b"\\%03o") % byte for byte in _bytes(path))
    return b'"%s%s"' % (side, b"".join(escaped))


def shown_name(path: str, side: bytes) -> bytes:
    """Return the path as the head of a patch has it, with `a/` or `b/` before it: quoted only if it has to be."""
    inside = quoted(path, side)[1:-1]
    return inside if inside == side + _bytes(path) else b'"%s"' % inside


def identity(name: str, email: str, seconds: int, zone: str) -> bytes:
    """Return author or committer as a commit holds it; `seconds` count from 1970 in UTC, `zone` is as `+0130`."""
    return b"%s <%s> %d %s" % (_bytes(name), _bytes(email), seconds, zone.encode())


def foreign_identity(name: str, email: str, seconds: int, zone: str) -> bytes:
    """Return an author that somebody else wrote, as `identity` does: without what git refuses.

    An impossible date becomes the epoch, an impossible zone that of UTC.
    """
    possible_s = possible_seconds(seconds)
    if possible_s != seconds or not _ZONE.fullmatch(zone):
        zone = "+0000"
    return identity(identity_text(name) or "unknown", identity_text(email), possible_s, zone)


def possible_seconds(seconds: int) -> int:
    """Return the seconds of a date that git can show, and the epoch for others."""
    return seconds if 0 <= seconds <= _LAST_SECOND else 0


def subject_of(message: bytes) -> str:
    """Return the first line of a commit's message, for people."""
    lines = message.decode("utf-8", "replace").strip().splitlines()
    return one_line(lines[0], 72) if lines else "(no message)"


def is_repository_name(name: str) -> bool:
    """Return True for `.git`, in any letter case and in each spelling that NTFS or HFS+ take for it.

    git refuses such names too (`verify_path` in its read-cache.c).
    """
    return any(part in (".git", "git~1") for part in _spellings(name))


def is_submodules_name(name: str) -> bool:
    """Return True for `.gitmodules`, spelled in any way: as a link, git refuses it."""
    return any(part == ".gitmodules" or _SHORT_SUBMODULES.fullmatch(part) for part in _spellings(name))


def _spellings(name: str) -> Iterator[str]:
    for part in name.translate(_IGNORED_BY_HFS).lower().split("\\"):
        yield part.partition(":")[0].rstrip(" .")


def identity_text(text: str) -> str:
    """Return a name or address without the characters that a commit cannot hold in it (git's ident.c)."""
    return "".join(character for character in text if character not in "<>\n\0").strip(" \t\r.,:;\"\\'")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
