"""`syncd verify`: compares the sandbox's workspace, as it can be downloaded, with this one. Changes nothing."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any, BinaryIO

import click
from msgspec import Struct

from syncd.archive.extraction import Member, MemberKind, inner_path, is_within, members
from syncd.cli.options import (
    all_option,
    config_option,
    configured_for_each,
    json_option,
    sandbox_option,
    stoppable,
)
from syncd.cli.output import verbosity, verbosity_options
from syncd.cli.progress import ProgressDisplay
from syncd.core import safe_open
from syncd.core.choices import Deletions
from syncd.core.errors import ExitCode
from syncd.core.settings import Config
from syncd.core.text import counted, shown_path
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest

_BLOCK = 1 << 18
_MOST_NAMED_BYTES = 8 << 20  # of what is only there
_KINDS = {MemberKind.FILE: Kind.FILE, MemberKind.DIRECTORY: Kind.DIRECTORY, MemberKind.SYMLINK: Kind.SYMLINK}


class Comparison(Struct, frozen=True):
    """Paths that differ, in order. Those in `only_there` are expected if `sandbox.deletions` is "keep".

    `unnamed` counts others of these, which are too many to be kept.
    """

    missing: list[str]
    different: list[str]
    only_there: list[str]
    unnamed: int


def verify(
    workspace: str, manifest: Manifest, packed: Iterable[bytes], check: Callable[[], None], passed_over: str = ""
) -> Comparison:
    """Compare the manifest's paths in the workspace with the archive. Raises `WorkspaceError`, `BadArchive`, `Stop`.

    What is only there within the folder `passed_over` does not count.

    A path that changes or vanishes in the workspace meanwhile counts as different.
    """
    same: dict[str, bool] = {}  # of two members with the same name the later one counts, as when they are extracted
    only_there: set[str] = set()
    left_bytes, unnamed = _MOST_NAMED_BYTES, 0
    with safe_open.DirCursor(safe_open.open_workspace(workspace)) as local:
        for member, content in members(packed):
            check()
            path = inner_path(member.name)
            if path and path in manifest:
                entry = manifest[path]
                try:
                    if member.kind is MemberKind.HARD_LINK:
                        # Another name of an earlier member, which was compared already.
                        target = inner_path(member.target) or ""
                        same[path] = entry.kind is Kind.FILE and same.get(target, False) and _equal(local, path, target)
                    else:
                        same[path] = _is_same(local, path, entry, member, content)
                except OSError:
                    same[path] = False
            elif path != "" and not is_within(path, passed_over):
                name = path or member.name.replace("\0", "…")
                if name in only_there:
                    continue
                left_bytes -= len(name)
                if left_bytes > 0:
                    only_there.add(name)
                else:
                    unnamed += 1
    return Comparison(
        missing=[path for path in manifest if path not in same],
        different=[path for path in manifest if not same.get(path, True)],
        only_there=sorted(only_there, key=os.fsencode),
        unnamed=unnamed,
    )


def _is_same(local: safe_open.DirCursor, path: str, entry: Entry, member: Member, content: Iterable[bytes]) -> bool:
    """True if the member is as the path in the workspace. Raises `OSError`."""
    if _KINDS.get(member.kind) is not entry.kind:
        return False
    if entry.kind is Kind.SYMLINK:
        return entry.target == member.target
    if entry.kind is Kind.DIRECTORY:
        return True
    # The one permission bit that every extractor keeps, whatever its umask.
    if (member.mode ^ entry.mode) & stat.S_IXUSR:
        return False
    with _opened(local, path) as file:
        return _size(file) == member.size_bytes and all(file.read(len(block)) == block for block in content)


def _equal(local: safe_open.DirCursor, path: str, other: str) -> bool:
    """True if two files of the workspace have the same content."""
    with _opened(local, path) as first, _opened(local, other) as second:
        blocks = iter(lambda: second.read(_BLOCK), b"")
        return _size(first) == _size(second) and all(first.read(len(block)) == block for block in blocks)


def _opened(local: safe_open.DirCursor, path: str) -> BinaryIO:
    parent, name = local.parent_of(path)
    return os.fdopen(safe_open.open_file(name, parent)[0], "rb")


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


@click.command("verify")
@config_option
@sandbox_option
@all_option
@json_option
@verbosity_options
def command(config_file: str | None, sandbox: str | None, all_sandboxes: bool, as_json: bool) -> int:
    """Compare the workspace with the sandbox's, byte for byte.

    Ends with 0 if they are equal, with 1 if a path is missing there, different, or only there. A path that a rule here
    excludes counts as only there if the sandbox has it. The git repository that syncd keeps there does not.

    --json: equal, files (the number of paths compared), missing, different, only_there, and deleted_here, those of
    only_there that were sent once and deleted here. With --all: equal, and sandboxes, a list of these objects, each
    with the name of its sandbox.
    """
    configs = configured_for_each(config_file, sandbox, all_sandboxes)
    from syncd.cli.agent_side import for_each  # noqa: PLC0415 - `verify --help` needs none of it

    found: list[dict[str, Any]] = []
    failed = for_each(configs, lambda config: found.append(_verified(config, as_json=as_json, heading=all_sandboxes)))
    equal = failed is None and all(each["equal"] for each in found)
    if as_json:
        click.echo(json.dumps({"equal": equal, "sandboxes": found} if all_sandboxes else found[0]))
    if failed is not None:
        raise failed
    return ExitCode.DONE if equal else ExitCode.DIFFERENT


def _verified(config: Config, *, as_json: bool, heading: bool) -> dict[str, Any]:
    """Compare with one sandbox, print that for people, and return it."""
    from syncd.cli.local_scan import scan_workspace  # noqa: PLC0415 - `verify --help` needs none of these
    from syncd.cli.pull import read_dump, repository_there  # noqa: PLC0415
    from syncd.daemon.build import places_of, target_of  # noqa: PLC0415
    from syncd.sandbox.sandbox_state import recorded_leftovers  # noqa: PLC0415
    from syncd.store.state_db import StateDb  # noqa: PLC0415

    with stoppable(), ProgressDisplay() as progress:
        progress.doing("scanning the workspace")
        local = scan_workspace(config)
        manifest, git = local.scan.manifest, repository_there(config)
        found = read_dump(
            config, progress, lambda packed, check: verify(config.workspace.path, manifest, packed, check, git)
        )
    lists = {"missing": found.missing, "different": found.different, "only_there": found.only_there}
    equal = not any(lists.values())
    with closing(StateDb(places_of(config, os.environ).state)) as db:
        leftovers = recorded_leftovers(db, target_of(config, os.environ)).entries
    deleted_here = [path for path in found.only_there if path in leftovers]
    result = {"equal": equal, "files": len(manifest), **lists, "deleted_here": deleted_here}
    if heading:
        result = {"sandbox": config.sandbox_name, **result}
    if as_json:
        return result
    if heading:
        click.echo(f"{config.sandbox_name}:")
    for word, paths in lists.items():
        for path in paths:
            click.echo(f"{word.replace('_', ' '):10}  {shown_path(path)}")
    numbers = ", ".join(f"{len(paths):,} {word.replace('_', ' ')}" for word, paths in lists.items())
    if not equal or verbosity() >= 0:
        same = f"equal: {counted(len(manifest), 'path')} in the sandbox as here"
        click.echo(same if equal else numbers)
    if found.unnamed:
        click.echo(f"and {found.unnamed:,} more are only there")
    if deleted_here:
        click.echo(f"of what is only there, {_deleted(len(deleted_here), config.sandbox.deletions)}")
    if local.left_out_count:
        click.echo(
            f"not compared, as they are excluded: {local.left_out_count:,} (see `syncd ls --excluded`)", err=True
        )
    return result


def _deleted(count: int, deletions: Deletions) -> str:
    """The reason why deleted paths are still in the sandbox."""
    were = "path was" if count == 1 else "paths were"
    stay = "stays" if count == 1 else "stay"
    why = 'as sandbox.deletions = "keep"' if deletions is Deletions.KEEP else "to be removed, or changed there"
    return f"{count:,} {were} deleted here and {stay} there, {why}"
