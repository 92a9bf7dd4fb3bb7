"""`syncd diff`: what was changed in the sandbox, as a patch; and what several agents did, side by side.

Git compares: both sides go into a private repository that holds nothing else. The colours are added here: git's own
could not be told from those in a file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from tempfile import TemporaryFile
from typing import Any

import click

from syncd.cli.agent_side import for_each, is_named, look_at, open_sandbox, tell_excluded
from syncd.cli.options import all_option, configured_for_each, named_paths, sandbox_options, stoppable
from syncd.cli.output import Tone, aligned, paged, print_path, styled, written
from syncd.core.choices import COMMITTER
from syncd.core.errors import ExitCode
from syncd.core.settings import Config
from syncd.core.text import shown_path
from syncd.merge.git import (
    BINARY_PREFIX_BYTES,
    END_S,
    Git,
    NewCommit,
    is_binary,
    is_version,
    make_commits,
    needed,
    object_format_around,
    private_repository,
    size_of,
    with_settings,
)
from syncd.merge.home import AgentSide
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry, same, with_copy
from syncd.model.git_names import is_in_repository

# Before a path that several agents changed.
_SEVERAL = "!"
# Of one side of a path. Git holds both sides in memory, and compressed once more; `git apply` takes no patch of 1 GiB.
PATCH_BYTES = 256 << 20

_COMPARE = ("diff-tree", "-r", "--no-renames", "--no-ext-diff", "--no-textconv", "--full-index", "--no-color")
# The options of git that make a patch, and a table for people.
PATCH, TABLE = ("-p", "--binary"), ("--stat",)
# The private repository lives for one comparison.
_UNCOMPRESSED = {"core.compression": "0", "pack.compression": "0"}
# By what a line begins with. No line of a file begins with a "d".
_TONES = {"d": Tone.STRONG, "@": Tone.BUSY, "+": Tone.GOOD, "-": Tone.BAD}


@click.command("diff")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(readable=False))
@click.option("--stat", "form", flag_value="stat", help="How many lines each path adds and removes.")
@click.option("--name-only", "form", flag_value="names", help="The paths alone, one a line.")
@all_option
@sandbox_options
def command(  # noqa: PLR0917 - click passes each option
    paths: tuple[str, ...],
    form: str | None,
    sandbox: str | None,
    all_sandboxes: bool,
    as_json: bool,
    config_file: str | None,
) -> int:
    """Show what was changed in the sandbox since syncd put it there, as a patch that `git apply` takes.

    \b
    syncd diff
    syncd diff --stat src      how many lines, in one folder
    syncd diff --all --stat    a column a sandbox

    Of PATHs, if any, with what is below them. What a rule excludes is counted, not shown. Exits with 0 if nothing was
    changed, with 1 if something was.
    """
    configs = configured_for_each(config_file, sandbox, all_sandboxes)
    named = named_paths(configs[0], paths)
    columns: dict[str, dict[str, str]] = {}  # of each sandbox, what it did to each path
    rows: list[dict[str, Any]] = []
    excluded, codes = 0, {ExitCode.DONE}

    def ask(config: Config) -> None:
        nonlocal excluded
        name = config.sandbox_name
        with open_sandbox(config) as opened:
            side = look_at(opened)
            paths = _paths(side, named)
            codes.add(ExitCode.DIFFERENT if paths else ExitCode.DONE)
            if as_json:
                local = side.local()
                rows.extend(row_of(side, path, local[path], name) for path in paths)
                excluded += side.excluded
            elif form == "stat" and all_sandboxes:
                columns[name] = {path: change_of(side, path) for path in paths if is_shown(side, path)}
                tell_excluded(side, f"not shown ({name})")
            else:
                if all_sandboxes:
                    click.echo(f"# {name}")
                show(side, named, form)

    with stoppable():
        failed = for_each(configs, ask)
    if as_json:
        click.echo(json.dumps({"changes": rows, "left_out": excluded}))
    elif any(columns.values()):
        table = [("", *columns)]
        for path in sorted({path for column in columns.values() for path in column}):
            cells = [column.get(path, "") for column in columns.values()]
            mark = _SEVERAL if len(list(filter(None, cells))) > 1 else " "
            table.append((f"{mark} {shown_path(path)}", *cells))
        print("\n".join(aligned(table)))
    return failed or max(codes)


def show(side: AgentSide, named: Collection[str], form: str | None) -> None:
    """Print what differs of these paths. Raises `SyncdError`."""
    paths = _paths(side, named)
    before, after = both_sides(side, paths, side.local())
    if form == "names":
        for path in paths:
            if is_shown(side, path):
                print_path(path)
    elif before or after:
        print_patch(side, before, after, form)
    tell_excluded(side, "not shown")


def both_sides(
    side: AgentSide, paths: Iterable[str], local: dict[str, Entry]
) -> tuple[dict[str, SeenEntry], dict[str, SeenEntry]]:
    """Return what was sent and what is there, of the paths that a patch can show."""
    sent: dict[str, SeenEntry] = {}
    there: dict[str, SeenEntry] = {}
    for path in paths:
        remote, entry, here = side.work.changed[path], side.work.base_of(path), local[path]
        if not is_version(remote) and remote.kind in (Kind.FILE, Kind.OTHER, Kind.UNREAD):
            click.echo(f"not shown: {shown_path(path)} ({side.sandbox.why_unsaved(remote)})", err=True)
            continue
        is_shown_here = entry is not None and entry.kind in (Kind.FILE, Kind.SYMLINK)
        before = side.home.sent_files.version(path, entry) if entry is not None and is_shown_here else None
        if before is None and is_shown_here:
            if here.kind is Kind.UNREAD:
                click.echo(f"not shown: {shown_path(path)} cannot be read here, and what was sent is gone", err=True)
                continue
            click.echo(f"{shown_path(path)}: what was sent is gone; shown from what is here", err=True)
            before = with_copy(here, side.home.place(path))
        if is_version(remote):
            there[path] = remote
        if before is not None and is_version(before):
            sent[path] = before
    return sent, there


def is_shown(side: AgentSide, path: str) -> bool:
    """A directory is shown by what is in it."""
    kinds = {side.work.changed[path].kind, (side.work.base_of(path) or ABSENT).kind}
    return bool(kinds - {Kind.DIRECTORY, Kind.ABSENT})


def change_of(side: AgentSide, path: str) -> str:
    """The change of a path in the sandbox in a word."""
    before, after = side.work.base_of(path) or ABSENT, side.work.changed[path]
    if before.kind is Kind.ABSENT:
        return "added"
    if after.kind is Kind.ABSENT:
        return "deleted"
    if after.kind is not before.kind:
        return "type"
    return "mode" if after.digest and after.digest == before.digest else "modified"


def row_of(side: AgentSide, path: str, here: Entry, sandbox: str) -> dict[str, Any]:
    """The change of a path as `diff --json` prints it."""
    entry, remote, content = side.work.base_of(path), side.work.changed[path], b""
    if remote.copy:
        with open(remote.copy, "rb") as file:
            content = file.read(BINARY_PREFIX_BYTES)
    if here.kind is Kind.ABSENT and entry is not None:
        state = "missing"
    elif here.kind is Kind.ABSENT or (entry is not None and same(here, entry)):
        state = "same"
    else:
        state = "left-out" if side.rules.exclude(path, here.is_directory) else "changed"
    return {
        "path": path,
        "change": change_of(side, path),
        "bytes": 0 if remote.is_directory else remote.size_bytes,
        "binary": is_binary(content),
        "here": state,
        "sandbox": sandbox,
    }


def print_patch(side: AgentSide, before: dict[str, SeenEntry], after: dict[str, SeenEntry], form: str | None) -> None:
    git, shown = needed(side.home.git), TABLE if form == "stat" else PATCH
    if shown is PATCH:
        large = {path for side in (before, after) for path, found in side.items() if size_of(found) > PATCH_BYTES}
        for path in sorted(large):
            click.echo(
                f"not shown: {shown_path(path)} is too large for a patch; `syncd apply` brings it home", err=True
            )
        before, after = ({path: side[path] for path in side if path not in large} for side in (before, after))
    ids = object_format_around(git, side.home.path)
    lines = write_patch(git, before, after, shown, scratch=side.home.scratch, object_format=ids)
    if sys.stdout.isatty():
        texts = (written(line, sys.stdout) for line in for_terminal(lines))
        lines = (f"{text}\n".encode(sys.stdout.encoding, "backslashreplace") for text in texts)
    paged(lines)


def _paths(side: AgentSide, named: Collection[str]) -> list[str]:
    """Return the paths that differ, in order; git takes no patch of what is in a `.git`, which may be sent."""
    found = [path for path in side.work.changed if is_named(path, named) and not is_in_repository(path)]
    return sorted(found, key=os.fsencode)


# -- a patch


def write_patch(
    git: Git,
    before: Mapping[str, SeenEntry],
    after: Mapping[str, SeenEntry],
    form: tuple[str, ...] = PATCH,
    *,
    scratch: str | None = None,
    object_format: str = "sha1",
) -> Iterator[bytes]:
    """Return the PATCH, or the TABLE, from one side to the other in lines; nothing if there is no change.

    No version in a patch is larger than PATCH_BYTES. `scratch` is the folder in which the private repository is made,
    with a copy of both sides (None: the system's folder for temporary files). `object_format` is that of the repository
    in which the patch will be applied: git checks the ids of binary files. Raises `NeedsPerson`, or `TryLater` if a
    file changes while it is read.
    """
    with private_repository(git, scratch, object_format) as folder, TemporaryFile(dir=folder) as patch:
        commits = [NewCommit(b"", dict(side)) for side in (before, after)]
        # Of the names in a table only what a terminal may not get is quoted.
        settings = {**_UNCOMPRESSED, "core.quotePath": "false" if form is TABLE else "true"}
        variables = {"GIT_DIR": folder, **with_settings(settings)}
        both = make_commits(git, variables, f"{COMMITTER} 0 +0000", commits)
        git.run([*_COMPARE, *form, *both], variables, within_s=END_S, output=patch)
        patch.seek(0)
        yield from patch


def for_terminal(lines: Iterable[bytes]) -> Iterator[str]:
    """Return the lines of a patch. Nothing in them but the colours is anything that a terminal obeys."""
    for line in lines:
        text = "\t".join(map(shown_path, line.removesuffix(b"\n").decode("utf-8", "surrogateescape").split("\t")))
        yield styled(text, _TONES.get(text[:1], Tone.PLAIN))
