"""Compares what several agents did: `syncd diff --all` and `syncd diff --sandbox A --against B`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from syncd.cli.agent_side import AgentSide, for_each, look_at, open_sandbox
from syncd.cli.diff.command import change_of, is_shown, print_patch, row_of, show, tell_unshown
from syncd.cli.layout import aligned
from syncd.cli.options import is_named
from syncd.cli.output import print_path
from syncd.core.errors import ExitCode
from syncd.core.settings import Config
from syncd.core.text import shown_path
from syncd.merge.git import is_version
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry, same

# Before a path that several agents changed.
_SEVERAL = "!"


def show_all(configs: Sequence[Config], named: tuple[str, ...], form: str | None) -> int:
    """Print what each agent changed of these paths, and return the exit code.

    A sandbox that cannot be asked is named, and keeps no other from being shown. Raises its failure at the end.
    """
    table: dict[str, dict[str, str]] = {}  # by path, what each sandbox did
    names: list[str] = []
    rows: list[dict[str, Any]] = []
    left_out, codes = 0, {ExitCode.DONE}

    def ask(config: Config) -> None:
        nonlocal left_out
        name = config.sandbox_name
        with open_sandbox(config) as opened:
            side = look_at(opened)
            names.append(name)
            paths = _paths(side, named)
            codes.add(ExitCode.DIFFERENT if paths else ExitCode.DONE)
            if form == "json":
                local = side.local()
                rows.extend(row_of(side, path, local[path]) for path in paths)
                left_out += side.left_out
            elif form == "stat":
                for path in filter(partial(is_shown, side), paths):
                    table.setdefault(path, {})[name] = change_of(side, path)
                side.tell_left_out(f"not shown of {name}")
            else:
                click.echo(f"# {name}")
                show(side, named, form)

    failed = for_each(configs, ask)
    if form == "json":
        click.echo(json.dumps({"changes": rows, "left_out": left_out}))
    elif table:
        for line in aligned([("", *names), *(_line(path, by_name, names) for path, by_name in sorted(table.items()))]):
            print(line.rstrip())
    if failed is not None:
        raise failed
    return max(codes)


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
                if {_there(side, path).kind for side in (first, second)} - {Kind.ABSENT, Kind.DIRECTORY}:
                    print_path(path)
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
