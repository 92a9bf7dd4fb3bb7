"""Compares what several agents did: `syncd diff --all` and `syncd diff --sandbox A --against B`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

import click

from syncd.cli.agent_side import AgentSide, look_at, open_sandbox
from syncd.cli.diff.command import change_of, print_patch, row_of, show, tell_unshown
from syncd.cli.layout import aligned
from syncd.cli.options import is_named
from syncd.core.errors import ExitCode, SyncdError
from syncd.core.settings import Config
from syncd.core.text import shown_path
from syncd.merge.git import is_version
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry, same
from syncd.remote.failure import StepFailed

# Before a path that several agents changed.
_SEVERAL = "!"


def show_all(configs: Iterable[Config], named: tuple[str, ...], form: str | None) -> int:
    """Print what each agent changed of these paths, and return the exit code.

    A sandbox that cannot be asked is named, and keeps no other from being shown. Raises its failure at the end.
    """
    changes: dict[str, dict[str, str]] = {}  # by path, what each sandbox did
    rows, left_out, code, failed = [], 0, 0, None
    names = []
    for config in configs:
        name = config.sandbox_name
        try:
            with open_sandbox(config) as opened:
                side = look_at(opened)
                names.append(name)
                if form == "json":
                    local = side.local()
                    rows += [row_of(side, path, local[path]) for path in _paths(side, named)]
                    left_out += side.left_out
                elif form == "stat":
                    for path in _paths(side, named):
                        changes.setdefault(path, {})[name] = change_of(side, path)
                    side.tell_left_out(f"not shown of {name}")
                else:
                    click.echo(f"# {name}")
                    code = max(code, show(side, named, form))
        except (SyncdError, StepFailed) as failure:
            error = failure.as_error() if isinstance(failure, StepFailed) else failure
            click.echo(f"{name}: {error}", err=True)
            failed = failed or error
    if form == "json":
        click.echo(json.dumps({"changes": rows, "left_out": left_out}))
    elif form == "stat" and changes:
        for line in aligned(
            [("", *names), *(_line(path, by_name, names) for path, by_name in sorted(changes.items()))]
        ):
            print(line.rstrip())
    if failed is not None:
        raise failed
    return ExitCode.DIFFERENT if rows or changes else code


def show_against(ours: Config, other: Config, named: tuple[str, ...], form: str | None) -> int:
    """Print what the other agent did otherwise, as a patch from this one's to the other's; return the exit code."""
    with open_sandbox(ours) as opened, open_sandbox(other) as opened_other:
        first, second = look_at(opened), look_at(opened_other)
        paths = [path for path in {*_paths(first, named), *_paths(second, named)} if not _is_same(first, second, path)]
        paths.sort(key=os.fsencode)
        before, after = _versions(first, paths), _versions(second, paths)
        if form == "json":
            rows = [
                {
                    "path": path,
                    ours.sandbox_name: change_of(first, path),
                    other.sandbox_name: change_of(second, path),
                }
                for path in paths
            ]
            click.echo(json.dumps({"changes": rows}))
        elif form == "names":
            for path in paths:
                click.echo(shown_path(path))
        elif before or after:
            print_patch(first, before, after, form)
    return ExitCode.DIFFERENT if paths else ExitCode.DONE


def _paths(side: AgentSide, named: tuple[str, ...]) -> list[str]:
    return [path for path in sorted(side.work.changed, key=os.fsencode) if is_named(path, named)]


def _line(path: str, by_name: dict[str, str], names: list[str]) -> tuple[str, ...]:
    mark = _SEVERAL if len(by_name) > 1 else " "
    return (f"{mark} {shown_path(path)}", *(by_name.get(name, "") for name in names))


def _is_same(first: AgentSide, second: AgentSide, path: str) -> bool:
    return same(_there(first, path), _there(second, path))


def _there(side: AgentSide, path: str) -> Entry:
    """The entry that the sandbox has at this path, as far as is known."""
    return side.work.changed.get(path) or side.work.base_of(path) or ABSENT


def _versions(side: AgentSide, paths: list[str]) -> dict[str, SeenEntry]:
    """The versions of these paths in a sandbox that a patch can show: what its agent made, or what was sent."""
    found = {}
    here = side.writer.look(paths)
    for path in paths:
        changed = side.work.changed.get(path)
        version = changed if changed is not None else side.base_version(path, here[path])
        if version is not None and is_version(version):
            found[path] = version
        elif changed is not None and changed.kind not in (Kind.ABSENT, Kind.DIRECTORY):
            tell_unshown(path, changed)
    return found
