"""Writes changes as a patch that `git apply` takes, or as a table of what each one adds and removes.

Git compares: both sides go into a private repository that holds nothing else. Only changes with a large file are
written here, since git would hold both sides of it in memory, compressed ones too. The colours are added here as well:
git's own could not be told from those in a file.
"""

from __future__ import annotations

import base64
import contextlib
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from syncd.core.text import shown_path
from syncd.merge.git import (
    Git,
    blob_id,
    commit_commands,
    contents_of,
    fast_import,
    identity,
    mode_of,
    null_id,
    private_repository,
    shown_name,
    size_of,
    with_settings,
)
from syncd.model.entry import ABSENT, Kind, SeenEntry
from syncd.sandbox.repository.git_in_sandbox import LARGE_BYTES

_BEFORE, _AFTER = "refs/heads/before", "refs/heads/after"
_COMPARE = ("diff-tree", "-r", "--no-renames", "--no-ext-diff", "--no-textconv", "--full-index", "--no-color")
# The private repository lives for one comparison.
_UNCOMPRESSED = {"core.compression": "0", "pack.compression": "0"}
_UNQUOTED = {"core.quotePath": "false"}
# A line of a binary patch holds at most so many bytes, and begins with a letter for their number (git's diff.c).
_LINE_BYTES = 52
_LINE_LENGTHS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_COMPRESSION = 1  # what is large is mostly compressed already
_HUNK = re.compile(r"(@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@)(.*)")
_HEAD = re.compile(r"(?:diff --git|index|---|\+\+\+|(?:new|deleted) file mode|(?:old|new) mode) ")
_STAT = re.compile(r"(.* \| +\d+ )(\+*)(-*)")


# The form of a coloured text on a terminal; the number is one of the colours below.
PLAIN, COLOURED = "{text}", "\033[{colour}m{text}\033[m"
_BOLD, _RED, _GREEN, _CYAN = 1, 31, 32, 36


def write_patch(
    git: Git,
    before: Mapping[str, SeenEntry],
    after: Mapping[str, SeenEntry],
    *,
    scratch: str | None = None,
    object_format: str = "sha1",
    large_bytes: int = LARGE_BYTES,
) -> Iterator[bytes]:
    """Return the patch from one side to the other in blocks; nothing if there is no change.

    `scratch` is the folder in which the private repository is made, with a copy of both sides (None: the
    system's folder for temporary files). `object_format` is that of the repository in which the patch will be applied:
    git checks the ids of binary files. A change with a file over `large_bytes` is written as a binary one, at the
    patch's end. Raises `NeedsPerson`, or `TryLater` if a file changes while it is read.
    """
    large = {path for side in (before, after) for path, version in side.items() if size_of(version) > large_bytes}
    old, new = ({path: side[path] for path in side if path not in large} for side in (before, after))
    if old or new:
        with _repository(git, old, new, scratch, object_format) as variables:
            yield from git.read([*_COMPARE, "-p", "--binary", _BEFORE, _AFTER], variables)
    for path in sorted(large):
        yield from _binary_patch(path, before.get(path, ABSENT), after.get(path, ABSENT), object_format)


def write_table(
    git: Git, before: Mapping[str, SeenEntry], after: Mapping[str, SeenEntry], scratch: str | None = None
) -> Iterator[bytes]:
    """Return the table of what each change adds and removes. Raises as `write_patch` does."""
    with _repository(git, before, after, scratch) as variables:
        # It is for people: of its names only what a terminal may not get is quoted.
        yield from git.read([*_COMPARE, "--stat", _BEFORE, _AFTER], {**variables, **with_settings(_UNQUOTED)})


@contextlib.contextmanager
def _repository(
    git: Git,
    before: Mapping[str, SeenEntry],
    after: Mapping[str, SeenEntry],
    scratch: str | None,
    object_format: str = "sha1",
) -> Iterator[dict[str, str]]:
    """Make a private repository with a commit of each side, and return the variables by which git finds it."""
    with private_repository(git, scratch, object_format) as folder:
        variables = {"GIT_DIR": folder}
        by = identity("syncd", "syncd@localhost", 0, "+0000")
        sides = (commit_commands(_BEFORE, by, b"", before), commit_commands(_AFTER, by, b"", after))
        fast_import(git, chain.from_iterable(sides), {**variables, **with_settings(_UNCOMPRESSED)})
        yield variables


