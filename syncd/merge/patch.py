"""Writes changes as a patch that `git apply` takes, or as a table of what each one adds and removes.

Git compares: both sides go into a private repository that holds nothing else. The colours are added here: git's own
could not be told from those in a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from syncd.core.text import shown_path
from syncd.merge.git import Git, NewCommit, identity, make_commits, private_repository, with_settings
from syncd.model.entry import SeenEntry

# Of one side of a path. Git holds both sides in memory, and compressed once more; `git apply` takes no patch of 1 GiB.
LARGEST_BYTES = 256 << 20

_COMPARE = ("diff-tree", "-r", "--no-renames", "--no-ext-diff", "--no-textconv", "--full-index", "--no-color")
# The options of git that make a patch, and a table for people.
PATCH, TABLE = ("-p", "--binary"), ("--stat",)
# The private repository lives for one comparison.
_UNCOMPRESSED = {"core.compression": "0", "pack.compression": "0"}
# The form of a coloured text on a terminal; the number is one of the colours below.
PLAIN, COLOURED = "{text}", "\033[{colour}m{text}\033[m"
# Bold, cyan, green and red, by what a line begins with. No line of a file begins with a "d".
_COLOURS = {"d": 1, "@": 36, "+": 32, "-": 31}


def write_patch(
    git: Git,
    before: Mapping[str, SeenEntry],
    after: Mapping[str, SeenEntry],
    form: tuple[str, ...] = PATCH,
    *,
    scratch: str | None = None,
    object_format: str = "sha1",
) -> Iterator[bytes]:
    """Return the PATCH, or the TABLE, from one side to the other in blocks; nothing if there is no change.

    No version in a patch is larger than LARGEST_BYTES. `scratch` is the folder in which the private repository is made,
    with a copy of both sides (None: the system's folder for temporary files). `object_format` is that of the repository
    in which the patch will be applied: git checks the ids of binary files. Raises `NeedsPerson`, or `TryLater` if a
    file changes while it is read.
    """
    with private_repository(git, scratch, object_format) as folder:
        by = identity("syncd", "syncd@localhost", 0, "+0000")
        commits = [NewCommit(b"", dict(side)) for side in (before, after)]
        # Of the names in a table only what a terminal may not get is quoted.
        settings = {**_UNCOMPRESSED, "core.quotePath": "false" if form is TABLE else "true"}
        variables = {"GIT_DIR": folder, **with_settings(settings)}
        yield from git.read([*_COMPARE, *form, *make_commits(git, variables, by, commits)], variables)


def for_terminal(blocks: Iterable[bytes], form: str) -> Iterator[str]:
    """Return a patch in lines. Nothing in them but the colours of `form` is anything that a terminal obeys.

    `form` is PLAIN or COLOURED.
    """
    for line in _lines_of(blocks):
        text = "\t".join(map(shown_path, line.decode("utf-8", "surrogateescape").split("\t")))
        colour = _COLOURS.get(text[:1])
        yield text if colour is None else form.format(text=text, colour=colour)


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
