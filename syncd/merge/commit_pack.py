"""Reads the agent's commits out of a pack that was made in the sandbox.

Nothing in the pack is trusted. Git reads it, in a private repository that holds nothing else, with a limit on memory;
what comes out are texts, names, modes and contents. No object of the agent's gets into the person's repository: its
contents and names do, once they were checked.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Collection, Mapping

from msgspec import Struct

from syncd.core.errors import SyncdError
from syncd.merge.git import Git, private_repository
from syncd.model.entry import ABSENT, EXECUTABLE, Kind, SeenEntry
from syncd.sandbox.look_encoding import leads_outside
from syncd.sandbox.repository.agent_repository import MOST_BYTES, MOST_PATHS, Contents, SandboxCommits

_BLOCK = 1 << 18
_MOST_BYTES = 128 << 20  # of messages and names
_MOST_OF_MESSAGE = 64 << 10
_MOST_OF_NAME = 1000
_LONGEST_TARGET = 4095  # of a link
_COMPARE = (
    "diff-tree", "--stdin", "--root", "--always", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", "--no-ext-diff",
    "--no-textconv", "--date=raw", "--encoding=UTF-8", "--format=%x00%H%x00%an%x00%ae%x00%ad%x00%B",
)  # fmt: skip
_Header = tuple[bytes, ...]
_Rows = list[tuple[str, bytes, str]]
_DATE = re.compile(rb"(-?[0-9]{1,18}) ([+-][0-9]{4})")


class UnreadablePack(Exception):
    """The pack cannot be read; the message says why."""


class SandboxCommit(Struct, frozen=True):
    """One commit of the agent's. `changes` are the paths that differ from its first parent, ABSENT for a deleted one.

    A file without a copy was not fetched. `refused` are paths that lead out of the workspace, as nobody has to trust a
    tree.
    """

    id: str
    author: str
    email: str
    seconds: int
    zone: str
    message: bytes
    changes: Mapping[str, SeenEntry]
    refused: tuple[str, ...] = ()


def read_pack(git: Git, found: SandboxCommits, pack: str, folder: str, contents: Contents) -> tuple[SandboxCommit, ...]:
    """Return the commits that the sandbox reported, from the file with their pack.

    The pack is removed. `folder` is private; the contents stay there, in files. Raises `UnreadablePack`.
    """
    try:
        with private_repository(git, folder, "sha1") as private:
            variables = {"GIT_DIR": private}
            with open(pack, "rb") as file:
                git.feed(["index-pack", "--stdin", "--threads=1"], iter(lambda: file.read(_BLOCK), b""), variables)
            os.unlink(pack)  # git has its own one
            commits = _compared(git, found, variables)
            wanted = {blob for _, rows in commits for _, mode, blob in rows if mode[:2] in (b"10", b"12")}
            sizes = _write_blobs(git, wanted, folder, variables) if contents is Contents.SMALLEST else {}
            return tuple(_commit(header, rows, sizes, folder) for header, rows in commits)
    except SyncdError as failure:
        raise UnreadablePack(failure.message) from None


def _compared(git: Git, found: SandboxCommits, variables: Mapping[str, str]) -> list[tuple[_Header, _Rows]]:
    """Return each commit's id, author, address, date and message, and path, mode and blob of what it changed."""
    output = bytearray()
    for block in git.read(_COMPARE, variables, "\n".join([*found.commits, ""]).encode()):
        output += block
        if len(output) > _MOST_BYTES:
            raise UnreadablePack("they are too large")
    fields = iter(bytes(output).split(b"\0"))
    commits: list[tuple[_Header, _Rows]] = []
    paths = 0
    for field in fields:
        if not field.lstrip(b"\n").startswith(b":"):
            header = tuple(itertools.islice(fields, 5))
            if len(header) == 5:
                commits.append((header, []))
            continue
        paths += 1
        if paths > MOST_PATHS:
            raise UnreadablePack("they are too many")
        _, mode, _, blob, _ = field.split(b" ")
        commits[-1][1].append((os.fsdecode(next(fields, b"")), mode, blob.decode()))
    if [header[0].decode() for header, _ in commits] != [pair.partition(" ")[0] for pair in found.commits]:
        raise UnreadablePack("git names other ones")
    return commits


def _write_blobs(git: Git, wanted: Collection[str], folder: str, variables: Mapping[str, str]) -> Mapping[str, int]:
    """Write the contents that the pack has into files of the folder, named by their ids; return the sizes in bytes."""
    listed = git.run(["cat-file", "--batch-check"], variables, given="".join(f"{blob}\n" for blob in wanted).encode())
    rows = [line.split(" ") for line in listed.output.decode().splitlines()]
    sizes = {row[0]: int(row[2]) for row in rows if row[1] == "blob"}
    if sum(sizes.values()) > MOST_BYTES:
        raise UnreadablePack("more was packed than was asked for")
    # Without attributes, git writes each blob as it is: a large one in blocks.
    index = {"GIT_INDEX_FILE": os.path.join(folder, "index"), "GIT_WORK_TREE": folder}
    git.feed(
        ["update-index", "--index-info"],
        (f"100644 {blob}\t{blob}\n".encode() for blob in sizes),
        {**variables, **index},
    )
    git.feed(["checkout-index", "--all"], (), {**variables, **index})
    return sizes


def _commit(header: _Header, rows: _Rows, sizes: Mapping[str, int], folder: str) -> SandboxCommit:
    commit_id, author, email, date, message = header
    seconds, zone = match.groups() if (match := _DATE.fullmatch(date)) else (b"0", b"+0000")
    return SandboxCommit(
        id=commit_id.decode(),
        author=author[:_MOST_OF_NAME].decode("utf-8", "surrogateescape"),
        email=email[:_MOST_OF_NAME].decode("utf-8", "surrogateescape"),
        seconds=int(seconds),
        zone=zone.decode(),
        message=message[:_MOST_OF_MESSAGE],
        changes={path: _entry(mode, blob, sizes, folder) for path, mode, blob in rows if not leads_outside(path)},
        refused=tuple(path for path, _, _ in rows if leads_outside(path)),
    )


def _entry(mode: bytes, blob: str, sizes: Mapping[str, int], folder: str) -> SeenEntry:
    """Return what a commit has at a path with this mode and blob."""
    if mode == b"000000":
        return ABSENT
    copy = os.path.join(folder, blob) if blob in sizes else ""
    if mode.startswith(b"10"):
        permissions = 0o755 if int(mode, 8) & EXECUTABLE else 0o644
        return SeenEntry(Kind.FILE, permissions, size_bytes=sizes.get(blob, 0), copy=copy)
    if not mode.startswith(b"12"):
        return SeenEntry(Kind.OTHER)
    if not 0 < sizes.get(blob, 0) <= _LONGEST_TARGET:
        return SeenEntry(Kind.UNREAD)
    with open(copy, "rb") as file:
        target = file.read()
    return SeenEntry(Kind.UNREAD) if b"\0" in target else SeenEntry(Kind.SYMLINK, target=os.fsdecode(target))
