"""`syncd verify`: compares the sandbox's workspace, as it can be downloaded, with this one. Changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import click

from syncd.cli.agent_side import for_each, open_sandbox
from syncd.cli.ls import scan_workspace
from syncd.cli.options import CLOCK, all_option, configured_for_each, sandbox_options, stoppable
from syncd.cli.output import verbosity, verbosity_options
from syncd.cli.progress import ProgressDisplay
from syncd.cli.pull import read_dump, repository_there
from syncd.core.choices import Deletions
from syncd.core.errors import ExitCode
from syncd.core.settings import Config
from syncd.core.text import counted, shown_path
from syncd.daemon.build import reader_of
from syncd.model.entry import Kind, same
from syncd.model.manifest import Manifest, is_within
from syncd.sandbox.look_by_dump import look_in_archive
from syncd.sandbox.look_request import LookAction, LookItem, LookItems, LookRequest
from syncd.scan.file_reader import ContentReader


def verify(
    reader: ContentReader, manifest: Manifest, packed: Iterable[bytes], check: Callable[[], None], passed_over: str
) -> tuple[dict[str, list[str]], int]:
    """Compare the manifest's paths in the workspace with the archive. Raises `WorkspaceError`, `BadArchive`, `Stop`.

    Return the lists of paths, in order, and the number of others that are only there: too many, or of no valid name.
    The folder `passed_over` does not count where it is only there. What is in a repository there is not listed.

    A path that changes or vanishes in the workspace meanwhile counts as different.
    """
    items = LookItems({}, manifest, lambda _, entry: LookItem((entry,), LookAction.COMPARE))
    look = look_in_archive(packed, LookRequest(items, find_new=True, most_copied_bytes=0), "", check)
    of_equal_size = [path for path, there in look.differing.items() if there.size_bytes == manifest[path].size_bytes]
    equal = {path for path, entry in reader.digests(of_equal_size) if same(entry, look.differing[path])}
    differing = {path: there for path, there in look.differing.items() if path not in equal}
    pruned = [path for path in look.pruned if path != passed_over and path not in manifest]
    lists = {
        "missing": [path for path, there in differing.items() if there.kind is Kind.ABSENT],
        "different": [path for path, there in differing.items() if there.kind is not Kind.ABSENT],
        "only_there": sorted([*look.new, *pruned], key=os.fsencode),
    }
    return lists, look.unlisted


@click.command("verify")
@all_option
@sandbox_options
@verbosity_options
def command(config_file: str | None, sandbox: str | None, all_sandboxes: bool, as_json: bool) -> int:
    """Compare the workspace with the sandbox's, byte for byte.

    \b
    syncd verify && echo equal

    Ends with 0 if they are equal, with 1 if a path is missing there, different, or only there, as an excluded one is
    that the sandbox has. The repository that syncd keeps there does not count.
    """
    configs = configured_for_each(config_file, sandbox, all_sandboxes)
    found: list[dict[str, Any]] = []
    failed = for_each(configs, lambda config: found.append(_verified(config, as_json=as_json, heading=all_sandboxes)))
    equal = not failed and all(each["equal"] for each in found)
    if as_json:
        click.echo(json.dumps({"equal": equal, "sandboxes": found} if all_sandboxes else found[0]))
    return failed or (ExitCode.DONE if equal else ExitCode.DIFFERENT)


def _verified(config: Config, *, as_json: bool, heading: bool) -> dict[str, Any]:
    """Compare with one sandbox, print that for people, and return it."""
    with stoppable(), ProgressDisplay() as progress, open_sandbox(config) as opened:
        progress.doing("scanning the workspace")
        scan, excluded = scan_workspace(config)
        manifest, git = scan.manifest, repository_there(opened)
        reader = reader_of(config, CLOCK, os.environ)
        lists, unnamed = read_dump(opened, progress, lambda packed, check: verify(reader, manifest, packed, check, git))
        leftovers = opened.sandbox.state.content.leftovers
    equal = not (any(lists.values()) or unnamed)
    deleted_here = [path for path in lists["only_there"] if path in leftovers and not is_within(path, scan.unread)]
    result = {"equal": equal, "files": len(manifest), **lists, "unnamed": unnamed, "deleted_here": deleted_here}
    if heading:
        result = {"sandbox": config.sandbox_name, **result}
    if as_json:
        return result
    if heading:
        click.echo(f"{config.sandbox_name}:")
    for word, paths in lists.items():
        for path in paths:
            click.echo(f"{word.replace('_', ' '):10}  {shown_path(path)}")
    if not equal:
        click.echo(", ".join(f"{len(paths):,} {word.replace('_', ' ')}" for word, paths in lists.items()))
    elif verbosity() >= 0:
        click.echo(f"in sync: {counted(len(manifest), 'path')} in the sandbox as here")
    if unnamed:
        click.echo(f"and {unnamed:,} more are only there")
    if deleted_here:
        keeps = config.sandbox.deletions is Deletions.KEEP
        why = 'sandbox.deletions is "keep"' if keeps else "to be removed, or changed there"
        click.echo(f"deleted here, and still there: {counted(len(deleted_here), 'path')} ({why})")
    if passed_over := len(excluded) + len(scan.unread):
        click.echo(f"not compared, as they are excluded: {passed_over:,} (see `syncd ls --excluded`)", err=True)
    return result
