"""Writes changes as a patch that `git apply` takes, or as a table of what each one adds and removes.

Git compares: both sides go into a private repository that holds nothing else. Only changes with a large file are
written here, since git would hold both sides of it in memory, compressed ones too. The colours are added here as well:
git's own could not be told from those in a file.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum

from msgspec.structs import replace

from syncd.core.text import shown_path
from syncd.merge.git import Git, fast_import, private_repository, with_settings
from syncd.merge.git_objects import (
    GitChange,
    GitSymlink,
    GitVersion,
    blob_id,
    commit_command,
    contents_of,
    identity,
    mode_of,
    null_id,
    shown_name,
    size_of,
    write_command,
)
from syncd.sandbox.repository.git_in_sandbox import LARGE_BYTES

_BEFORE, _AFTER = "refs/heads/before", "refs/heads/after"
_COMPARE = ("diff-tree", "-r", "--no-renames", "--no-ext-diff", "--no-textconv", "--full-index", "--no-color")
# The private repository lives for one comparison.
_UNCOMPRESSED = {"core.compression": "0", "pack.compression": "0"}
_UNQUOTED = {"core.quotePath": "false"}
# A line of a binary patch holds at most so many bytes, and begins with a letter for their number (git's diff.c).
_LINE_BYTES = 52
_LINE_LENGTHS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LINE_CHARACTERS = _LINE_BYTES // 4 * 5
_LINES_AT_ONCE = 1024
_COMPRESSION = 1  # what is large is mostly compressed already
_HUNK = re.compile(r"(@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@)(.*)")
_HEAD = re.compile(r"(?:diff --git|index|---|\+\+\+|(?:new|deleted) file mode|(?:old|new) mode) ")
_STAT = re.compile(r"(.* \| +\d+ )(\+*)(-*)")


class PatchForm(Enum):
    """The form in which changes are shown."""

    PATCH = ("-p", "--binary")
    STAT = ("--stat",)


class PatchColours(Enum):
    """The colours of a patch on a terminal; `paint` returns a text in one of them, named by its number."""

    NONE = "{text}"
    TERMINAL = "\033[{colour}m{text}\033[m"

    def paint(self, text: str, colour: int) -> str:
        return self.value.format(text=text, colour=colour) if text else ""


_BOLD, _RED, _GREEN, _CYAN = 1, 31, 32, 36


def write_patch(
    git: Git,
    changes: Iterable[GitChange],
    form: PatchForm,
    *,
    scratch: str | None = None,
    object_format: str = "sha1",
    large_bytes: int = LARGE_BYTES,
) -> Iterator[bytes]:
    """Return the patch, or the table, in blocks; nothing if there is no change.

    `scratch` is the folder in which the private repository is made, with a copy of both sides (None: the
    system's folder for temporary files). `object_format` is that of the repository in which the patch will be applied:
    git checks the ids of binary files. A change with a file over `large_bytes` is written as a binary one, at the
    patch's end. Raises `NeedsPerson`, or `TryLater` if a file changes while it is read.
    """
    small: list[GitChange] = []
    large: list[GitChange] = []
    for change in changes:
        most = max(size_of(change.before), size_of(change.after))
        (large if form is PatchForm.PATCH and most > large_bytes else small).append(change)
    if small:
        with private_repository(git, scratch, object_format) as folder:
            # A table is for people: of its names only what a terminal may not get is quoted.
            variables = {"GIT_DIR": folder, **(with_settings(_UNQUOTED) if form is PatchForm.STAT else {})}
            fast_import(git, _both_sides(small), {**variables, **with_settings(_UNCOMPRESSED)})
            yield from git.read([*_COMPARE, *form.value, _BEFORE, _AFTER], variables)
    for change in large:
        for part in _parts(change):
            yield from _binary_patch(part, object_format)


def for_terminal(blocks: Iterable[bytes], colours: PatchColours) -> Iterator[str]:
    """Return a patch or a table in lines. Nothing in them but these colours is anything that a terminal obeys."""
    removed = added = 0  # lines that are still to come of a hunk: what they hold is no head, whatever it looks like
    for line in _lines_of(blocks):
        text = "\t".join(map(shown_path, line.decode("utf-8", "surrogateescape").split("\t")))
        if removed or added:
            sign = text[:1]
            removed -= sign in (" ", "-")
            added -= sign in (" ", "+")
            yield colours.paint(text, _GREEN if sign == "+" else _RED) if sign in ("+", "-") else text
        elif hunk := _HUNK.fullmatch(text):
            removed, added = (1 if count is None else int(count) for count in (hunk[2], hunk[3]))
            yield colours.paint(hunk[1], _CYAN) + hunk[4]
        elif row := _STAT.fullmatch(text):
            yield row[1] + colours.paint(row[2], _GREEN) + colours.paint(row[3], _RED)
        else:
            yield colours.paint(text, _BOLD) if _HEAD.match(text) else text


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


def _parts(change: GitChange) -> tuple[GitChange, ...]:
    """Return the change; as deletion and addition if a link replaces a file or a file a link, as git shows them."""
    before, after = change.before, change.after
    if before is None or after is None or isinstance(before, GitSymlink) is isinstance(after, GitSymlink):
        return (change,)
    return replace(change, after=None), replace(change, before=None)


def _both_sides(changes: Sequence[GitChange]) -> Iterator[bytes]:
    """Return the commands that make one commit of each side."""
    yield from _one_side(_BEFORE, [(change.path, change.before) for change in changes])
    yield from _one_side(_AFTER, [(change.path, change.after) for change in changes])


def _one_side(reference: str, versions: Sequence[tuple[str, GitVersion | None]]) -> Iterator[bytes]:
    yield commit_command(reference.encode(), identity("syncd", "syncd@localhost", 0, "+0000"), b"")
    for path, version in versions:
        if version is not None:
            yield from write_command(path, version, contents_of(path, version))


def _binary_patch(change: GitChange, object_format: str) -> Iterator[bytes]:
    """Return a change as git's binary patch: the whole content of both sides, so that it can be reversed too."""
    path, before, after = change.path, change.before, change.after
    nothing = null_id(object_format)
    old = nothing if before is None else blob_id(path, before, object_format)
    new = nothing if after is None else blob_id(path, after, object_format)
    head = [b"diff --git %s %s" % (shown_name(path, b"a/"), shown_name(path, b"b/"))]
    index = b"index %s..%s" % (old, new)
    if before is None and after is not None:
        head += [b"new file mode " + mode_of(after), index]
    elif after is None and before is not None:
        head += [b"deleted file mode " + mode_of(before), index]
    elif before is not None and after is not None:
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
            yield from _compressed_lines(() if version is None else contents_of(path, version))
            yield b"\n"


def _compressed_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    compressor = zlib.compressobj(_COMPRESSION)
    pending = b""
    for block in blocks:
        pending += compressor.compress(block)
        if len(pending) >= _LINE_BYTES * _LINES_AT_ONCE:
            whole = len(pending) // _LINE_BYTES * _LINE_BYTES
            yield _lines(pending[:whole])
            pending = pending[whole:]
    yield _lines(pending + compressor.flush())


def _lines(content: bytes) -> bytes:
    """Return the content in lines of base 85, in which git's alphabet is that of Python."""
    rest = len(content) % _LINE_BYTES
    whole, last = content[: len(content) - rest], content[len(content) - rest :]
    encoded = base64.b85encode(whole)
    lines = [b"z%s\n" % encoded[at : at + _LINE_CHARACTERS] for at in range(0, len(encoded), _LINE_CHARACTERS)]
    if last:
        lines.append(b"%c%s\n" % (_LINE_LENGTHS[rest - 1], base64.b85encode(last, pad=True)))
    return b"".join(lines)