def for_terminal(blocks: Iterable[bytes], form: str) -> Iterator[str]:
    """Return a patch or a table in lines. Nothing in them but the colours of `form` is anything that a terminal obeys.

    `form` is PLAIN or COLOURED.
    """

    def paint(text: str, colour: int) -> str:
        return form.format(text=text, colour=colour) if text else ""

    removed = added = 0  # lines that are still to come of a hunk: what they hold is no head, whatever it looks like
    for line in _lines_of(blocks):
        text = "\t".join(map(shown_path, line.decode("utf-8", "surrogateescape").split("\t")))
        if removed or added:
            sign = text[:1]
            removed -= sign in (" ", "-")
            added -= sign in (" ", "+")
            yield paint(text, _GREEN if sign == "+" else _RED) if sign in ("+", "-") else text
        elif hunk := _HUNK.fullmatch(text):
            removed, added = (1 if count is None else int(count) for count in (hunk[2], hunk[3]))
            yield paint(hunk[1], _CYAN) + hunk[4]
        elif row := _STAT.fullmatch(text):
            yield row[1] + paint(row[2], _GREEN) + paint(row[3], _RED)
        else:
            yield paint(text, _BOLD) if _HEAD.match(text) else text


def _lines_of(blocks: Iterable[bytes]) -> Iterator[bytes]:
    pending: list[bytes] = []
    for block in blocks:
        first, *others = block.split(b"\n")
        pending.append(first)
        for other in others:
            yield b"".join(pending)
            pending = [other]
    if any(pending):
        yield b"".join(pending)


def _binary_patch(path: str, before: SeenEntry, after: SeenEntry, object_format: str) -> Iterator[bytes]:
    """Return a change as git's binary patch: the whole content of both sides, so that it can be reversed too."""
    if {before.kind, after.kind} == {Kind.FILE, Kind.SYMLINK}:  # a deletion and an addition, as git shows it
        yield from _binary_patch(path, before, ABSENT, object_format)
        yield from _binary_patch(path, ABSENT, after, object_format)
        return
    is_new, is_gone = before.kind is Kind.ABSENT, after.kind is Kind.ABSENT
    old = null_id(object_format) if is_new else blob_id(path, before, object_format)
    new = null_id(object_format) if is_gone else blob_id(path, after, object_format)
    head = [b"diff --git %s %s" % (shown_name(path, b"a/"), shown_name(path, b"b/"))]
    index = b"index %s..%s" % (old, new)
    if is_new:
        head += [b"new file mode " + mode_of(after), index]
    elif is_gone:
        head += [b"deleted file mode " + mode_of(before), index]
    else:
        same_mode = mode_of(before) == mode_of(after)
        if not same_mode:
            head += [b"old mode " + mode_of(before), b"new mode " + mode_of(after)]
        if old != new:
            head.append(index + (b" " + mode_of(after) if same_mode else b""))
        elif same_mode:
            return
    yield b"".join(b"%s\n" % line for line in head)
    if old != new:
        yield b"GIT binary patch\n"
        for version in (after, before):
            yield b"literal %d\n" % size_of(version)
            yield from _compressed_lines(contents_of(path, version))
            yield b"\n"


def _compressed_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Return the content, compressed, in lines of base 85, in which git's alphabet is that of Python."""
    compressor = zlib.compressobj(_COMPRESSION)
    pending = b""
    for block in chain(map(compressor.compress, blocks), map(compressor.flush, [zlib.Z_FINISH])):
        pending += block
        whole = len(pending) // _LINE_BYTES * _LINE_BYTES
        yield b"".join(_line(pending[at : at + _LINE_BYTES]) for at in range(0, whole, _LINE_BYTES))
        pending = pending[whole:]
    if pending:
        yield _line(pending)


def _line(content: bytes) -> bytes:
    return b"%c%s\n" % (_LINE_LENGTHS[len(content) - 1], base64.b85encode(content, pad=True))
